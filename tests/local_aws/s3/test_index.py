"""The index's group commit: whose write fails, and whose does not."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from local_aws.s3.index import Index

ADD = "INSERT INTO buckets VALUES (?, 0, '', '')"


def add(name: str) -> Callable[[sqlite3.Connection], str]:
    def change(connection: sqlite3.Connection) -> str:
        connection.execute(ADD, (name,))
        return name

    return change


def names(index: Index) -> set[str]:
    return {name for (name,) in index.read("SELECT name FROM buckets")}


def test_a_failed_change_undoes_only_itself(tmp_path: Path) -> None:
    index = Index(tmp_path / "index.sqlite")
    outcomes: dict[int, object] = {}

    def write(number: int) -> None:
        def change(connection: sqlite3.Connection) -> str:
            made = add(f"{number}")(connection)
            if number % 3 == 0:
                raise ValueError(number)
            return made

        try:
            outcomes[number] = index.write(change)
        except ValueError as error:
            outcomes[number] = error

    threads = [threading.Thread(target=write, args=(number,)) for number in range(300)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept = {f"{number}" for number in range(300) if number % 3}
    assert {outcome for outcome in outcomes.values() if isinstance(outcome, str)} == kept
    assert all(isinstance(outcomes[number], ValueError) for number in range(0, 300, 3))
    assert names(index) == kept
    index.close()


def test_a_commit_that_fails_fails_every_write_in_it_and_no_later_one(tmp_path: Path) -> None:
    index = Index(tmp_path / "index.sqlite")

    def spoil(connection: sqlite3.Connection) -> None:
        connection.execute(ADD, ("lost",))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index.write(spoil)
    assert index.write(add("next")) == "next"
    assert names(index) == {"next"}
    index.close()
    with pytest.raises(OSError, match="the store is closed"):
        index.write(add("late"))
