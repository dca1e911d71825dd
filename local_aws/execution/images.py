"""The images file, which maps image URIs to interpreters. See docs/contracts.md, "images.toml"."""

from __future__ import annotations

import enum
import functools
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from local_aws.errors import validation_error
from local_aws.settings import StartupError

SCHEMA_VERSION = 1
CATALOG = Path(__file__).with_name("images.toml")
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
    """One entry of the images file.

    Attributes:
        interpreter: An absolute path.
        argv: The command of a server.
        requires: Packages without which the image is refused.
    """

    name: str
    pattern: str
    contracts: frozenset[Contract]
    interpreter: str
    argv: tuple[str, ...]
    requires: tuple[str, ...] = ()

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

    def require(self, uri: str, *contracts: Contract) -> Image:
        """Return the first entry whose pattern matches the image URI, by order of `contracts`.

        Raises:
            AwsError: ValidationException: no entry matches, or its interpreter lacks packages; the message lists what
                is known.
        """
        for contract in contracts:
            for image in self.entries:
                if contract in image.contracts and fnmatchcase(uri, image.pattern):
                    missing = missing_packages(image.interpreter, image.requires)
                    if missing:
                        raise validation_error(
                            f"local_aws cannot run the image {uri}: {', '.join(missing)} is not installed in "
                            f"{image.interpreter}, which runs it ([images.{image.name}])."
                        )
                    return image
        names = " or ".join(f'"{contract.value}"' for contract in contracts)
        raise validation_error(
            f"local_aws does not know the image {uri} with the contract {names}. It knows: "
            f"{', '.join(i.pattern for i in self.entries if not i.contracts.isdisjoint(contracts))}. Add an entry to "
            f"{self.path.name} to have it run by an interpreter of this machine."
        )


@functools.cache
def missing_packages(interpreter: str, packages: tuple[str, ...]) -> tuple[str, ...]:
    """Return the packages that an interpreter cannot import; looked up once per process."""
    if not packages:
        return ()
    script = "import importlib.util as u, sys; print(*(p for p in sys.argv[1:] if u.find_spec(p) is None))"
    found = subprocess.run(
        [interpreter, "-I", "-c", script, *packages], capture_output=True, text=True, timeout=60
    )
    return tuple(found.stdout.split()) if found.returncode == 0 else packages


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
    entries = tuple(_entry(path, name, table) for name, table in tables.items())
    known = () if path == CATALOG else load(CATALOG).entries
    return Images(path=path, entries=(*entries, *known))


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
    requires = table.get("requires", [])
    if not isinstance(requires, list) or not all(isinstance(package, str) for package in requires):
        raise StartupError(f"{where}: requires must be a list of package names")
    if Contract.SERVER.value in contracts and not argv:
        raise StartupError(f"{where}: a server needs argv, the command that starts it")
    return Image(
        name=name,
        pattern=pattern,
        contracts=frozenset(Contract(c) for c in contracts),
        interpreter=_interpreter(where, table.get("interpreter", "python")),
        argv=tuple(argv),
        requires=tuple(requires),
    )


def _interpreter(where: str, name: Any) -> str:
    if not isinstance(name, str) or not name:
        raise StartupError(f"{where}: interpreter must be an absolute path or a program name")
    sibling = Path(sys.executable).parent / name
    if Path(name).is_absolute():
        found = name if Path(name).exists() else None
    else:
        found = str(sibling) if sibling.exists() else shutil.which(name)
    if found is None:
        raise StartupError(
            f"{where}: interpreter {name} was found neither next to {sys.executable} nor on the PATH"
        )
    return found
