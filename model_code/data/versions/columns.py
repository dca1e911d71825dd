"""Records of a million photos in columns: about 150 bytes each, where an object takes a thousand."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from model_code.data.records import Photo, Rejected
from model_code.data.shards import Split
from model_code.data.source import Candidate

Digests = NDArray[np.bytes_]
"""SHA-256 of photos, 32 bytes each. numpy drops zeros at the end of a single one: see `hex_of`."""
Codes = NDArray[np.int32]

BYTES = 32
_PART = 50_000
SPLITS = tuple(Split)


def hex_of(digest: bytes) -> str:
    """Return a digest as 64 hex digits."""
    return digest.ljust(BYTES, b"\0").hex()


def digests_of(hexes: Iterable[str]) -> Digests:
    """Return hex digests as a column."""
    return np.frombuffer(bytearray().join(map(bytes.fromhex, hexes)), f"S{BYTES}")


def places_of(wanted: Digests, among: Digests) -> NDArray[np.int64]:
    """Return the position in `among` of each wanted digest; -1 where it is not there."""
    if not len(among):
        return np.full(len(wanted), -1, np.int64)
    order = np.argsort(among)
    at = np.searchsorted(among, wanted, sorter=order)
    at[at == len(among)] = 0
    at = order[at]
    at[~_same(among, at, wanted)] = -1
    return at


def _same(among: Digests, at: NDArray[np.int64], wanted: Digests) -> NDArray[np.bool_]:
    """Tell for each wanted digest whether it is that of `among` at its position; in parts, for their copies."""
    same = np.empty(len(at), bool)
    for start in range(0, len(at), _PART):
        part = slice(start, start + _PART)
        same[part] = among[at[part]] == wanted[part]
    return same


class Texts:
    """Strings one after the other in one buffer."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._ends = array("Q")

    def append(self, text: str) -> None:
        """Add a string; file names that are no UTF-8 included."""
        self._data += text.encode("utf-8", "surrogatepass")
        self._ends.append(len(self._data))

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, row: int) -> str:
        start = self._ends[row - 1] if row else 0
        return self._data[start : self._ends[row]].decode("utf-8", "surrogatepass")


