"""Listing keys: walks the index in order and jumps over common prefixes, so a page costs what it shows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from local_aws.s3.index import Index
from local_aws.s3.objects import Upload, Version


@dataclass(frozen=True)
class Page:
    """One page of versions and common prefixes in order; `next_after` continues it, None on the last page."""

    versions: list[Version] = field(default_factory=list)
    prefixes: list[str] = field(default_factory=list)
    next_after: tuple[str, int] | None = None


@dataclass(frozen=True)
class Query:
    """The selection to list. `after`: (key, sequence) of the last entry seen: only what follows it is listed.

    With `all_versions`, older versions and delete markers too, newest first within a key.
    """

    bucket: str
    prefix: str = ""
    delimiter: str = ""
    after: tuple[str, int] | None = None
    limit: int = 1000
    all_versions: bool = False


def successor(prefix: str) -> str | None:
    """Return the smallest string above all that begin with `prefix`, by code points; None if there is none."""
    for position in range(len(prefix) - 1, -1, -1):
        code = ord(prefix[position])
        if code < 0x10FFFF:
            following = 0xE000 if code == 0xD7FF else code + 1
            return prefix[:position] + chr(following)
    return None


def list_page(index: Index, query: Query) -> Page:
    """Return one page of a bucket. UTF-8 byte order, as S3 lists."""
    if query.limit == 0:
        return Page()
    versions: list[Version] = []
    prefixes: list[str] = []
    last = query.after
    for entry in _entries(index, query):
        if len(versions) + len(prefixes) == query.limit:
            return Page(versions, prefixes, last)
        if isinstance(entry, str):
            prefixes.append(entry)
            last = (entry, 0)
        else:
            versions.append(entry)
            last = (entry.key, entry.sequence)
    return Page(versions, prefixes)


def _entries(index: Index, query: Query) -> Iterator[Version | str]:
    """Yield versions and common prefixes. Skipping a prefix is one query, however many keys it covers."""
    start: tuple[str, int] | None = query.after
    if start is not None and query.delimiter and _common_prefix(query, start[0]) == start[0]:
        start = _beyond(start[0])
        if start is None:
            return
    while True:
        jump: tuple[str, int] | None = None
        for row in index.cursor(*_select(query, start)):
            prefix = _common_prefix(query, row[1])
            if prefix is None:
                version = Version.from_row(row)
                if query.all_versions or not version.attributes.marker:
                    yield version
            elif query.all_versions or _has_object(index, query.bucket, prefix):
                yield prefix
                jump = _beyond(prefix)
                break
            else:
                jump = _beyond(prefix)
                break
        if jump is None:
            return
        start = jump


def _select(query: Query, after: tuple[str, int] | None) -> tuple[str, list[str | int]]:
    where: list[str] = ["bucket = ?"]
    values: list[str | int] = [query.bucket]
    if not query.all_versions:
        where.append("latest = 1")
    if query.prefix:
        where.append("key >= ?")
        values.append(query.prefix)
        end = successor(query.prefix)
        if end is not None:
            where.append("key < ?")
            values.append(end)
    if after is not None:
        key, sequence = after
        if sequence < 0:
            where.append("key >= ?")
            values.append(key)
        elif query.all_versions and sequence:
            where.append("key >= ? AND (key > ? OR sequence < ?)")
            values += [key, key, sequence]
        else:
            where.append("key > ?")
            values.append(key)
    order = "key, sequence DESC" if query.all_versions else "key"
    source = "versions" if query.all_versions else "versions INDEXED BY versions_latest"
    return f"SELECT * FROM {source} WHERE {' AND '.join(where)} ORDER BY {order}", values


def _beyond(prefix: str) -> tuple[str, int] | None:
    """Return a start position (inclusive, hence -1) behind everything under a prefix."""
    end = successor(prefix)
    return None if end is None else (end, -1)


def _common_prefix(query: Query, key: str) -> str | None:
    if not query.delimiter or not key.startswith(query.prefix):
        return None
    at = key.find(query.delimiter, len(query.prefix))
    return None if at < 0 else key[: at + len(query.delimiter)]


def _has_object(index: Index, bucket: str, prefix: str) -> bool:
    """Return True if a prefix holds anything but delete markers."""
    query = Query(bucket, prefix)
    return any(not Version.from_row(row).attributes.marker for row in index.cursor(*_select(query, None)))


def list_uploads(
    index: Index, bucket: str, prefix: str, after: tuple[str, str], limit: int
) -> tuple[list[Upload], bool]:
    """Uploads under way after (key, upload id), in that order, and whether there are more."""
    rows = index.read(
        "SELECT * FROM uploads WHERE bucket = ? AND substr(key, 1, ?) = ? AND (key, id) > (?, ?) "
        "ORDER BY key, id LIMIT ?",
        (bucket, len(prefix), prefix, *after, limit + 1),
    )
    return [Upload.from_row(row) for row in rows[:limit]], len(rows) > limit
