"""CloudWatch log events on disk: appended by running jobs, read by the Logs API and `local_aws logs`."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local_aws.settings import StartupError
from local_aws.state.resources import open_database, transaction

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 1
FLUSH_SECONDS = 0.2
"""Longest time that a line waits in memory before readers see it."""
MOST_WAITING = 10_000
"""Lines that a writer keeps, the newest ones, while they cannot be written."""

_SCHEMA = """
CREATE TABLE groups (
    region TEXT, name TEXT, created REAL, retention INTEGER, PRIMARY KEY (region, name)) WITHOUT ROWID;
CREATE TABLE streams (id INTEGER PRIMARY KEY, region TEXT, log_group TEXT, name TEXT, created REAL,
    UNIQUE (region, log_group, name));
CREATE TABLE events (id INTEGER PRIMARY KEY, stream INTEGER, timestamp INTEGER, ingested INTEGER, message TEXT);
CREATE INDEX events_of_stream ON events (stream, timestamp, id);
"""


@dataclass(frozen=True)
class Event:
    """One log event; times in epoch milliseconds. `id` rises with ingestion and is the pagination cursor."""

    id: int
    stream: str
    timestamp: int
    ingested: int
    message: str


@dataclass(frozen=True)
class Stream:
    """A log stream with the times of its events in epoch milliseconds, None while it has none."""

    name: str
    created: float
    first: int | None
    last: int | None
    ingested: int | None


@dataclass(frozen=True)
class Group:
    """A log group; `retention` in days, None without limit."""

    name: str
    created: float
    retention: int | None
    stored_bytes: int


class LogStore:
    """Log groups, streams and events. Thread-safe. Writers buffer lines; `flush` makes them readable."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()
        try:
            self._db = open_database(path, synchronous="NORMAL")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
        except sqlite3.DatabaseError as error:
            raise StartupError(
                f"{path} cannot be opened ({error}): start with another --state folder"
            ) from error
        if version > SCHEMA_VERSION:
            raise StartupError(
                f"{path} was written by a newer local_aws: upgrade, or use another --state folder"
            )
        if version == 0:
            self._db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")

    def close(self) -> None:
        """Close the store."""
        with self._lock:
            self._db.close()

    # --- groups and streams ---

    def create_group(self, region: str, name: str) -> bool:
        """Add a group; False when it is there already."""
        return self._write("INSERT OR IGNORE INTO groups VALUES (?,?,?,NULL)", region, name, time.time()) > 0

    def delete_group(self, region: str, name: str) -> bool:
        """Remove a group, its streams and events; False when there is none."""
        with self._lock:
            for stream in self.streams(region, name):
                self.delete_stream(region, name, stream.name)
            return self._write("DELETE FROM groups WHERE region = ? AND name = ?", region, name) > 0

    def set_retention(self, region: str, name: str, days: int | None) -> bool:
        """Set how many days events are kept; False when there is no such group."""
        return (
            self._write("UPDATE groups SET retention = ? WHERE region = ? AND name = ?", days, region, name)
            > 0
        )

    def create_stream(self, region: str, group: str, name: str) -> bool:
        """Add a stream; False when it is there already."""
        query = "INSERT OR IGNORE INTO streams (region, log_group, name, created) VALUES (?,?,?,?)"
        return self._write(query, region, group, name, time.time()) > 0

    def delete_stream(self, region: str, group: str, name: str) -> bool:
        """Remove a stream and its events; False when there is none."""
        with self._lock:
            stream = self._stream_id(region, group, name)
            if stream is None:
                return False
            self._write("DELETE FROM events WHERE stream = ?", stream)
            return self._write("DELETE FROM streams WHERE id = ?", stream) > 0

    def groups(self, region: str, prefix: str = "") -> list[Group]:
        """Groups whose name begins with `prefix`, by name."""
        rows = self._read(
            "SELECT name, created, retention, (SELECT coalesce(sum(length(message)), 0) FROM events WHERE stream IN "
            "(SELECT id FROM streams s WHERE s.region = g.region AND s.log_group = g.name)) "
            "FROM groups g WHERE region = ? AND substr(name, 1, length(?)) = ? ORDER BY name",
            region,
            prefix,
            prefix,
        )
        return [Group(*row) for row in rows]

    def retention(self, region: str, name: str) -> int | None:
        """Return the days that a group keeps events, None without limit."""
        rows = self._read("SELECT retention FROM groups WHERE region = ? AND name = ?", region, name)
        return rows[0][0] if rows else None

    def has_group(self, region: str, name: str) -> bool:
        """Return True if the group exists."""
        return bool(self._read("SELECT 1 FROM groups WHERE region = ? AND name = ?", region, name))

    def streams(self, region: str, group: str, prefix: str = "") -> list[Stream]:
        """Streams of a group whose name begins with `prefix`, by name."""
        rows = self._read(
            "SELECT s.name, s.created, min(e.timestamp), max(e.timestamp), max(e.ingested) FROM streams s "
            "LEFT JOIN events e ON e.stream = s.id WHERE s.region = ? AND s.log_group = ? "
            "AND substr(s.name, 1, length(?)) = ? GROUP BY s.id ORDER BY s.name",
            region,
            group,
            prefix,
            prefix,
        )
        return [Stream(*row) for row in rows]

    def has_stream(self, region: str, group: str, name: str) -> bool:
        """Return True if the stream exists."""
        return self._stream_id(region, group, name) is not None

    # --- events ---

    def append(self, region: str, group: str, stream: str, events: Sequence[tuple[int, str]]) -> None:
        """Add (timestamp in ms, message) events; group and stream are made if need be."""
        now = int(time.time() * 1000)
        with self._lock:
            stream_id = self._stream_id(region, group, stream)
            if stream_id is None:
                self.create_group(region, group)
                self.create_stream(region, group, stream)
                stream_id = self._stream_id(region, group, stream)
            with transaction(self._db):
                self._db.executemany(
                    "INSERT INTO events (stream, timestamp, ingested, message) VALUES (?,?,?,?)",
                    [(stream_id, timestamp, now, _storable(message)) for timestamp, message in events],
                )

    def events(
        self,
        region: str,
        group: str,
        stream: str | None = None,
        *,
        prefix: str = "",
        start: int | None = None,
        end: int | None = None,
        after: int = 0,
        before: int | None = None,
        newest: bool = False,
        limit: int = 10_000,
    ) -> list[Event]:
        """Events of one stream, or of all whose name begins with `prefix`, oldest first.

        start, end: epoch ms, end exclusive. after, before: ids between which to look. newest: of more than
        `limit` events give the last ones.
        """
        where = ["s.region = ?", "s.log_group = ?", "e.id > ?"]
        values: list[object] = [region, group, after]
        for condition, value in (
            ("s.name = ?", stream),
            ("e.timestamp >= ?", start),
            ("e.timestamp < ?", end),
            ("e.id < ?", before),
        ):
            if value is not None:
                where.append(condition)
                values.append(value)
        if prefix:
            where.append("substr(s.name, 1, ?) = ?")
            values += [len(prefix), prefix]
        rows = self._read(
            "SELECT e.id, s.name, e.timestamp, e.ingested, e.message FROM events e JOIN streams s ON s.id = e.stream "
            f"WHERE {' AND '.join(where)} ORDER BY e.id {'DESC' if newest else 'ASC'} LIMIT ?",
            *values,
            limit,
        )
        found = [Event(*row) for row in rows]
        return found[::-1] if newest else found

    def search(self, name: str, after: int = 0) -> list[Event]:
        """Events of a job's streams (`<name>/...`) or an endpoint's group (`.../<name>`), of every region."""
        rows = self._read(
            "SELECT e.id, s.name, e.timestamp, e.ingested, e.message FROM events e "
            "JOIN streams s ON s.id = e.stream WHERE e.id > ? AND "
            "(substr(s.name, 1, ?) = ? OR substr(s.log_group, -?) = ?) ORDER BY e.id",
            after,
            len(name) + 1,
            f"{name}/",
            len(name) + 1,
            f"/{name}",
        )
        return [Event(*row) for row in rows]

    def writer(self, region: str, group: str, stream: str) -> LogWriter:
        """Return a sink for the lines of one process; the stream exists at once."""
        self.append(region, group, stream, [])
        return LogWriter(self, region, group, stream)

    # --- inside ---

    def _stream_id(self, region: str, group: str, name: str) -> int | None:
        rows = self._read(
            "SELECT id FROM streams WHERE region = ? AND log_group = ? AND name = ?", region, group, name
        )
        return int(rows[0][0]) if rows else None

    def _read(self, query: str, *values: object) -> list[Any]:
        with self._lock:
            return self._db.execute(query, values).fetchall()

    def _write(self, query: str, *values: object) -> int:
        with self._lock:
            return self._db.execute(query, values).rowcount


def _storable(message: str) -> str:
    r"""Replace half surrogate pairs, which JSON may hold (`\ud800`) and UTF-8 cannot."""
    return message.encode("utf-8", "replace").decode()


class LogWriter:
    """Lines of one process on their way to its log stream. Call it with a line; close it after the last."""

    def __init__(self, store: LogStore, region: str, group: str, stream: str) -> None:
        self._store, self._where = store, (region, group, stream)
        self._lines: list[tuple[int, str]] = []
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    def __call__(self, line: bytes) -> None:
        """Take one line without its line end; it is readable FLUSH_SECONDS later."""
        with self._lock:
            self._lines.append((int(time.time() * 1000), line.decode("utf-8", "replace")))
            if self._timer is None:
                self._timer = threading.Timer(FLUSH_SECONDS, self.flush)
                self._timer.daemon = True
                self._timer.start()

    def flush(self) -> None:
        """Make every line taken so far readable. Where that fails, as on a full disk, they wait for the next flush."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if not self._lines:
                return
            try:
                self._store.append(*self._where, self._lines)
                self._lines = []
            except sqlite3.Error as error:
                logger.warning("lines of %s wait to be written: %s", self._where[-1], error)
                del self._lines[:-MOST_WAITING]

    close = flush
