"""Policy documents evaluated: who may do what to which resource. Pure functions over parsed JSON."""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from local_aws.iam.conditions import Keys, UnknownOperator, hold, listed, matches

Document = Mapping[str, Any]
Statement = Mapping[str, Any]


class Decision(enum.Enum):
    """IAM's answers, by the names that the policy simulator gives them."""

    ALLOWED = "allowed"
    IMPLICIT_DENY = "implicitDeny"
    EXPLICIT_DENY = "explicitDeny"


@dataclass(frozen=True)
class Access:
    """One permission that a request needs.

    Args:
        action: such as "s3:GetObject".
        resource: an ARN, or "*" for actions that IAM cannot narrow.
        keys: the request's condition keys; None where they are unknown.
    """

    action: str
    resource: str = "*"
    keys: Keys | None = None


def statements(document: Document) -> list[Statement]:
    """Return the statements of a policy document, of which a single one may stand without a list."""
    found = document.get("Statement", [])
    return [found] if isinstance(found, Mapping) else list(found)


def decide(policies: Iterable[Document], access: Access) -> Decision:
    """IAM's rule: a matching Deny wins, then a matching Allow; otherwise it is denied implicitly.

    A condition that cannot be judged is taken as met for Deny and as not met for Allow: the answer errs towards
    denial, never towards permission.
    """
    allowed = False
    for document in policies:
        for statement in statements(document):
            denies = statement.get("Effect") == "Deny"
            if not _applies(statement, access, unsure=denies):
                continue
            if denies:
                return Decision.EXPLICIT_DENY
            allowed = allowed or statement.get("Effect") == "Allow"
    return Decision.ALLOWED if allowed else Decision.IMPLICIT_DENY


def trusts(document: Document, service: str, account: str) -> bool:
    """Return True if a trust policy lets a service ("sagemaker.amazonaws.com") assume the role."""
    keys = {"aws:sourceaccount": (account,)}
    return any(
        statement.get("Effect") == "Allow"
        and service in listed(_mapping(statement.get("Principal")).get("Service"))
        and _applies({**statement, "Resource": "*"}, Access("sts:AssumeRole", "*", keys), unsure=False)
        for statement in statements(document)
    )


class Grant(enum.Enum):
    """The answer of a policy that is attached to a resource."""

    NOTHING = "nothing"
    TO_ACCOUNT = "to the account"
    """The account may hand the permission on by its own policies."""
    TO_PRINCIPAL = "to the principal"
    DENIED = "denied"


def granted(document: Document, access: Access, names: Collection[str], account: str) -> Grant:
    """Evaluate a resource's policy for a principal.

    Args:
        document: the policy attached to the resource.
        access: the request: action, resource and condition keys.
        names: the principal's ARNs (session and role, or user), or the name of an AWS service; empty for anonymous
            requests.
        account: the principal's account, "" for anonymous requests.
    """
    best = Grant.NOTHING
    for statement in statements(document):
        denies = statement.get("Effect") == "Deny"
        reach = _reach(statement, names, account)
        if reach is Grant.NOTHING or not _applies({"Resource": "*", **statement}, access, unsure=denies):
            continue
        if denies:
            return Grant.DENIED
        if statement.get("Effect") == "Allow" and best is not Grant.TO_PRINCIPAL:
            best = reach
    return best


def _reach(statement: Statement, names: Collection[str], account: str) -> Grant:
    """Return whom the Principal element of a statement means, as far as this caller is among them."""
    if "NotPrincipal" in statement:
        found = _named(statement["NotPrincipal"], names, account)
        return Grant.TO_PRINCIPAL if found is Grant.NOTHING else Grant.NOTHING
    return _named(statement.get("Principal"), names, account)


def _named(principal: Any, names: Collection[str], account: str) -> Grant:
    if principal == "*":
        return Grant.TO_PRINCIPAL
    given = [str(value) for value in listed(_mapping(principal).get("AWS", []))]
    services = listed(_mapping(principal).get("Service", []))
    if "*" in given or any(name in given or name in services for name in names):
        return Grant.TO_PRINCIPAL
    if account and (account in given or f"arn:aws:iam::{account}:root" in given):
        return Grant.TO_ACCOUNT
    return Grant.NOTHING


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _applies(statement: Statement, access: Access, unsure: bool) -> bool:
    if not (_matches_action(statement, access.action) and _matches_resource(statement, access.resource)):
        return False
    conditions = statement.get("Condition")
    if not conditions:
        return True
    if access.keys is None:
        return unsure
    try:
        return hold(conditions, access.keys)
    except UnknownOperator:
        return unsure


def _matches_action(statement: Statement, action: str) -> bool:
    """Action names are compared without case, as IAM does."""
    if "NotAction" in statement:
        return not any(matches(action.lower(), p.lower()) for p in listed(statement["NotAction"]))
    return any(matches(action.lower(), p.lower()) for p in listed(statement.get("Action", [])))


def _matches_resource(statement: Statement, resource: str) -> bool:
    if "NotResource" in statement:
        return not any(matches(resource, pattern) for pattern in listed(statement["NotResource"]))
    return any(matches(resource, pattern) for pattern in listed(statement.get("Resource", [])))
