"""Evaluates IAM policy documents as AWS does, as far as our templates use the language.

Follows "Policy evaluation logic" and "IAM JSON policy elements: Condition operators" of the IAM User Guide: an
explicit Deny wins, then an Allow, else the request is denied. A negated operator holds for a key that the request
lacks; an IfExists operator holds for it too; any other does not. An operator that is not listed raises, so that a
policy is never judged by half of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

Values = Sequence[str]


@dataclass(frozen=True)
class Request:
    """One request: `action` ("s3:GetObject") on `resource` (an ARN), made by the owner of the policies.

    context: condition keys of the request, lower case -> value or values.
    """

    action: str
    resource: str = "*"
    context: Mapping[str, str | Sequence[str]] = field(default_factory=dict)

    def values(self, key: str) -> Values:
        """The request's values of a condition key; none when it lacks the key. Keys ignore case."""
        return as_list({name.lower(): value for name, value in self.context.items()}.get(key.lower(), []))


def allowed(policies: Sequence[Mapping[str, Any]], request: Request) -> bool:
    """Return true when `policies`, taken together, allow `request`."""
    effects = {
        statement["Effect"]
        for policy in policies
        for statement in as_list(policy["Statement"])
        if _applies(statement, request)
    }
    return effects == {"Allow"}


def as_list(value: Any) -> list[Any]:
    """IAM writes a list of one without its brackets."""
    return list(value) if isinstance(value, (list, tuple, set)) else [value]


def _applies(statement: Mapping[str, Any], request: Request) -> bool:
    if unknown := set(statement) - {"Sid", "Effect", "Action", "Resource", "Condition", "Principal"}:
        raise NotImplementedError(f"statement element {unknown}")
    return (
        any(fnmatchcase(request.action.lower(), pattern.lower()) for pattern in as_list(statement["Action"]))
        and any(fnmatchcase(request.resource, pattern) for pattern in as_list(statement.get("Resource", "*")))
        and all(
            _holds(operator, request.values(key), [str(value) for value in as_list(wanted)])
            for operator, keys in statement.get("Condition", {}).items()
            for key, wanted in keys.items()
        )
    )


_OPERATORS: dict[str, Callable[[str, str], bool]] = {
    "StringEquals": lambda found, wanted: found == wanted,
    "StringLike": lambda found, wanted: fnmatchcase(found, wanted),
    "ArnEquals": lambda found, wanted: fnmatchcase(found, wanted),
    "Bool": lambda found, wanted: found.lower() == wanted.lower(),
    "NumericLessThan": lambda found, wanted: float(found) < float(wanted),
    "NumericGreaterThan": lambda found, wanted: float(found) > float(wanted),
}


def _holds(operator: str, found: Values, wanted: Values) -> bool:
    if operator == "Null":
        return (not found) == (wanted == ["true"])
    quantifier, _, operator = operator.rpartition(":")
    if_exists = operator.endswith("IfExists")
    operator = operator.removesuffix("IfExists")
    negated = "Not" in operator
    compare = _OPERATORS[operator.replace("Not", "")]
    matches = [any(compare(one, other) for other in wanted) != negated for one in found]
    if quantifier == "ForAnyValue":
        return any(matches)
    if quantifier == "ForAllValues":
        return all(matches)
    return all(matches) if found else negated or if_exists
