"""Answers of real S3, as recorded by the snapshot tests of localstack/localstack (Apache-2.0, commit 8ea6f2f6).

Each case is one recorded answer: the name of the snapshot, a request of our own that leads to the same situation, and
the facts of the answer (status, error code, message, members). Requests run in order against one server.
docs/local-aws.md lists the answers in `KNOWN`, where local_aws differs.
"""

from __future__ import annotations

import time
from typing import Any

from tests.local_aws.s3.recorded import absent, conditions, lists, parts, writes
from tests.local_aws.s3.recorded.case import Case, Fixture

KNOWN: dict[str, str] = {}
"""Recorded answers that local_aws does not give, and why."""


def cases(s3: Any) -> list[Case]:
    """Prepare a server and return all cases in order."""
    fixture = Fixture(s3)
    time.sleep(1.1)  # If-Modified-Since has whole seconds, and a moment in the future is ignored
    return [
        *lists.listing(fixture),
        *absent.absent(),
        *conditions.conditions(fixture),
        *parts.parts(fixture),
        *writes.writes(fixture),
    ]
