"""IAM policy documents evaluated: who may do what to which resource. Pure functions over parsed JSON."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

Statement = Mapping[str, Any]


class Decision(enum.Enum):
    """IAM's answers, by the names that the policy simulator gives them."""

    ALLOWED = "allowed"
    IMPLICIT_DENY = "implicitDeny"
    EXPLICIT_DENY = "explicitDeny"


def statements(document: Mapping[str, Any]) -> list[Statement]:
    """The statements of a policy document, of which a single one may stand without a list."""
    found = document.get("Statement", [])
    return [found] if isinstance(found, Mapping) else list(found)


def decide(policies: Iterable[Mapping[str, Any]], action: str, resource: str) -> Decision:
    """IAM's rule: a matching Deny wins, then a matching Allow; otherwise it is denied implicitly.

    Conditions are taken as met for Deny and as not met for Allow, because no request context is known here:
    the answer errs towards denial, never towards permission.
    """
    allowed = False
    for document in policies:
        for statement in statements(document):
            if not (_matches_action(statement, action) and _matches_resource(statement, resource)):
                continue
            if statement.get("Effect") == "Deny":
                return Decision.EXPLICIT_DENY
            allowed = allowed or (statement.get("Effect") == "Allow" and not statement.get("Condition"))
    return Decision.ALLOWED if allowed else Decision.IMPLICIT_DENY


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or [])


def _matches_action(statement: Statement, action: str) -> bool:
    """Action names are compared without case, as IAM does."""
    if "NotAction" in statement:
        return not any(fnmatchcase(action.lower(), p.lower()) for p in _listed(statement["NotAction"]))
    return any(fnmatchcase(action.lower(), p.lower()) for p in _listed(statement.get("Action")))


def _matches_resource(statement: Statement, resource: str) -> bool:
    if "NotResource" in statement:
        return not any(_matches_arn(pattern, resource) for pattern in _listed(statement["NotResource"]))
    return any(_matches_arn(pattern, resource) for pattern in _listed(statement.get("Resource")))


def _matches_arn(pattern: str, resource: str) -> bool:
    # fnmatch would read brackets as character classes; IAM knows * and ? only.
    return fnmatchcase(resource, pattern.replace("[", "[[]"))
