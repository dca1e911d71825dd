"""Refuse words that a native engineer of the field would not write: `python -m tools.check_words [FILE ...]`.

Each has a plain replacement, named in the message. A line that needs one (a user account called nobody, a quotation)
ends with `words: ok`.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
REFUSED = {
    "alike": "both, equally, similar",
    "beside": "next to, besides, with",
    "dearest": "most expensive",
    "for ever": "forever, without end",
    "in vain": "without effect, spuriously",
    "lies": "is, is stored",
    "nobody": "no one, nothing",
    "so many": "the number, up to N",
    "somebody": "a user, another process",
    "whoever": "the caller, anyone who",
}
READ = {".css", ".html", ".in", ".js", ".md", ".py", ".sh", ".toml", ".yaml", ""}
PARDON = "words: ok"

# An underscore counts as a space, so that names of functions are read too; a sentence may continue on the next line.
_GAP = r"(?:[\s_]|\n\s*#)+"
_PATTERN = re.compile(
    r"(?<![A-Za-z])(" + "|".join(word.replace(" ", _GAP) for word in REFUSED) + r")(?![A-Za-z])",
    re.IGNORECASE,
)


class Found(NamedTuple):
    """A refused word: its line (from 1), and the entry of REFUSED that it matches."""

    line: int
    word: str


def refused_words(text: str) -> Iterator[Found]:
    """Yield each refused word of `text`, except on lines that end with the pardon."""
    lines = text.splitlines()
    for match in _PATTERN.finditer(text):
        number = text.count("\n", 0, match.start()) + 1
        if not lines[number - 1].rstrip(" -*/>").endswith(PARDON):
            yield Found(number, " ".join(re.findall(r"[a-z]+", match[1].lower())))


def readable_files() -> list[Path]:
    """Return the files that git tracks or would track, less those that hold data and the list above."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    return [ROOT / name for name in listed.split("\0") if name]


def is_checked(path: Path) -> bool:
    """Tell whether a file holds prose or code of ours."""
    name = path.relative_to(ROOT).as_posix()
    if name == "tools/check_words.py" or name.startswith(("tests/tools/", "LICENSE")):
        return False
    return path.suffix in READ and path.is_file()


def main(names: Sequence[str]) -> int:
    """Print each refused word as `file:line: message`; return 1 when there is any."""
    count = 0
    for path in [Path(name).resolve() for name in names] or readable_files():
        if not is_checked(path):
            continue
        for found in refused_words(path.read_text()):
            count += 1
            print(f"{path.relative_to(ROOT)}:{found.line}: {found.word!r}: write {REFUSED[found.word]}")
    return min(count, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
