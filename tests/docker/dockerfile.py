"""Reads a Dockerfile as far as the tests need: instructions with their continued lines joined."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from tests.docker.compose import ROOT

DOCKERFILES = sorted((ROOT / "docker").glob("*/Dockerfile"))


@dataclass(frozen=True)
class Instruction:
    """One instruction: `COPY`, and the text after it."""

    name: str
    text: str

    @property
    def words(self) -> list[str]:
        """The text as words, in shell or in exec (JSON) form."""
        return json.loads(self.text) if self.text.startswith("[") else shlex.split(self.text)


def instructions(path: Path) -> list[Instruction]:
    """The instructions of a Dockerfile in order."""
    lines = (line for line in path.read_text().splitlines() if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n\s*", " ", "\n".join(line for line in lines if line.strip()))
    return [Instruction(*line.split(maxsplit=1)) for line in joined.splitlines()]


def copied(path: Path) -> list[str]:
    """Return the paths that a Dockerfile copies from the build context."""
    sources = []
    for instruction in instructions(path):
        if instruction.name == "COPY" and "--from=" not in instruction.text:
            sources += [word for word in instruction.words[:-1] if not word.startswith("--")]
    return sources
