"""Original paths of the photos of a version that was made by hand."""

from __future__ import annotations

from pathlib import Path

from model_code.data.__main__ import main
from model_code.data.manifest import read_photos_jsonl
from model_code.data.versions.looks import read_paths
from tests.model_code.photo_files import folder_of_photos


def test_every_photo_of_a_version_has_its_path(tmp_path: Path) -> None:
    photos = folder_of_photos(tmp_path / "pets", {"cat": 12, "dog": 12})
    (photos / "cat" / "z-copy.jpg").write_bytes(next((photos / "cat").glob("*.jpg")).read_bytes())
    assert main([str(photos), "--output", str(tmp_path / "out"), "--name", "pets"]) == 0
    (manifest,) = (tmp_path / "out").rglob("manifest.json")
    paths = read_paths(manifest)
    assert paths == read_paths(manifest.parent)
    rows = read_photos_jsonl((manifest.parent / "photos.jsonl").read_bytes())
    assert paths.keys() == {row.key for row in rows}
    assert all((photos / path).is_file() for path in paths.values())
    assert "cat/z-copy.jpg" not in paths.values()


def test_a_version_that_does_not_tell_has_no_paths(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").touch()
    assert read_paths(tmp_path / "manifest.json") == {}
    assert read_paths(None) == {}
