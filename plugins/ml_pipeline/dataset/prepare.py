"""A data set version that a job makes: what the job is told before it, and what makes its version the newest after it.

The job writes shards and thumbnails to their place and the files of the version to `jobs/<job>/version/`. They are
copied from there, and the pointer is written, by the task that started the job: a job cannot change a version.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_pipeline.aws import s3 as objects
from ml_pipeline.aws.clients import Client
from ml_pipeline.dataset import corrections, reviewed, sources
from ml_pipeline.requests.names import fingerprint
from ml_pipeline.settings import Settings

if TYPE_CHECKING:
    from model_code.data.versions.make import Made, Options
    from model_code.data.versions.order import Order

# Files of a version that the next one is made from; those of earlier releases may lack the last.
_OF_PARENT = ("manifest.json", "photos.jsonl", "retired.json", "looks.jsonl.gz")

# On the disk, per byte and per file of the source: photos, and shards, thumbnails and findings made of them. A HEIC
# photo grows when it is stored as JPEG.
_PER_BYTE, _PER_FILE = 3, 20_000


class Incomplete(RuntimeError):
    """A job left less than its version needs."""


@dataclass(frozen=True)
class Begun:
    """An order to a job, in short; kept at `jobs/<job>/begun.json`.

    Attributes:
        name: The data set.
        files, bytes: Of the source.
        parent: The newest version then; None: there was none.
        tag: ETag of the pointer to it.
        reviewed: Photos that come from reviews.
        digest: Of the listing, the settings and the decisions: the same give the same version.
    """

    name: str
    files: int
    bytes: int
    parent: str | None
    tag: str | None
    reviewed: int
    digest: str


@dataclass(frozen=True)
class Preparation:
    """A version to be made of an s3:// prefix by a job.

    Attributes:
        s3: boto3 client.
        settings: Settings of the pipeline.
        name: The data set.
        data: s3:// prefix with a folder of photos per class.
        options: Settings of the version.
        run: The run; with `force`, only jobs of the same one go on where another was killed.
    """

    s3: Client
    settings: Settings
    name: str
    data: str
    options: Options
    run: str = ""

    @property
    def journal_uri(self) -> str:
        """The s3:// prefix where jobs note what they have done."""
        key = fingerprint(self.name, self.data, self.run if self.options.force else "")
        return self.settings.s3(f"jobs/prepare/{key}/")

    @property
    def photos_uri(self) -> str:
        """The s3:// prefix of the photos."""
        return self.data.rstrip("/") + "/"

    def begin(self, job: str) -> Begun:
        """Write what `job` will read."""
        with tempfile.TemporaryDirectory(prefix="ml-pipeline-listing-") as folder:
            order, begun = self._order(Path(folder))
            for name in ("order.json", "listing.jsonl.gz"):
                uri = self.settings.s3(f"jobs/{job}/order/{name}")
                self.s3.upload_file(f"{folder}/{name}", *objects.split_uri(uri))
        if order.parent:
            uri = self._place.uri(f"versions/{order.parent}/")
            files = sorted(set(objects.keys(self.s3, uri)) & set(_OF_PARENT))
            objects.write_manifest(self.s3, part_uri(self.settings, job, "parent.manifest"), uri, files)
        if order.reviewed:
            uri = reviewed.photos_uri(self.settings.bucket, self.name)
            names = part_uri(self.settings, job, "reviewed.manifest")
            objects.write_manifest(self.s3, names, uri, order.reviewed)
        # SageMaker refuses an input without any object.
        objects.write_json(self.s3, f"{self.journal_uri}source.json", {"data": self.data, "name": self.name})
        objects.write_json(self.s3, part_uri(self.settings, job, "begun.json"), asdict(begun))
        return begun

    def is_current(self, job: str) -> bool:
        """Tell whether the version that `job` made is, or can become, the newest of the photos as they are now."""
        begun, made, pointer = read_begun(self.s3, self.settings, job), self._made(job), self._pointer()
        if made is None or (pointer != (begun.parent, begun.tag) and pointer[0] != made["version"]):
            return False
        with tempfile.TemporaryDirectory(prefix="ml-pipeline-listing-") as folder:
            return self._order(Path(folder))[1].digest == begun.digest

    def publish(self, job: str) -> Made:
        """Make the version of a job that has completed the newest one; a second time it changes nothing.

        Raises:
            Incomplete: A file of it is not in S3.
            ConcurrentUpload: Another upload of this data set finished first.
        """
        from model_code.data.versions.store import POINTER, ConcurrentUpload

        begun, made = read_begun(self.s3, self.settings, job), self._made(job)
        if made is None:
            raise Incomplete(f"job {job} completed without a version; clear this task to make it")
        self._check_shards(job, made)
        source = part_uri(self.settings, job, "version/")
        bucket, prefix = objects.split_uri(source)
        for file in objects.keys(self.s3, source):
            if file != "made.json":
                target = self._place.key(f"versions/{made['version']}/{file}")
                self.s3.copy({"Bucket": bucket, "Key": prefix + file}, bucket, target)
        if not made["changed"] or self._pointer()[0] == made["version"]:
            return made
        if not self._place.swap(POINTER, json.dumps({"version": made["version"]}).encode(), begun.tag):
            raise ConcurrentUpload(
                f"another upload of data set {self.name!r} finished meanwhile; clear this task: it goes on with what "
                "is stored"
            )
        return made

    def unread(self) -> int:
        """Count the photos that no upload has read as they are now."""
        from model_code.data.scan import unchanged
        from model_code.data.versions import looks
        from model_code.data.versions.columns import Findings

        version = None if self.options.force else self._pointer()[0]
        file = self._place.open(f"versions/{version}/{looks.NAME}") if version else None
        found = looks.read(file) if file else Findings()
        if file:
            file.close()
        find = found.finder()
        return sum(
            (row := find(item.path)) is None or not unchanged(item, found, row)
            for item in sources.source_of(self.s3, self.data).candidates()
        )

    @cached_property
    def _place(self) -> Any:
        from ml_pipeline.dataset.place import Place

        return Place(self.s3, self.settings.bucket, self.name)

    def _pointer(self) -> tuple[str | None, str | None]:
        """The newest version and the tag of the pointer to it."""
        from model_code.data.versions.store import POINTER

        found = self._place.read(POINTER)
        return (json.loads(found[0])["version"], found[1]) if found else (None, None)

    def _order(self, folder: Path) -> tuple[Order, Begun]:
        """List the source into a folder, with the order of a job next to it."""
        from model_code.data.versions import order as orders

        bucket, name = self.settings.bucket, self.name
        labels = reviewed.reviewed(self.s3, bucket, name)
        source = reviewed.with_reviewed(self.s3, bucket, name, sources.S3Folder(self.s3, self.data))
        files, size = orders.write_listing(folder / orders.LISTING, source.candidates())
        parent, tag = self._pointer()
        order = orders.Order(
            name=name, bucket=bucket, parent=parent, uri=source.describe(), options=self.options,
            stray=source.stray(), folders=source.folders(),  # type: ignore[attr-defined]
            decisions=corrections.load(self.s3, bucket, name).decisions(),
            forgotten=sorted(reviewed.denied(self.s3, bucket, name)), reviewed=sorted(labels),
            shards=self._with_thumbnails(),
        )  # fmt: skip
        (folder / orders.NAME).write_text(order.to_json())
        digest = hashlib.sha256((folder / orders.LISTING).read_bytes())
        digest.update(replace(order, parent=None, shards={}).to_json().encode())
        return order, Begun(name, files, size, parent, tag, len(labels), digest.hexdigest())

    def _shards(self) -> Iterable[tuple[str, int]]:
        for key, size in objects.sizes(self.s3, self._place.uri("shards/")):
            yield key.removesuffix(".tar"), size

    def _with_thumbnails(self) -> dict[str, int]:
        """The shards whose thumbnails are stored too: of a job that was killed they may be missing."""
        names = objects.keys(self.s3, self._place.uri("thumbnails/"))
        stored = {name.removesuffix(".zip") for name in names if name.endswith(".zip")}
        return {shard: size for shard, size in self._shards() if shard in stored}

    def _made(self, job: str) -> Made | None:
        uri = part_uri(self.settings, job, "version/made.json")
        if not objects.exists(self.s3, uri):
            return None
        made: Made = objects.read_json(self.s3, uri)
        return made

    def _check_shards(self, job: str, made: Made) -> None:
        from model_code.data.manifest import Manifest

        if not made["changed"]:
            return
        listed = Manifest.from_json(
            objects.read(self.s3, part_uri(self.settings, job, "version/manifest.json"))
        )
        there = dict(self._shards())
        lost = [shard.sha256 for shard in listed.shards if there.get(shard.sha256) != shard.bytes]
        if lost:
            raise Incomplete(
                f"job {job} completed without storing {len(lost)} shards, first {lost[0]}; clear this task to write "
                "them"
            )


def on_disk(files: int, size: int) -> int:
    """Return the bytes that a job needs on its disk for a source of `files` photos, `size` bytes together."""
    return _PER_BYTE * size + _PER_FILE * files


def part_uri(settings: Settings, job: str, part: str) -> str:
    """Return the address of a part of the work of `job`."""
    return settings.s3(f"jobs/{job}/{part}")


def read_begun(s3: Client, settings: Settings, job: str) -> Begun:
    """Read what a job was told."""
    return Begun(**objects.read_json(s3, part_uri(settings, job, "begun.json")))
