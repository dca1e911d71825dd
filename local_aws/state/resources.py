"""The one store of metadata: resources as JSON documents, their tags, and one paginator over both, in SQLite.

A resource is (kind, region, name) -> document. The document is the wire form of what Describe answers
(timestamps are epoch seconds), plus private members whose names start with an underscore; shaping drops
those. Columns repeat the few members that lists sort and filter by. Every write is committed with
synchronous=FULL before the call returns, so what a client was told is on disk.

    store.create(Resource("training-job", "us-east-1", "a", arn, document={"TrainingJobStatus": "InProgress"}))
    store.update("training-job", "us-east-1", "a", lambda document: document.update(TrainingJobStatus="Completed"))
    page = store.page(Query("training-job", "us-east-1", status="Completed", limit=10))
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from local_aws.errors import validation_error
from local_aws.settings import StartupError

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 1
"""Version of the tables below, kept in SQLite's user_version."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds between two tries of `insist`."""

_SCHEMA = """
CREATE TABLE resources (
    kind TEXT NOT NULL, region TEXT NOT NULL, name TEXT NOT NULL, arn TEXT NOT NULL,
    created REAL NOT NULL, modified REAL NOT NULL, status TEXT NOT NULL, parent TEXT NOT NULL, document TEXT NOT NULL,
    PRIMARY KEY (kind, region, name)
) WITHOUT ROWID;
CREATE UNIQUE INDEX resources_arn ON resources (arn);
CREATE INDEX resources_created ON resources (kind, region, created, name);
CREATE INDEX resources_parent ON resources (kind, region, parent) WHERE parent <> '';
CREATE TABLE tags (arn TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (arn, key)) WITHOUT ROWID;
"""

Document = dict[str, Any]
Listener = Callable[["Resource", "Resource | None"], None]
"""Called with a resource as it is now and as it was before (None when it is new)."""


class AlreadyExists(Exception):
    """A resource of that kind, region and name is there; `args[0]` is its ARN."""


class Missing(Exception):
    """No such resource."""


@dataclass(frozen=True)
class Resource:
    """One resource. `status` and `parent` (the name of what it belongs to) are "" where a kind has none."""

    kind: str
    region: str
    name: str
    arn: str
    document: Document
    created: float = field(default_factory=time.time)
    modified: float = 0.0
    status: str = ""
    parent: str = ""

    def __post_init__(self) -> None:
        if not self.modified:
            object.__setattr__(self, "modified", self.created)


@dataclass(frozen=True)
class Query:
    """The selection of a List call. `equal` filters by members of the document; times are epoch seconds.

    sort_by: "name", "created", "modified" or "status", or "$.Member.Path" of the document, which leaves out
    resources without that member. It is never a client's text. A page holds at most `limit` resources.
    """

    kind: str
    region: str
    name_contains: str = ""
    status: str = ""
    parent: str = ""
    created_after: float | None = None
    created_before: float | None = None
    modified_after: float | None = None
    modified_before: float | None = None
    equal: Mapping[str, Any] = field(default_factory=dict)
    sort_by: str = "created"
    descending: bool = True
    limit: int = 10
    token: str = ""


@dataclass(frozen=True)
class Page:
    """Resources of one page, and the token of the next ("" on the last)."""

    resources: list[Resource]
    next_token: str


