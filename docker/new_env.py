"""Writes .env from .env.example with fresh secrets: `python docker/new_env.py`. Standard library only."""

from __future__ import annotations

import base64
import os
import secrets
import string
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Fernet wants 32 bytes in URL-safe base64; HS512, which signs Airflow's tokens, a key of at least 64 bytes.
KEY_LETTERS = string.ascii_uppercase + string.digits
SECRETS = {
    "POSTGRES_PASSWORD": lambda: secrets.token_urlsafe(24),
    "REDIS_PASSWORD": lambda: secrets.token_urlsafe(24),
    "LOCAL_AWS_ACCESS_KEY_ID": lambda: "AKIA" + "".join(secrets.choice(KEY_LETTERS) for _ in range(16)),
    "LOCAL_AWS_SECRET_ACCESS_KEY": lambda: secrets.token_urlsafe(30),
    "AIRFLOW_ADMIN_PASSWORD": lambda: secrets.token_urlsafe(12),
    "AIRFLOW_JWT_SECRET": lambda: secrets.token_urlsafe(64),
    "AIRFLOW_SECRET_KEY": lambda: secrets.token_urlsafe(32),
    "AIRFLOW_FERNET_KEY": lambda: base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
    "NOTEBOOK_TOKEN": lambda: secrets.token_urlsafe(24),
}


def filled(example: str) -> str:
    """Return `example` with a fresh secret after each `NAME=` of SECRETS."""
    lines = []
    for line in example.splitlines():
        name = line.partition("=")[0]
        lines.append(f"{name}={SECRETS[name]()}" if name in SECRETS else line)
    return "\n".join(lines) + "\n"


def main(target: Path) -> int:
    """Write `target`, readable by its owner only; leave an existing file alone and return 1."""
    text = filled((ROOT / ".env.example").read_text())
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        print(f"{target} already exists: remove it to create new secrets", file=sys.stderr)
        return 1
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    print(f"wrote {target} (mode 0600); log in as admin with its AIRFLOW_ADMIN_PASSWORD")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / ".env"))
