"""Tables: photos and labels, and mistakes named by their line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from model_code.data.scan import preflight, scan
from model_code.data.source import DatasetError
from model_code.data.tables import LocalTable, Row, is_table, read_table
from tests.model_code.photo_files import photo

AUGMENTED = {
    "source-ref": "s3://b/1.jpg",
    "breed": 1,
    "breed-metadata": {"class-name": "beagle", "confidence": 0.9, "type": "groundtruth/image-classification"},
}


@pytest.mark.parametrize(
    ("name", "text", "rows"),
    [
        (
            "a.csv",
            'path,label\n1.jpg,cat\n"b, 2.jpg",dog\n',
            [Row(2, "1.jpg", "cat"), Row(3, "b, 2.jpg", "dog")],
        ),
        ("a.csv", "\ufeffLabel;no,Source,Class\n,x.png,owl\n", [Row(2, "x.png", "owl")]),
        ("a.tsv", "class\tfile\ncat\t1.jpg\n", [Row(2, "1.jpg", "cat")]),
        ("a.jsonl", '{"path": "1.jpg", "label": "cat"}\n\n', [Row(1, "1.jpg", "cat")]),
        ("a.manifest", json.dumps(AUGMENTED), [Row(1, "s3://b/1.jpg", "beagle")]),
    ],
)
def test_rows_of_every_format(name: str, text: str, rows: list[Row]) -> None:
    assert is_table(name)
    assert read_table(name, text.encode()) == rows


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "path,breed\n1.jpg,cat\n", r"a\.csv, line 1: no columns .*among path, breed"),
        ("a.csv", "", r"line 1: no columns"),
        ("a.csv", "path,label\n1.jpg,cat\n2.jpg,\n,dog\n", r"line 3: no label; line 4: no source"),
        ("a.csv", "path,label\n1,5.jpg,cat\n", "line 2: more fields"),
        ("a.jsonl", '{"path": "1.jpg", "label": "cat"}\n{"path": ', r"line 2: not JSON"),
        ("a.jsonl", '{"path": "1.jpg", "label": 3}', r"line 1: label 3 is not the name of a class"),
        ("a.jsonl", "[1]", "line 1: not a JSON object"),
        ("a.csv", "path,label\n", "holds no row"),
    ],
)
def test_mistakes_are_named_by_line(name: str, text: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        read_table(name, text.encode())


def test_bytes_that_are_not_utf8_are_named_by_line() -> None:
    with pytest.raises(DatasetError, match="line 2: not UTF-8"):
        read_table("a.csv", b"path,label\ncaf\xe9.jpg,cat\n")


def table(folder: Path) -> Path:
    lines = ["path,label"]
    for number in range(8):
        (folder / "deep").mkdir(exist_ok=True)
        (folder / "deep" / f"{number}.jpg").write_bytes(photo(number))
        lines.append(f"deep/{number}.jpg,{'cat' if number % 2 else 'dog'}")
    (folder / "labels.csv").write_text("\n".join([*lines, "deep/gone.jpg,cat"]))
    return folder / "labels.csv"


def test_a_table_is_a_source(tmp_path: Path) -> None:
    path = table(tmp_path)
    assert preflight(path).counts == {"dog": 4, "cat": 4}
    photos, rejected = scan(LocalTable(path))
    assert {item.path: item.label for item in photos}["deep/3.jpg"] == "cat"
    assert [(item.path, item.reason) for item in rejected] == [("deep/gone.jpg", "cannot be read")]


def test_a_local_table_of_photos_in_s3_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("path,label\ns3://b/1.jpg,cat\n")
    with pytest.raises(DatasetError, match=r"line 2: s3://b/1.jpg is not on this disk"):
        preflight(tmp_path / "a.csv")
