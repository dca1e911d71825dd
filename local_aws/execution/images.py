"""The images file, which maps image URIs to interpreters. See docs/contracts.md, "images.toml"."""

from __future__ import annotations

import enum
import shutil
import sys
import tomllib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from local_aws.settings import StartupError

SCHEMA_VERSION = 1
CATALOGUE = Path(__file__).with_name("images.toml")
"""AWS's public images: what runs when no file is given."""


class Contract(enum.Enum):
    """The interface of a container."""

    SCRIPT = "script"
    """Script mode as sagemaker-training-toolkit implements it."""
    PROCESSING = "processing"
    """ContainerEntrypoint and ContainerArguments are the command."""
    SERVER = "server"
    """A server that answers GET /ping and POST /invocations."""


@dataclass(frozen=True)
class Image:
    """One entry of the images file. `interpreter` is an absolute path; `argv` is the command of a server."""

    name: str
    pattern: str
    contracts: frozenset[Contract]
    interpreter: str
    argv: tuple[str, ...]

    def command(self, argv: list[str] | tuple[str, ...]) -> list[str]:
        """`argv` with a leading python of any version replaced by this image's interpreter."""
        if argv and Path(argv[0]).name in ("python", "python3", "python3.11"):
            return [self.interpreter, *argv[1:]]
        return list(argv)


@dataclass(frozen=True)
class Images:
    """The images file, read."""

    path: Path
    entries: tuple[Image, ...]

    def find(self, uri: str) -> Image | None:
        """Return the first entry whose pattern matches the image URI."""
        return next((image for image in self.entries if fnmatchcase(uri, image.pattern)), None)

    def find_for(self, uri: str, contract: Contract) -> Image | None:
        """Return the first entry whose pattern matches and that allows `contract`."""
        return next(
            (i for i in self.entries if contract in i.contracts and fnmatchcase(uri, i.pattern)),
            None,
        )

    @property
    def patterns(self) -> str:
        """All patterns, for an error message."""
        return ", ".join(image.pattern for image in self.entries)


def load(path: Path) -> Images:
    """Read the images file.

    Raises:
        StartupError: The file is absent, is not TOML, or holds an entry that cannot run; the message names the fix.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StartupError(f"images file {path} does not exist: pass the right one with --images") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise StartupError(f"images file {path} cannot be read: {error}") from error
    version = document.get("schema_version")
    if version != SCHEMA_VERSION:
        raise StartupError(
            f"images file {path} has schema_version {version}: this local_aws reads {SCHEMA_VERSION}"
        )
    tables = document.get("images", {})
    if not isinstance(tables, dict) or not tables:
        raise StartupError(f"images file {path} has no [images.<name>] table: jobs would have nothing to run")
    return Images(path=path, entries=tuple(_entry(path, name, table) for name, table in tables.items()))


def _entry(path: Path, name: str, table: Any) -> Image:
    where = f"images file {path}, [images.{name}]"
    if not isinstance(table, dict):
        raise StartupError(f"{where}: must be a table")
    pattern = table.get("pattern")
    if not isinstance(pattern, str) or not pattern:
        raise StartupError(f'{where}: needs a pattern, for example "*.dkr.ecr.*/pytorch:*"')
    allowed = [c.value for c in Contract]
    contracts = table.get("contracts")
    if not isinstance(contracts, list) or not contracts or not set(contracts) <= set(allowed):
        raise StartupError(f"{where}: contracts must be a list out of {allowed}")
    argv = table.get("argv", [])
    if not isinstance(argv, list) or not all(isinstance(a, str) for a in argv):
        raise StartupError(f"{where}: argv must be a list of strings")
    if Contract.SERVER.value in contracts and not argv:
        raise StartupError(f"{where}: a server needs argv, the command that starts it")
    return Image(
        name=name,
        pattern=pattern,
        contracts=frozenset(Contract(c) for c in contracts),
        interpreter=_interpreter(where, table.get("interpreter", "python")),
        argv=tuple(argv),
    )


def _interpreter(where: str, name: Any) -> str:
    if not isinstance(name, str) or not name:
        raise StartupError(f"{where}: interpreter must be an absolute path or a program name")
    beside = Path(sys.executable).parent / name
    if Path(name).is_absolute():
        found = name if Path(name).exists() else None
    else:
        found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise StartupError(
            f"{where}: interpreter {name} was found neither beside {sys.executable} nor on the PATH"
        )
    return found
