"""Look up the secret of an access key: the account's own, an IAM user's, or a temporary one of STS."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import UTC, datetime

from moto.iam.models import iam_backends
from moto.sts.models import sts_backends

from local_aws.context import Key
from local_aws.settings import ACCOUNT_ID

PARTITION = "aws"
_MOST_CACHED = 4096


@dataclass(frozen=True)
class KnownKey:
    """A valid access key; `expires` in epoch seconds, None for keys without an end."""

    secret: str
    token: str = ""
    expires: float | None = None


class SecretKeys:
    """The access keys of an account. Thread-safe."""

    def __init__(self, root: Key) -> None:
        self._root = root
        self._sessions: dict[str, KnownKey] = {}
        self._lock = threading.Lock()

    def find(self, access_key: str) -> KnownKey | None:
        """Return an access key, or None for an unknown or inactive one."""
        if access_key == self._root.id:
            return KnownKey(self._root.secret)
        # STS's keys never change, and moto finds them by walking through a list.
        with self._lock:
            known = self._sessions.get(access_key)
        if known is not None:
            return known
        session = sts_backends[ACCOUNT_ID][PARTITION].get_assumed_role_from_access_key(access_key)
        if session is not None:
            end = session.expiration
            end = end if end.tzinfo else end.replace(tzinfo=UTC)
            known = KnownKey(session.secret_access_key, session.session_token, end.timestamp())
            with self._lock:
                if len(self._sessions) >= _MOST_CACHED:
                    self._sessions.clear()
                self._sessions[access_key] = known
            return known
        for user in list(iam_backends[ACCOUNT_ID][PARTITION].users.values()):
            for key in user.access_keys:
                if key.access_key_id == access_key and key.status == "Active":
                    return KnownKey(key.secret_access_key)
        return None


def now() -> float:
    """Return the epoch seconds, in one place for tests."""
    return datetime.now(UTC).timestamp()
