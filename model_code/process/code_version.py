"""The version of the code that makes a model: a hash of this package, the same in a repository, tar or image."""

import hashlib
from functools import cache
from pathlib import Path


@cache
def code_version() -> str:
    """Twelve hex digits of the SHA-256 over the Python files of `model_code`: paths and contents."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
