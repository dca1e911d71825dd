"""The SQLite index of buckets, object versions and uploads, with group commit.

One thread writes at a time: the first of those that wait commits the writes of all of them, so that a thousand
puts a second do not need a thousand disk flushes. A write returns after its commit is on disk (synchronous=FULL).
"""

from __future__ import annotations

import collections
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from local_aws.settings import StartupError

SCHEMA_VERSION = 1
_MOST_PER_COMMIT = 256

_SCHEMA = """
CREATE TABLE buckets (
    name TEXT PRIMARY KEY, created REAL NOT NULL, region TEXT NOT NULL, versioning TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE configurations (
    bucket TEXT NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (bucket, kind)
) WITHOUT ROWID;
CREATE TABLE versions (
    bucket TEXT NOT NULL, key TEXT NOT NULL, sequence INTEGER NOT NULL, version TEXT NOT NULL,
    latest INTEGER NOT NULL, blob TEXT NOT NULL, size INTEGER NOT NULL, etag TEXT NOT NULL,
    modified REAL NOT NULL, attributes TEXT NOT NULL,
    PRIMARY KEY (bucket, key, sequence)
) WITHOUT ROWID;
CREATE INDEX versions_latest ON versions (bucket, key) WHERE latest = 1;
CREATE INDEX versions_blob ON versions (blob);
CREATE TABLE uploads (
    id TEXT PRIMARY KEY, bucket TEXT NOT NULL, key TEXT NOT NULL, created REAL NOT NULL,
    attributes TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX uploads_key ON uploads (bucket, key, id);
CREATE TABLE parts (
    upload TEXT NOT NULL, number INTEGER NOT NULL, blob TEXT NOT NULL, size INTEGER NOT NULL,
    etag TEXT NOT NULL, modified REAL NOT NULL, checksums TEXT NOT NULL, PRIMARY KEY (upload, number)
) WITHOUT ROWID;
CREATE INDEX parts_blob ON parts (blob);
"""

Result = TypeVar("Result")
Change = Callable[[sqlite3.Connection], Any]


class _Write:
    """One change that waits for its commit, and what came of it."""

    __slots__ = ("change", "done", "failure", "result")

    def __init__(self, change: Change) -> None:
        self.change = change
        self.done = False
        self.result: Any = None
        self.failure: BaseException | None = None


class Index:
    """The index. Safe from any thread; readers see every acknowledged write and never wait for a writer."""

    def __init__(self, path: Path) -> None:
        """Open or create. Raises StartupError for a file that is not ours or of a newer local_aws."""
        self._path = path
        self._local = threading.local()
        self._closed = False
        self._waiting: collections.deque[_Write] = collections.deque()
        self._writing = threading.Lock()
        try:
            self._connection = _open(path)
            _create_or_check(self._connection, path)
        except sqlite3.DatabaseError as error:
            raise StartupError(
                f"{path} cannot be opened ({error}): start with another --state folder"
            ) from error
        self._sequence = self._connection.execute(
            "SELECT coalesce(max(sequence), 0) FROM versions"
        ).fetchone()[0]

    def close(self) -> None:
        """Finish the writes that wait, and stop."""
        with self._writing:
            self._commit()
            self._closed = True
            self._connection.close()

    def write(self, change: Callable[[sqlite3.Connection], Result]) -> Result:
        """Run `change`, alone, and return its result once it is on disk. Its exception undoes only itself."""
        write = _Write(change)
        self._waiting.append(write)
        with self._writing:
            while not write.done:
                self._commit()
        if write.failure is not None:
            raise write.failure
        return cast(Result, write.result)

    def read(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return all rows of a query."""
        return self.cursor(query, values).fetchall()

    def cursor(self, query: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Yield rows one by one, for readers that may stop early; exhaust or drop it on the same thread."""
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = _open(self._path)
        return connection.execute(query, values)

    def next_sequence(self) -> int:
        """Return a number higher than any before; inside a write only. Orders the versions of a key."""
        self._sequence = max(self._sequence + 1, time.time_ns())
        return self._sequence

    def _commit(self) -> None:
        """Commit what waits, with the lock held."""
        batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), _MOST_PER_COMMIT))]
        try:
            if self._closed:
                raise OSError("the store is closed: local_aws ends")
            self._commit_all(batch)
        except BaseException as error:
            for write in batch:
                write.failure = error
        for write in batch:
            write.done = True

    def _commit_all(self, batch: list[_Write]) -> None:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            for write in batch:
                _attempt(connection, write)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _attempt(connection: sqlite3.Connection, write: _Write) -> None:
    connection.execute("SAVEPOINT one")
    try:
        write.result = write.change(connection)
    except Exception as error:
        write.failure = error
        connection.execute("ROLLBACK TO one")
    connection.execute("RELEASE one")


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA cache_size=-2000")  # KiB, for each of the server's threads
    return connection


def _create_or_check(connection: sqlite3.Connection, path: Path) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise StartupError(
            f"{path} was written by a newer local_aws (S3 schema {version}, this one knows "
            f"{SCHEMA_VERSION}): upgrade local_aws, or start with another --state folder"
        )
    if version == 0:
        connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
