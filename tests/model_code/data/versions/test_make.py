"""Versions in a local folder, by hand: `python -m model_code.data`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from model_code.data.__main__ import main
from model_code.data.manifest import read_manifest
from model_code.data.shards import read_shard
from model_code.data.versions import looks
from model_code.data.versions.store import FolderStore
from tests.model_code.photo_files import folder_of_photos, photo


def made(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    found: dict[str, object] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def test_a_folder_becomes_a_version_and_grows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = folder_of_photos(tmp_path / "pets", {"cat": 12, "dog": 12})
    command = [str(folder), "--output", str(tmp_path / "out"), "--name", "pets"]
    assert main(command) == 0
    first = made(capsys)
    assert (first["read"], first["changed"], first["new_shards"]) == (24, True, 3)
    manifest = read_manifest(Path(str(first["manifest_uri"])))
    assert manifest.version == first["version"]
    keys = {sample.key for row in manifest.shards for sample in read_shard(tmp_path / "out" / row.key)}
    assert len(keys) == 24
    assert main(command) == 0
    assert made(capsys)["read"] == 0
    (folder / "cat" / "new.jpg").write_bytes(photo(900))
    assert main(command) == 0
    third = made(capsys)
    assert (third["read"], third["parent"]) == (1, first["version"])


def test_findings_are_extended_where_files_come_and_written_anew_where_any_goes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of_photos(tmp_path / "pets", {"cat": 12, "dog": 12})
    command = [str(folder), "--output", str(tmp_path / "out"), "--name", "pets"]

    def look() -> tuple[object, bytes, list[str]]:
        assert main(command) == 0
        result = made(capsys)
        file = Path(str(result["manifest_uri"])).with_name(looks.NAME)
        with file.open("rb") as opened:
            return result["read"], file.read_bytes(), sorted(looks.read(opened))

    _, first, paths = look()
    (folder / "cat" / "new.jpg").write_bytes(photo(900))
    read, grown, found = look()
    assert read == 1
    assert grown.startswith(first)
    assert found == sorted([*paths, "cat/new.jpg"])
    (folder / "cat" / "notes.txt").write_text("of the same version")
    read, same, found = look()
    assert read == 1
    assert same.startswith(grown)
    assert found == sorted([*paths, "cat/new.jpg", "cat/notes.txt"])
    (folder / "cat" / "new.jpg").rename(folder / "cat" / "moved.jpg")
    read, moved, found = look()
    assert read == 1
    assert not moved.startswith(first)
    assert found == sorted([*paths, "cat/moved.jpg", "cat/notes.txt"])
    assert look() == (0, moved, found)


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "nowhere")]) == 1
    assert main([str(folder_of_photos(tmp_path, {"a": 3, "b": 3})), "--name", "Bad Name"]) == 1
    assert main([str(tmp_path), "--valid", "0.9", "--test", "0.5"]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert [error.split(":")[0] for error in errors] == ["error"] * 3


def test_only_one_of_two_swaps_wins(tmp_path: Path) -> None:
    store = FolderStore(tmp_path, "pets")
    assert store.swap("latest.json", b"1", None)
    assert not store.swap("latest.json", b"2", None)
    found = store.read("latest.json")
    assert found is not None
    assert store.swap("latest.json", b"3", found[1])
    assert not store.swap("latest.json", b"4", found[1])
    assert store.read("latest.json") is not None
