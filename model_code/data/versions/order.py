"""The order to a job that makes a version of photos in S3: settings, decisions, and the listing of the photos.

The job reads the photos from its disk. Their stamps come from the listing, so the next look at S3 knows them.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from model_code.data.limits import SNIFFED_BYTES, sniff
from model_code.data.photos import reads_heif
from model_code.data.records import Fractions
from model_code.data.source import Candidate, DatasetError
from model_code.data.versions.corrections import Decision
from model_code.data.versions.make import Options
from model_code.data.versions.reviewed import FOLDER
from model_code.process.cores import cores

SCHEMA_VERSION = 1
NAME, LISTING = "order.json", "listing.jsonl.gz"


@dataclass(frozen=True)
class Order:
    """The settings of one job.

    Attributes:
        name, bucket: The data set and its bucket.
        parent: Its newest version; None: it has none.
        uri: Prefix of the photos, as messages name it.
        options: With `force`, findings of the parent do not count; those of an earlier try of the job do.
        stray, folders: See `model_code.data.source`.
        decisions, forgotten: See `model_code.data.versions.corrections`.
        reviewed: SHA-256 of the photos of the listing that come from reviews.
        shards: Bytes of the shards that the data set has with their thumbnails, by SHA-256.
        heif: The worker, whose later looks use the job's findings, reads HEIC photos.
    """

    name: str
    bucket: str
    parent: str | None
    uri: str
    options: Options
    stray: list[str]
    folders: list[str]
    decisions: dict[str, Decision]
    forgotten: list[str]
    reviewed: list[str]
    shards: dict[str, int]
    heif: bool = field(default_factory=reads_heif)

    def to_json(self) -> str:
        """Return the order as JSON."""
        return json.dumps({"schema_version": SCHEMA_VERSION, **asdict(self)})

    @classmethod
    def from_json(cls, text: bytes) -> Order:
        """Read an order.

        Raises:
            ValueError: It is from a newer release.
        """
        fields: dict[str, Any] = json.loads(text)
        if fields.pop("schema_version") > SCHEMA_VERSION:
            raise ValueError("the order of this job was written by a newer release; update ml-pipeline")
        options = fields.pop("options")
        fractions = Fractions(**options.pop("fractions"))
        decisions = {sha256: Decision(*decision) for sha256, decision in fields.pop("decisions").items()}
        return cls(**fields, options=Options(fractions=fractions, **options), decisions=decisions)


def write_listing(path: Path, candidates: Iterable[Candidate]) -> tuple[int, int]:
    """Write candidates as gzipped lines of JSON; returns their number and bytes."""
    files = total = 0
    with path.open("wb") as file, gzip.GzipFile("", "wb", 1, file, mtime=0) as packed:
        for item in candidates:
            packed.write(f"{json.dumps([item.path, item.label, item.bytes, item.stamp])}\n".encode())
            files, total = files + 1, total + item.bytes
    return files, total


@dataclass(frozen=True)
class Listed:
    """The photos of an order, on this disk: a `model_code.data.source.Source`.

    Attributes:
        order: The order.
        listing: File of `write_listing`.
        photos: Folder with the files of the source.
        reviewed: Folder with the reviewed photos, by SHA-256.
    """

    order: Order
    listing: Path
    photos: Path
    reviewed: Path

    @property
    def requests(self) -> int:
        """Most files to read at once: decoding them is what takes the time."""
        return cores()

    def describe(self) -> str:
        """Return the address, for messages."""
        return self.order.uri

    def candidates(self) -> Iterator[Candidate]:
        """Yield the files of the listing."""
        with gzip.open(self.listing) as lines:
            for line in lines:
                yield Candidate(*json.loads(line))

    def folders(self) -> list[str]:
        """Return the classes of the listing."""
        return self.order.folders

    def stray(self) -> list[str]:
        """Return files outside the class folders."""
        return self.order.stray

    def read(self, path: str) -> bytes:
        """Return the bytes of one file.

        Raises:
            FileNotFoundError: It vanished from S3 after it was listed.
            DatasetError: It is a HEIC photo, and only one of worker and job reads those.
        """
        name = path.rpartition("/")[2]
        if path.startswith(FOLDER) and name in self.order.reviewed:
            return (self.reviewed / name).read_bytes()
        try:
            with open(f"{self.photos}/{path}", "rb") as file:  # a path may begin with a slash
                data = file.read()
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{self.order.uri.rstrip('/')}/{path} vanished after it was listed"
            ) from error
        if self.order.heif != reads_heif() and sniff(data[:SNIFFED_BYTES]) == "HEIF":
            raise DatasetError(
                f"{path} is a HEIC photo, and the worker and the image of this job do not agree on those: install "
                "pi-heif in both or in neither, or choose prepare_instance_type=worker"
            )
        return data
