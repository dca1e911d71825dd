"""The account's own credentials, with which everything else is set up where IAM is enforced."""

from __future__ import annotations

import configparser
import os
import secrets
import string
from pathlib import Path

from local_aws.context import Key
from local_aws.settings import StartupError

FILE = "credentials"
_LETTERS = string.ascii_uppercase + string.digits


def root_key(state: Path) -> Key:
    """The key in `<state>/credentials`, made at the first start. SDKs read it by AWS_SHARED_CREDENTIALS_FILE.

    Raises StartupError when the file is there and holds no key.
    """
    path = state / FILE
    if path.exists():
        return _read(path)
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
