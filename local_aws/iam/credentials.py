"""The account's own credentials, with which clients sign and set up everything else."""

from __future__ import annotations

import configparser
import os
import secrets
import string
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from local_aws.context import Key
from local_aws.settings import StartupError
from local_aws.state.folder import CREDENTIALS

ENVIRONMENT = ("LOCAL_AWS_ACCESS_KEY_ID", "LOCAL_AWS_SECRET_ACCESS_KEY")
_LETTERS = string.ascii_uppercase + string.digits


def root_key(state: Path, environ: Mapping[str, str] = MappingProxyType({})) -> Key:
    """Return the account's key: that of the environment, else the one in `<state>/credentials`.

    The file is created with a new key at the first start; SDKs read it by AWS_SHARED_CREDENTIALS_FILE.

    Raises:
        StartupError: the file holds no key, or the environment gives one half of a key.
    """
    path = state / CREDENTIALS
    given = [environ.get(name, "") for name in ENVIRONMENT]
    if all(given):
        return Key(*given)
    if any(given):
        raise StartupError(f"set both {ENVIRONMENT[0]} and {ENVIRONMENT[1]}, or neither")
    if path.exists():
        return _read(path)
    state.mkdir(parents=True, exist_ok=True)
    state.chmod(0o700)
    key = Key("AKIA" + "".join(secrets.choice(_LETTERS) for _ in range(16)), secrets.token_urlsafe(30))
    text = f"[default]\naws_access_key_id = {key.id}\naws_secret_access_key = {key.secret}\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    return key


def _read(path: Path) -> Key:
    parser = configparser.RawConfigParser()
    try:
        parser.read(path)
        section = parser["default"]
        return Key(section["aws_access_key_id"], section["aws_secret_access_key"])
    except (configparser.Error, KeyError) as error:
        raise StartupError(
            f"{path} holds no access key ({error}): delete it to have a new one made"
        ) from error
