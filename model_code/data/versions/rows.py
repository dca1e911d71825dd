"""The lines of photos.jsonl in columns, read and written in parts."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from model_code.data.manifest import PhotoRow
from model_code.data.shards import KEY_DIGITS
from model_code.data.versions.columns import BYTES, SPLITS, Codes, Digests, Names, hex_of

_PART = 10_000


class Rows(Sequence[PhotoRow]):
    """Photos of a version, in the order of its shards.

    Attributes:
        digests: SHA-256 of each.
        labels: Number of its class in `classes`.
        splits: Number of its split in `SPLITS`.
        shards: Number of its shard in `shard_names`.
        phashes: Its perceptual hash; 0: none.
    """

    def __init__(
        self,
        digests: Digests,
        labels: Codes,
        classes: list[str],
        splits: NDArray[np.int8],
        shards: Codes,
        shard_names: list[str],
        phashes: NDArray[np.uint64],
    ) -> None:
        self.digests, self.labels, self.classes = digests, labels, classes
        self.splits, self.shards, self.shard_names, self.phashes = splits, shards, shard_names, phashes

    @classmethod
    def of(cls, rows: Iterable[PhotoRow]) -> Rows:
        """Return rows as columns."""
        if isinstance(rows, Rows):
            return rows
        digests, splits, phashes = bytearray(), bytearray(), array("Q")
        labels, shards = Names(), Names()
        for row in rows:
            digests += bytes.fromhex(row.sha256)
            labels.append(row.label)
            splits.append(SPLITS.index(row.split))
            shards.append(row.shard)
            phashes.append(int(row.phash or "0", 16))
        return cls(
            np.frombuffer(digests, f"S{BYTES}"),
            np.frombuffer(labels.rows, np.int32),
            labels.names,
            np.frombuffer(splits, np.int8),
            np.frombuffer(shards.rows, np.int32),
            shards.names,
            np.frombuffer(phashes, np.uint64),
        )

    @classmethod
    def read(cls, lines: Iterable[bytes]) -> Rows:
        """Read photos.jsonl.

        Raises:
            ManifestError: A line is damaged.
        """
        return cls.of(PhotoRow.from_line(line.decode()) for line in lines)

    def parts(self) -> Iterator[bytes]:
        """Yield photos.jsonl, some thousand lines at a time."""
        # As `PhotoRow.to_line`, without an object and a dictionary per line.
        heads = [f'{{"class": {json.dumps(name, ensure_ascii=False)}, "key": "' for name in self.classes]
        tails = [
            [f'", "shard": "{shard}", "split": "{split}"}}\n' for split in SPLITS]
            for shard in self.shard_names
        ]
        for start in range(0, len(self), _PART):
            part = slice(start, start + _PART)
            yield "".join(
                f'{heads[label]}{(sha256 := hex_of(digest))[:KEY_DIGITS]}", "phash": '
                + (f'"{phash:016x}"' if phash else "null")
                + f', "sha256": "{sha256}{tails[shard][split]}'
                for digest, label, split, shard, phash in zip(
                    self.digests[part].tolist(), self.labels[part].tolist(), self.splits[part].tolist(),
                    self.shards[part].tolist(), self.phashes[part].tolist(), strict=True,
                )
            ).encode()  # fmt: skip

    def sha256(self) -> str:
        """SHA-256 of photos.jsonl."""
        digest = hashlib.sha256()
        for part in self.parts():
            digest.update(part)
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self.labels)

    @overload
    def __getitem__(self, at: int) -> PhotoRow: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[PhotoRow]: ...
    def __getitem__(self, at: int | slice) -> PhotoRow | Sequence[PhotoRow]:
        if isinstance(at, slice):
            return [self[place] for place in range(*at.indices(len(self)))]
        sha256, phash = hex_of(self.digests[at]), int(self.phashes[at])
        return PhotoRow(
            key=sha256[:KEY_DIGITS],
            sha256=sha256,
            label=self.classes[self.labels[at]],
            split=SPLITS[self.splits[at]],
            shard=self.shard_names[self.shards[at]],
            phash=f"{phash:016x}" if phash else None,
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)
