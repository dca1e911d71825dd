"""S3's answers are those that were recorded on real AWS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from tests.local_aws.s3.recorded import KNOWN, Case, cases
from tests.local_aws.s3.s3_server import running_s3


def is_true(check: Any, answer: dict[str, Any]) -> bool:
    """Evaluate a check; an answer without the members it looks at does not pass."""
    try:
        return bool(check(answer))
    except (KeyError, IndexError):
        return False


def difference(case: Case, s3: Any) -> str:
    """Describe the difference from the recorded answer; "" when there is none."""
    try:
        answer = case.call(s3)
    except ClientError as error:
        return refusal(case, error.response)
    if case.status != 200:
        return f"accepted, not {case.status} {case.code}"
    for name, value in case.members.items():
        if name == "check":
            differs = not is_true(value, answer)
        elif name == "absent":
            differs = bool(set(value) & set(answer))
        else:
            differs = answer.get(name) != value
        if differs:
            return f"{name}: { ({k: v for k, v in answer.items() if k != 'ResponseMetadata'}) }"
    return ""


def refusal(case: Case, found: Any) -> str:
    """Describe the difference between errors."""
    error, status = found["Error"], found["ResponseMetadata"]["HTTPStatusCode"]
    if (status, error["Code"]) != (case.status, case.code):
        return f"{status} {error['Code']} {error.get('Message')}, not {case.status} {case.code}"
    if case.message and error["Message"] != case.message:
        return f"message {error['Message']!r}"
    wrong = [name for name, value in case.members.items() if str(error.get(name)) != str(value)]
    return f"{wrong[0]} is {error.get(wrong[0])!r}" if wrong else ""


def test_answers_are_those_recorded_on_aws(tmp_path: Path) -> None:
    with running_s3(tmp_path / "s3") as server:
        s3 = server.client()
        found = cases(s3)
        differing = {case.snapshot: text for case in found if (text := difference(case, s3))}
    assert len(found) >= 150
    assert len({case.snapshot for case in found}) == len(found)
    unexpected = {name: text for name, text in differing.items() if name not in KNOWN}
    assert not unexpected, "\n".join(f"{name}: {text}" for name, text in unexpected.items())
    assert set(KNOWN) <= set(differing), "an answer listed as different is right by now"
    assert len(differing) <= 0.05 * len(found)