class Names:
    """Strings of few kinds: a number per row."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.names: list[str] = list(names)
        self._codes = {name: code for code, name in enumerate(self.names)}
        self.rows = array("i")

    def code(self, name: str) -> int:
        """Return the number of a name."""
        if (code := self._codes.get(name)) is None:
            code = self._codes[name] = len(self.names)
            self.names.append(name)
        return code

    def append(self, name: str) -> None:
        """Add a row."""
        self.rows.append(self.code(name))

    def __getitem__(self, row: int) -> str:
        return self.names[self.rows[row]]


class Findings(Mapping[str, tuple[str, Photo | Rejected]]):
    """The finding at each path: the stamp of the file, and the photo or the reason why it is none.

    Rows are only added. One whose file is still to be read is `expect`ed first and `settle`d later.
    """

    def __init__(self) -> None:
        self._paths, self._stamps = Texts(), Texts()
        self.labels, self._suffixes, self._reasons = Names(), Names(), Names([""])
        self.sha256 = bytearray()
        self.phashes = array("Q")  # 0: none
        self.sizes = array("q")
        self._find: tuple[int, Callable[[str], int | None]] | None = None

    @classmethod
    def of(cls, found: Mapping[str, tuple[str, Photo | Rejected]]) -> Findings:
        """Return findings as columns."""
        if isinstance(found, Findings):
            return found
        columns = cls()
        for path, (stamp, item) in found.items():
            columns.add(path, stamp, item)
        return columns

    def add(self, path: str, stamp: str, found: Photo | Rejected) -> None:
        """Add a finding."""
        self.expect(path, stamp, found.label if isinstance(found, Photo) else "", 0)
        self.settle(len(self._paths) - 1, found)

    def expect(self, path: str, stamp: str, label: str, size: int) -> int:
        """Add a file that is still to be read; returns its row."""
        self._paths.append(path)
        self._stamps.append(stamp)
        self.labels.append(label)
        self._suffixes.append("")
        self._reasons.append("")
        self.sha256 += bytes(BYTES)
        self.phashes.append(0)
        self.sizes.append(size)
        return len(self._paths) - 1

    def settle(self, row: int, found: Photo | Rejected) -> None:
        """Fill in what was found at the file of a row."""
        if isinstance(found, Rejected):
            self._reasons.rows[row] = self._reasons.code(found.reason)
            return
        self.sha256[row * BYTES : (row + 1) * BYTES] = bytes.fromhex(found.sha256)
        self.labels.rows[row] = self.labels.code(found.label)
        self._suffixes.rows[row] = self._suffixes.code(found.suffix)
        self.phashes[row] = found.phash or 0
        self.sizes[row] = found.bytes

    def found(self, row: int, label: str | None = None) -> Photo | Rejected:
        """Return what was found at the file of a row, as of another class where a label is given."""
        path = self._paths[row]
        if reason := self._reasons[row]:
            return Rejected(path, reason)
        return Photo(
            path=path,
            label=self.labels[row] if label is None else label,
            sha256=self.sha256[row * BYTES : (row + 1) * BYTES].hex(),
            phash=self.phashes[row] or None,
            bytes=self.sizes[row],
            suffix=self._suffixes[row],
        )

    def path(self, row: int) -> str:
        """Return the path of a row."""
        return self._paths[row]

    def stamp(self, row: int) -> str:
        """Return the stamp of a row."""
        return self._stamps[row]

    def is_photo(self, row: int) -> bool:
        """Tell whether a photo was found."""
        return not self._reasons.rows[row]

    def candidate(self, row: int) -> Candidate:
        """Return the file of a row that is expected."""
        return Candidate(self._paths[row], self.labels[row], self.sizes[row], self._stamps[row])

    def are_photos(self, rows: Codes) -> NDArray[np.bool_]:
        """Tell for each row whether a photo was found."""
        return np.frombuffer(self._reasons.rows, np.int32)[rows] == 0

    def labels_of(self, rows: Codes) -> Codes:
        """Return the number of each row's class."""
        return np.frombuffer(self.labels.rows, np.int32)[rows]

    def rejections(self, rows: Codes) -> list[Rejected]:
        """Return those among some rows that are no photo."""
        return [
            Rejected(self._paths[row], self._reasons[row]) for row in rows[~self.are_photos(rows)].tolist()
        ]

    def finder(self) -> Callable[[str], int | None]:
        """Return what finds the newest row of a path, among those that are here now."""
        hashes = array("q", map(hash, self))
        values = np.frombuffer(hashes, np.int64)
        order = np.argsort(values)
        ordered = array("q", values[order].tobytes())
        rows = array("i", order.astype(np.int32).tobytes())
        del hashes, values, order

        def find(path: str) -> int | None:
            wanted, found = hash(path), None
            at = bisect_left(ordered, wanted)
            while at < len(ordered) and ordered[at] == wanted:
                if self._paths[rows[at]] == path:
                    found = max(rows[at], -1 if found is None else found)
                at += 1
            return found

        return find

    def __len__(self) -> int:
        return len(self._paths)

    def __iter__(self) -> Iterator[str]:
        return map(self._paths.__getitem__, range(len(self)))

    def __getitem__(self, path: str) -> tuple[str, Photo | Rejected]:
        if self._find is None or self._find[0] != len(self):
            self._find = len(self), self.finder()
        if (row := self._find[1](path)) is None:
            raise KeyError(path)
        return self._stamps[row], self.found(row)


