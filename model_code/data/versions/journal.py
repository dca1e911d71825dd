"""Notes of what a job has done, in small files that outlive it: the next job goes on where it was killed."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from array import array
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO, cast

from model_code.data.shards import MAX_BYTES
from model_code.data.versions import looks
from model_code.data.versions.columns import BYTES, Findings
from model_code.data.versions.plan import ShardPlan

# Findings are written when the photos behind them would fill a shard: a kill costs no more of one than of the other.
_MOST_FILES = 5000


class Journal:
    """Findings and shards of a version in the making.

    A shard is known by its plan, because its own name is known only once it is written. It counts as written if the
    data set has it: its line may have been stored although the shard was not.

    Args:
        folder: Takes the new files; each appears whole, and none changes.
        earlier: Folder with the files of the jobs before; it may hold other files.
        stored: Bytes of the data set's shards by SHA-256.
    """

    def __init__(self, folder: Path, earlier: Path, stored: Mapping[str, int]) -> None:
        self._folder, self._earlier, self._stored = folder, earlier, stored
        self._rows, self._bytes = array("i"), 0

    def recall(self, found: Findings) -> None:
        """Add the findings of the jobs before."""
        for path in sorted(self._earlier.glob("looks-*.jsonl.gz")):
            with path.open("rb") as file:
                part = looks.read(file)
            for row in range(len(part)):
                found.add(part.path(row), part.stamp(row), part.found(row))

    def looked(self, found: Findings, row: int) -> None:
        """Note what was found at a file."""
        self._rows.append(row)
        self._bytes += found.sizes[row]
        if self._bytes >= MAX_BYTES or len(self._rows) >= _MOST_FILES:
            self.flush(found)

    def flush(self, found: Findings) -> None:
        """Write the findings that were noted since the last time."""
        rows, self._rows, self._bytes = self._rows, array("i"), 0
        if rows:
            names = "".join(f"{found.path(row)}\0{found.stamp(row)}\n" for row in rows)
            name = hashlib.sha256(names.encode("utf-8", "surrogatepass")).hexdigest()
            self._write(f"looks-{name}.jsonl.gz", lambda file: looks.write(file, found, rows))

    def shard(self, plan: ShardPlan) -> tuple[str, int] | None:
        """Return SHA-256 and bytes of the shard that an earlier job wrote by this plan; None: none did."""
        try:
            sha256 = json.loads((self._earlier / _name(plan)).read_bytes())["sha256"]
        except FileNotFoundError:
            return None
        return (sha256, self._stored[sha256]) if sha256 in self._stored else None

    def wrote(self, plan: ShardPlan, sha256: str) -> None:
        """Note a shard that is in its place."""
        self._write(_name(plan), lambda file: file.write(json.dumps({"sha256": sha256}).encode()))

    def _write(self, name: str, write: Callable[[BinaryIO], object]) -> None:
        with tempfile.NamedTemporaryFile(dir=self._folder, prefix=".part-", delete=False) as file:
            write(cast(BinaryIO, file))
        os.replace(file.name, self._folder / name)


def _name(plan: ShardPlan) -> str:
    digest = hashlib.sha256(f"{plan.split}\n".encode())
    for at, sha256 in enumerate(plan.photos.digests):
        digest.update(sha256.ljust(BYTES, b"\0") + f"{plan.photos.label(at)}\n".encode())
    return f"shard-{digest.hexdigest()}.json"