class Store:
    """The store. Safe to use from any thread: one writer at a time, readers never wait for it (WAL)."""

    def __init__(self, path: Path, status_member: Callable[[str], str]) -> None:
        """Open or create the store.

        `status_member` names, for a kind, the member of the document that is its status. Raises StartupError
        when the file was written by a newer local_aws or is no store.
        """
        self._path = path
        self._status_member = status_member
        self._write_lock, self._read_lock = threading.RLock(), threading.Lock()
        self._listeners: list[Listener] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._writer = open_database(path, synchronous="FULL")
            with self._writing() as connection:
                migrate(connection, path)
            self._reader = open_database(path, synchronous="FULL")
        except sqlite3.DatabaseError as error:
            raise StartupError(
                f"{path} cannot be opened ({error}): start with another --state folder"
            ) from error

    def close(self) -> None:
        """Close the store; it is not usable afterwards."""
        with self._write_lock, self._read_lock:
            self._writer.close()
            self._reader.close()

    def on_change(self, listener: Listener) -> None:
        """Call `listener` after every create, change and delete (the status is then "Deleted")."""
        self._listeners.append(listener)

    # --- resources ---

    def create(self, resource: Resource, tags: Mapping[str, str] | None = None) -> Resource:
        """Add a resource and its tags in one transaction. Raises AlreadyExists."""
        status = resource.status or self._status_of(resource.kind, resource.document)
        resource = Resource(**{**resource.__dict__, "status": status})
        with self._writing() as connection:
            row = connection.execute(
                "SELECT arn FROM resources WHERE kind = ? AND region = ? AND name = ?",
                (resource.kind, resource.region, resource.name),
            ).fetchone()
            if row:
                raise AlreadyExists(row[0])
            connection.execute("INSERT INTO resources VALUES (?,?,?,?,?,?,?,?,?)", _row(resource))
            connection.executemany(
                "INSERT INTO tags VALUES (?,?,?)", [(resource.arn, k, v) for k, v in (tags or {}).items()]
            )
        self._notify(resource, None)
        return resource

    def get(self, kind: str, region: str, name: str) -> Resource:
        """Return one resource. Raises Missing."""
        rows = self._read(_ONE, (kind, region, name))
        if not rows:
            raise Missing(name)
        return _resource(rows[0])

    def get_arn(self, arn: str) -> Resource:
        """Return the resource with that ARN. Raises Missing."""
        rows = self._read("SELECT * FROM resources WHERE arn = ?", (arn,))
        if not rows:
            raise Missing(arn)
        return _resource(rows[0])

    def update(self, kind: str, region: str, name: str, change: Callable[[Document], None]) -> Resource:
        """Let `change` edit the document, atomically; the modification time is set. Raises Missing.

        An exception out of `change` leaves the resource as it was.
        """
        with self._writing() as connection:
            before = _only(connection, kind, region, name)
            document = json.loads(json.dumps(before.document))
            change(document)
            now = time.time()
            if "LastModifiedTime" in document:
                document["LastModifiedTime"] = now
            status = self._status_of(kind, document) or before.status
            connection.execute(
                "UPDATE resources SET modified = ?, status = ?, document = ? "
                "WHERE kind = ? AND region = ? AND name = ?",
                (now, status, json.dumps(document), kind, region, name),
            )
        after = Resource(**{**before.__dict__, "document": document, "modified": now, "status": status})
        if document != before.document:
            self._notify(after, before)
        return after

    def insist(
        self,
        kind: str,
        region: str,
        name: str,
        change: Callable[[Document], None],
        stopping: threading.Event,
    ) -> bool:
        """`update`, tried again until it succeeds: on a full disk that is when there is room again.

        False when `stopping` is set first. Raises Missing.
        """
        pause = FIRST_PAUSE
        while True:
            try:
                self.update(kind, region, name, change)
                return True
            except sqlite3.Error as error:
                logger.warning("%s %s cannot be recorded yet: %s", kind, name, error)
            if stopping.wait(pause):
                return False
            pause = min(pause * 2, LONGEST_PAUSE)

    def delete(self, kind: str, region: str, name: str) -> Resource:
        """Remove a resource and its tags. Raises Missing."""
        with self._writing() as connection:
            before = _only(connection, kind, region, name)
            connection.execute(
                "DELETE FROM resources WHERE kind = ? AND region = ? AND name = ?", (kind, region, name)
            )
            connection.execute("DELETE FROM tags WHERE arn = ?", (before.arn,))
        resource = Resource(**{**before.__dict__, "status": "Deleted"})
        self._notify(resource, before)
        return resource

    def all(self, kind: str, region: str | None = None, status: str = "", parent: str = "") -> list[Resource]:
        """Return every resource of a kind, oldest first; of every region when `region` is None."""
        where, values = ["kind = ?"], [kind]
        for column, value in (("region", region), ("status", status), ("parent", parent)):
            if value:
                where.append(f"{column} = ?")
                values.append(value)
        rows = self._read(
            f"SELECT * FROM resources WHERE {' AND '.join(where)} ORDER BY created, name", values
        )
        return [_resource(row) for row in rows]

    def count(self, kind: str, parent: str, region: str) -> int:
        """Count the resources of a kind that belong to `parent`."""
        query = "SELECT count(*) FROM resources WHERE kind = ? AND region = ? AND parent = ?"
        return int(self._read(query, (kind, region, parent))[0][0])

    def page(self, query: Query) -> Page:
        """Return one page of a List call.

        Pages are cut by the last (sort value, name) seen, so a resource created meanwhile neither repeats nor
        hides another. Raises ValidationException for a token that this store did not issue.
        """
        where, values = _conditions(query)
        column = query.sort_by
        if column.startswith("$."):
            column = f"json_extract(document, '{column}')"
            where.append(f"{column} IS NOT NULL")
        direction = "DESC" if query.descending else "ASC"
        if query.token:
            last = _read_token(query.token)
            where.append(f"({column}, name) {'<' if query.descending else '>'} (?, ?)")
            values += last
        rows = self._read(
            f"SELECT *, {column} FROM resources WHERE {' AND '.join(where)} "
            f"ORDER BY {column} {direction}, name {direction} LIMIT ?",
            [*values, query.limit + 1],
        )
        page = rows[: query.limit]
        token = _make_token([page[-1][-1], page[-1][2]]) if len(rows) > query.limit else ""
        return Page(resources=[_resource(row[:-1]) for row in page], next_token=token)

    # --- tags ---

    def tags(self, arn: str) -> dict[str, str]:
        """Tags of an ARN, in order of key."""
        return dict(self._read("SELECT key, value FROM tags WHERE arn = ? ORDER BY key", (arn,)))

    def tag(self, arn: str, tags: Mapping[str, str]) -> None:
        """Add tags, replacing those of the same key."""
        with self._writing() as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO tags VALUES (?,?,?)",
                [(arn, key, value) for key, value in tags.items()],
            )

    def untag(self, arn: str, keys: list[str]) -> None:
        """Remove tags by key; unknown keys are ignored."""
        with self._writing() as connection:
            connection.executemany("DELETE FROM tags WHERE arn = ? AND key = ?", [(arn, key) for key in keys])

    # --- inside ---

    def _read(self, query: str, values: Sequence[Any]) -> list[Any]:
        with self._read_lock:
            return self._reader.execute(query, values).fetchall()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._write_lock, transaction(self._writer):
            yield self._writer

    def _status_of(self, kind: str, document: Document) -> str:
        return str(document.get(self._status_member(kind), ""))

    def _notify(self, after: Resource, before: Resource | None) -> None:
        for listener in self._listeners:
            listener(after, before)