class Photos(Sequence[Photo]):
    """Photos among findings, in any order; a label may differ from the one that was found."""

    def __init__(self, found: Findings, rows: Codes, labels: Codes | None = None) -> None:
        self._found, self._rows = found, rows
        self.labels = found.labels_of(rows) if labels is None else labels

    @classmethod
    def of(cls, photos: Iterable[Photo]) -> Photos:
        """Return photos as columns."""
        if isinstance(photos, Photos):
            return photos
        found = Findings()
        for photo in photos:
            found.add(photo.path, "", photo)
        return cls(found, np.arange(len(found), dtype=np.int32))

    @property
    def names(self) -> list[str]:
        """The classes that `labels` numbers, perhaps with some of which there is no photo."""
        return self._found.labels.names

    @property
    def digests(self) -> Digests:
        """SHA-256 of each."""
        return np.frombuffer(self._found.sha256, f"S{BYTES}")[self._rows]

    @property
    def phashes(self) -> NDArray[np.uint64]:
        """Perceptual hash of each; 0: none."""
        return np.frombuffer(self._found.phashes, np.uint64)[self._rows]

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Bytes of each."""
        return np.frombuffer(self._found.sizes, np.int64)[self._rows]

    def label(self, at: int) -> str:
        """Return the class of a photo."""
        return self.names[self.labels[at]]

    def path(self, at: int) -> str:
        """Return the path of a photo."""
        return self._found.path(int(self._rows[at]))

    def take(self, at: NDArray[np.integer] | NDArray[np.bool_] | slice) -> Photos:
        """Return some of the photos."""
        return Photos(self._found, self._rows[at], self.labels[at])

    def places(self, sha256: Iterable[str]) -> list[int]:
        """Return where photos with one of these digests are, in order."""
        return np.flatnonzero(np.isin(self.digests, digests_of(sha256))).tolist()

    def relabeled(self, labels: Mapping[int, str]) -> Photos:
        """Return the photos with other classes, by position."""
        codes = self.labels.copy()
        for at, label in labels.items():
            codes[at] = self._found.labels.code(label)
        return Photos(self._found, self._rows, codes)

    def without(self, places: Iterable[int]) -> Photos:
        """Return the photos but those at some positions."""
        keep = np.ones(len(self), bool)
        keep[list(places)] = False
        return self.take(keep)

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, at: int) -> Photo: ...
    @overload
    def __getitem__(self, at: slice) -> Photos: ...
    def __getitem__(self, at: int | slice) -> Photo | Photos:
        if isinstance(at, slice):
            return self.take(at)
        photo = self._found.found(int(self._rows[at]), self.label(at))
        assert isinstance(photo, Photo)
        return photo

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)


class Splits(Mapping[str, Split]):
    """Splits by SHA-256."""

    def __init__(self, digests: Digests, codes: NDArray[np.int8]) -> None:
        order = np.argsort(digests)
        self.digests, self.codes = digests[order], codes[order]

    @classmethod
    def of(cls, splits: Mapping[str, Split]) -> Splits:
        """Return splits as columns."""
        if isinstance(splits, Splits):
            return splits
        codes = np.fromiter((SPLITS.index(split) for split in splits.values()), np.int8, len(splits))
        return cls(digests_of(splits), codes)

    def find(self, digests: Digests) -> NDArray[np.int8]:
        """Return the number of each photo's split in `SPLITS`; -1 where it has none."""
        if not len(self.digests):
            return np.full(len(digests), -1, np.int8)
        at = np.searchsorted(self.digests, digests)
        at[at == len(self.digests)] = 0
        return np.where(_same(self.digests, at, digests), self.codes[at], np.int8(-1))

    def __len__(self) -> int:
        return len(self.codes)

    def __iter__(self) -> Iterator[str]:
        return map(hex_of, self.digests)

    def __getitem__(self, sha256: str) -> Split:
        found = int(self.find(digests_of([sha256]))[0])
        if found < 0:
            raise KeyError(sha256)
        return SPLITS[found]

    def __contains__(self, sha256: object) -> bool:
        return isinstance(sha256, str) and int(self.find(digests_of([sha256]))[0]) >= 0
