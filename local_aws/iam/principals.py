"""Find the principal behind an access key (the account itself, a user, a role's session) and its policies.

moto keeps users, roles, policies and sessions; this reads its records.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from moto.iam.models import iam_backends
from moto.sts.models import sts_backends

from local_aws.iam.policy import Access, Decision, Document, decide, trusts
from local_aws.settings import ACCOUNT_ID

PARTITION = "aws"


@dataclass(frozen=True)
class Principal:
    """A caller.

    `limits` are further sets of policies (a permissions boundary, a session policy), each of which must allow a request
    too.
    """

    arn: str
    role: str = ""
    policies: tuple[Document, ...] = ()
    limits: tuple[tuple[Document, ...], ...] = ()
    is_root: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The ARNs by which policies of resources name the caller."""
        return tuple(name for name in (self.arn, self.role) if name)

    def within_limits(self, access: Access) -> bool:
        """Return True if boundary and session policy allow a permission that another policy grants."""
        return all(decide(limit, access) is Decision.ALLOWED for limit in self.limits)

    def decide(self, access: Access) -> tuple[Decision, str]:
        """Return the decision, and the kind of policy that denies."""
        if self.is_root:
            return Decision.ALLOWED, ""
        decision = decide(self.policies, access)
        if decision is not Decision.ALLOWED:
            return decision, "an identity-based policy"
        for limit in self.limits:
            decision = decide(limit, access)
            if decision is not Decision.ALLOWED:
                return decision, "a permissions boundary or session policy"
        return Decision.ALLOWED, ""


ROOT = Principal(f"arn:aws:iam::{ACCOUNT_ID}:root", is_root=True)
ANONYMOUS = Principal("")


def principal_of(access_key: str) -> Principal | None:
    """Return the user or role session of an access key, or None for an unknown key."""
    session = sts_backends[ACCOUNT_ID][PARTITION].get_assumed_role_from_access_key(access_key)
    if session is not None:
        role = find_role(session.role_arn)
        if role is None:
            return Principal(session.arn, session.role_arn)
        limits = (*_boundary(role), (_parsed(session.policy),)) if session.policy else _boundary(role)
        return Principal(session.arn, session.role_arn, tuple(_documents(role)), limits)
    iam = iam_backends[ACCOUNT_ID][PARTITION]
    for user in list(iam.users.values()):
        if any(key.access_key_id == access_key and key.status == "Active" for key in user.access_keys):
            groups = [group for group in iam.groups.values() if user in group.users]
            policies = [document for owner in (user, *groups) for document in _documents(owner)]
            return Principal(user.arn, policies=tuple(policies), limits=_boundary(user))
    return None


def find_role(arn: str) -> Any:
    """Return moto's record of a role, or None."""
    roles = list(iam_backends[ACCOUNT_ID][PARTITION].roles.values())
    return next((role for role in roles if role.arn == arn), None)


def may_be_taken(arn: str, service: str) -> bool:
    """Return True if the role exists and its trust policy names the service."""
    role = find_role(arn)
    return role is not None and trusts(_parsed(role.assume_role_policy_document), service, ACCOUNT_ID)


def trust_of(arn: str) -> Document | None:
    """Return a role's trust policy, or None when there is no such role."""
    role = find_role(arn)
    return None if role is None else _parsed(role.assume_role_policy_document)


def _documents(owner: Any) -> Iterable[Document]:
    """Inline and attached policies of a user, group or role."""
    for text in list(owner.policies.values()):
        yield _parsed(text)
    for managed in list(owner.managed_policies.values()):
        yield _default_version(managed)


def _boundary(owner: Any) -> tuple[tuple[Document, ...], ...]:
    arn = getattr(owner, "permissions_boundary_arn", None)
    if not arn:
        return ()
    managed = iam_backends[ACCOUNT_ID][PARTITION].managed_policies.get(arn)
    # A boundary that is gone allows nothing.
    return ((_default_version(managed),) if managed is not None else (),)


def _default_version(managed: Any) -> Document:
    text = next((version.document for version in managed.versions if version.is_default), "{}")
    return _parsed(text)


def _parsed(document: Any) -> Document:
    return _parse(document) if isinstance(document, str) else dict(document)


@functools.lru_cache(maxsize=512)
def _parse(text: str) -> Document:
    return dict(json.loads(text or "{}"))
