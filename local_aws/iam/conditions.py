"""Evaluate Condition blocks, after "IAM JSON policy elements: Condition operators" of the IAM User Guide."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

Keys = Mapping[str, Sequence[str]]
"""Condition keys of a request, lower case -> their values; a key that the request lacks is left out."""


class UnknownOperator(Exception):
    """A condition operator that is not evaluated here; `args[0]` is its name."""


def hold(conditions: Mapping[str, Mapping[str, Any]], keys: Keys) -> bool:
    """Return True if every condition of a block holds.

    Raises:
        UnknownOperator: a condition uses an operator that is not implemented.
    """
    return all(
        _holds(operator, keys.get(key.lower(), ()), [_text(value) for value in listed(wanted)])
        for operator, block in conditions.items()
        for key, wanted in block.items()
    )


def listed(value: Any) -> list[Any]:
    """IAM writes a list of one without its brackets."""
    return list(value) if isinstance(value, (list, tuple)) else [value]


def matches(text: str, pattern: str) -> bool:
    """Match IAM's wildcards: * and ?, and nothing else."""
    return fnmatchcase(text, pattern.replace("[", "[[]"))


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _number(compare: Callable[[float, float], bool]) -> Callable[[str, str], bool]:
    def check(found: str, wanted: str) -> bool:
        try:
            return compare(float(found), float(wanted))
        except ValueError:
            return False

    return check


def _is_within(address: str, block: str) -> bool:
    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(block, strict=False)
    except ValueError:
        return False


_OPERATORS: dict[str, Callable[[str, str], bool]] = {
    "StringEquals": lambda found, wanted: found == wanted,
    "StringEqualsIgnoreCase": lambda found, wanted: found.lower() == wanted.lower(),
    "StringLike": matches,
    "ArnEquals": matches,
    "ArnLike": matches,
    "IpAddress": _is_within,
    "Bool": lambda found, wanted: found.lower() == wanted.lower(),
    "NumericEquals": _number(lambda found, wanted: found == wanted),
    "NumericLessThan": _number(lambda found, wanted: found < wanted),
    "NumericLessThanEquals": _number(lambda found, wanted: found <= wanted),
    "NumericGreaterThan": _number(lambda found, wanted: found > wanted),
    "NumericGreaterThanEquals": _number(lambda found, wanted: found >= wanted),
}


def _holds(operator: str, found: Sequence[str], wanted: Sequence[str]) -> bool:
    """A negated operator holds for a key that the request lacks, an IfExists operator too, any other does not."""
    if operator == "Null":
        return (not found) == (wanted[0] == "true")
    quantifier, _, name = operator.rpartition(":")
    if_exists = name.endswith("IfExists")
    name = name.removesuffix("IfExists")
    negated = "Not" in name
    compare = _OPERATORS.get(name.replace("Not", "", 1))
    if compare is None:
        raise UnknownOperator(operator)
    results = [any(compare(one, other) for other in wanted) != negated for one in found]
    if quantifier == "ForAnyValue":
        return any(results)
    if quantifier == "ForAllValues":
        return all(results)
    return all(results) if found else negated or if_exists
