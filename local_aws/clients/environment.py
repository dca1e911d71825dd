"""The environment variables with which SDKs, the AWS CLI and scripts reach a local_aws."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path

from local_aws.iam.credentials import ENVIRONMENT, root_key
from local_aws.settings import StartupError
from local_aws.state import folder as state_folder

ANY = ("local", "local")
"""A key for a local_aws that accepts any credentials."""
LOOPBACK = Path(__file__).with_name("loopback")
"""A folder for PYTHONPATH, whose sitecustomize keeps botocore's clients on loopback."""
UNSET = (
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_SESSION_TOKEN",
    "AWS_ROLE_ARN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
)
"""Variables of a real account, which SDKs would prefer or add."""


def variables(state: Path, region: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables for the local_aws of a state folder.

    Args:
        state: Its state folder.
        region: The region that clients use.
        environ: Our own environment, which may hold the key that local_aws was started with.

    Raises:
        StartupError: It does not run.
    """
    url = state_folder.read_text(state / state_folder.URL)
    if not url or not state_folder.is_locked(state):
        raise StartupError(
            f"local_aws is not running on {state}: start it with: python -m local_aws start --state {state}"
        )
    key, secret = ANY
    if (state / state_folder.CREDENTIALS).exists() or environ.get(ENVIRONMENT[0]):
        root = root_key(state, environ)
        key, secret = root.id, root.secret
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def exports(values: Mapping[str, str]) -> str:
    """Format variables for `eval` in a POSIX shell; variables of a real account are unset."""
    lines = [
        f"unset {' '.join(UNSET)}",
        *(f"export {name}={shlex.quote(value)}" for name, value in values.items()),
    ]
    return "\n".join(lines)


def for_command(values: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a command: our own, with local_aws in place of a real account."""
    kept = {name: value for name, value in own.items() if name not in UNSET}
    path = [str(LOOPBACK), *filter(None, [own.get("PYTHONPATH", "")])]
    return {**kept, **values, "PYTHONPATH": os.pathsep.join(path)}
