"""Thumbnails of photos, by range from the ZIP next to each shard."""

from __future__ import annotations

from ml_pipeline.console.store import Absent, Store
from model_code.data.versions import thumbnails

Index = tuple[str, dict[str, thumbnails.Place]]
"""ETag of the version of a ZIP, and where its photos are."""
_MOST_BYTES = 256 * 2**10


def has_any(store: Store, name: str) -> bool:
    """Return False for a data set of a release that made none, so that no page asks for each in turn."""
    bucket, prefix = store.settings.bucket, f"datasets/{name}/thumbnails/"

    def read() -> bool:
        found = store.client("s3").list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)
        return bool(found.get("KeyCount"))

    return store.brief(("thumbnails", name), read)


def thumbnail(store: Store, name: str, sha256: str, shard: str = "") -> bytes:
    """Return a photo's thumbnail, a JPEG that a job made.

    Args:
        store: Of this process.
        name: The data set.
        sha256: The photo.
        shard: SHA-256 of its shard; empty for a photo of the traffic that waits for a review.

    Raises:
        Absent: There is none: the version is of an older release.
    """
    folder = store.settings.s3(f"datasets/{name}/")
    if shard and (found := _packed(store, folder + thumbnails.key(shard), sha256)):
        return _jpeg(found, sha256)
    try:  # releases before made an object of each
        data = store.bytes_at(f"{folder}thumbnails/{sha256}.jpg", _MOST_BYTES)
    except Absent:
        data = store.bytes_at(f"{folder}reviews/photos/{sha256}.jpg", _MOST_BYTES)
    return _jpeg(data, sha256)


def _packed(store: Store, uri: str, sha256: str) -> bytes:
    """Return a thumbnail out of a ZIP; empty where there is none."""
    try:
        tag, places = store.index(uri, lambda: _index(store, uri))
        place = places.get(sha256)
        if place is None or place.stop - place.start > _MOST_BYTES:
            return b""
        member, _, _ = store.part(uri, f"{place.start}-{place.stop - 1}", tag)
        return thumbnails.thumbnail_of(sha256, member, place)
    except (Absent, ValueError):  # photos were forgotten meanwhile: the next call reads the index again
        store.forget(uri)
        return b""


def _index(store: Store, uri: str) -> Index:
    tail, size, tag = store.part(uri, f"-{thumbnails.TAIL_BYTES}")
    if (more := thumbnails.missing(tail)) > 0:
        tail, size, tag = store.part(uri, f"-{len(tail) + more}", tag)
    return tag, thumbnails.places(tail, size)


def _jpeg(data: bytes, sha256: str) -> bytes:
    if not data.startswith(b"\xff\xd8\xff"):
        raise Absent(f"the thumbnail of {sha256} is no JPEG")
    return data
