"""The SQLite index of buckets, object versions and uploads, with group commit.

Every write runs in one writer thread; writes that wait together share one commit, so that a thousand puts a
second do not need a thousand disk flushes. A write returns after its commit is on disk (synchronous=FULL).
"""

from __future__ import annotations

import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

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
Write = Callable[[sqlite3.Connection], Any]


class Index:
    """The index. Safe from any thread; readers see every acknowledged write and never wait for the writer."""

    def __init__(self, path: Path) -> None:
        """Open or create. Raises StartupError for a file that is not ours or of a newer local_aws."""
        self._path = path
        self._local = threading.local()
        self._closed = False
        self._queue: queue.SimpleQueue[tuple[Write, Future[Any]] | None] = queue.SimpleQueue()
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
        self._thread = threading.Thread(target=self._write_all, name="s3 index writer", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Finish the writes that wait, and stop."""
        self._closed = True
        self._queue.put(None)
        self._thread.join()
        self._connection.close()

    def write(self, change: Callable[[sqlite3.Connection], Result]) -> Result:
        """Run `change` in the writer and return its result once it is on disk. Its exception undoes only
        itself.
        """
        if self._closed:
            raise OSError("the store is closed: local_aws ends")
        future: Future[Result] = Future()
        self._queue.put((change, future))
        return future.result()

    def read(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        return self.cursor(query, values).fetchall()

    def cursor(self, query: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Rows of a query one by one, for readers that may stop early; use it up or drop it in the same
        thread.
        """
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = _open(self._path)
        return connection.execute(query, values)

    def next_sequence(self) -> int:
        """A number higher than any before; inside a write only. Orders the versions of a key."""
        self._sequence = max(self._sequence + 1, time.time_ns())
        return self._sequence

    def _write_all(self) -> None:
        going = True
        while going:
            batch = [self._queue.get()]
            while len(batch) < _MOST_PER_COMMIT and not self._queue.empty():
                batch.append(self._queue.get())
            going = None not in batch
            self._commit([item for item in batch if item is not None])

    def _commit(self, batch: list[tuple[Write, Future[Any]]]) -> None:
        if not batch:
            return
        outcomes: list[tuple[Future[Any], Any, BaseException | None]] = []
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            for change, future in batch:
                outcomes.append((future, *_attempt(connection, change)))
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            outcomes = [(future, None, error) for _, future in batch]
        for future, result, failure in outcomes:
            if failure is not None:
                future.set_exception(failure)
            else:
                future.set_result(result)


def _attempt(connection: sqlite3.Connection, change: Write) -> tuple[Any, BaseException | None]:
    connection.execute("SAVEPOINT one")
    try:
        result = change(connection)
    except Exception as error:
        connection.execute("ROLLBACK TO one")
        connection.execute("RELEASE one")
        return None, error
    connection.execute("RELEASE one")
    return result, None


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