_ONE = "SELECT * FROM resources WHERE kind = ? AND region = ? AND name = ?"


def _only(connection: sqlite3.Connection, kind: str, region: str, name: str) -> Resource:
    row = connection.execute(_ONE, (kind, region, name)).fetchone()
    if row is None:
        raise Missing(name)
    return _resource(row)


def open_database(path: Path, synchronous: str) -> sqlite3.Connection:
    """Return a connection in WAL mode that any thread may use; transactions are explicit."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(f"PRAGMA synchronous={synchronous}")
    return connection


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Around writes of which all are to be on disk, or none."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # SQLite itself has rolled back where the disk is full.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the tables to SCHEMA_VERSION inside the caller's transaction.

    Raises:
        StartupError: the file was written by a newer local_aws.
    """
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise StartupError(
            f"{path} was written by a newer local_aws (schema {version}, this one knows {SCHEMA_VERSION}): "
            "upgrade local_aws, or start with another --state folder"
        )
    if version == 0:
        for statement in filter(str.strip, _SCHEMA.split(";")):
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _row(resource: Resource) -> tuple[Any, ...]:
    r = resource
    return (
        r.kind,
        r.region,
        r.name,
        r.arn,
        r.created,
        r.modified,
        r.status,
        r.parent,
        json.dumps(r.document),
    )


def _resource(row: tuple[Any, ...]) -> Resource:
    kind, region, name, arn, created, modified, status, parent, document = row
    return Resource(kind, region, name, arn, json.loads(document), created, modified, status, parent)


def _conditions(query: Query) -> tuple[list[str], list[Any]]:
    where: list[str] = ["kind = ?", "region = ?"]
    values: list[Any] = [query.kind, query.region]
    for condition, value in (
        ("status = ?", query.status or None),
        ("parent = ?", query.parent or None),
        ("instr(name, ?) > 0", query.name_contains or None),
        ("created > ?", query.created_after),
        ("created < ?", query.created_before),
        ("modified > ?", query.modified_after),
        ("modified < ?", query.modified_before),
    ):
        if value is not None:
            where.append(condition)
            values.append(value)
    for member, value in query.equal.items():
        where.append("json_extract(document, ?) = ?")
        values += [f"$.{member}", value]
    return where, values


def _make_token(last: list[Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(last).encode()).decode()


def _read_token(token: str) -> list[Any]:
    try:
        last = json.loads(base64.urlsafe_b64decode(token.encode()))
    except ValueError:
        last = None
    if not isinstance(last, list) or len(last) != 2 or not isinstance(last[1], str):
        raise validation_error("The pagination token is invalid: use NextToken of the previous page.")
    return last
