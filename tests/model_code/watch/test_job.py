"""The watch job on real captures, with a real bundle."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageFilter

from model_code.data.shards import Split
from model_code.watch.__main__ import main
from tests.model_code import toys


def line(
    body: bytes, event: str, *, kind: str = "image/jpeg", inference_id: str = "", second: int = 0
) -> str:
    """A line of a capture file, as SageMaker writes it."""
    side = {
        "observedContentType": kind,
        "mode": "INPUT",
        "data": base64.b64encode(body).decode(),
        "encoding": "BASE64",
    }
    metadata = {"eventId": event, "inferenceTime": f"2026-01-01T00:{second // 60:02d}:{second % 60:02d}Z"}
    if inference_id:
        metadata["inferenceId"] = inference_id
    return json.dumps(
        {"captureData": {"endpointInput": side}, "eventMetadata": metadata, "eventVersion": "0"}
    )


def photos(count: int, first: int = 300) -> list[bytes]:
    return [toys.photo(toys.CLASSES[number % 3], first + number) for number in range(count)]


def darker(photo: bytes) -> bytes:
    with Image.open(io.BytesIO(photo)) as image:
        changed = image.filter(ImageFilter.GaussianBlur(3)).point(lambda value: value // 3)
        stream = io.BytesIO()
        changed.save(stream, "JPEG")
    return stream.getvalue()


def captured(folder: Path, lines: Iterable[str]) -> Path:
    path = folder / "captures" / "toy" / "main" / "2026" / "01" / "01" / "00"
    path.mkdir(parents=True)
    (path / "00-00-000-a.jsonl").write_text("".join(f"{text}\n" for text in lines))
    return folder / "captures"


def take(captures: Path, bundle: Any, output: Path, *more: str) -> dict[str, Any]:
    code = main(
        [
            *("--captures", str(captures), "--model", str(bundle.folder), "--output", str(output)),
            *("--test", str(bundle.shards[Split.TEST].parent), "--level", "0.05", *more),
        ]
    )
    assert code == 0
    return json.loads((output / "look" / "look.json").read_text())


def test_the_same_photos_are_quiet_and_other_ones_ring(tmp_path, colour_bundle) -> None:
    same = captured(tmp_path / "same", (line(photo, str(n), second=n) for n, photo in enumerate(photos(60))))
    quiet = take(same, colour_bundle, tmp_path / "quiet")
    assert quiet["p"] > quiet["level"]
    assert (quiet["captured"], quiet["reference"]["photos"]) == (60, 48)
    dark = captured(
        tmp_path / "dark", (line(darker(photo), str(n), second=n) for n, photo in enumerate(photos(60)))
    )
    reference = ("--reference", str(tmp_path / "quiet" / "reference"))
    rang = take(dark, colour_bundle, tmp_path / "rang", *reference)
    assert rang["p"] <= rang["level"]
    assert rang["looks"]["brightness"]["window"] < rang["looks"]["brightness"]["reference"]
    assert not (tmp_path / "rang" / "reference").exists()
    page = (tmp_path / "rang" / "look" / "page.html").read_text()
    assert "The photos have changed" in page
    assert "data:image/jpeg;base64," in page


def test_photos_that_led_to_the_model_are_what_it_is_compared_with(tmp_path, colour_bundle) -> None:
    changed = [darker(photo) for photo in photos(150)]
    led = captured(tmp_path / "led", (line(photo, str(n), second=n) for n, photo in enumerate(changed[:80])))
    (tmp_path / "reviewed").mkdir()
    for photo in changed[:10]:  # the model may have been trained on them
        (tmp_path / "reviewed" / f"{hashlib.sha256(photo).hexdigest()}.json").write_text("{}")
    now = captured(tmp_path / "now", (line(photo, str(n), second=n) for n, photo in enumerate(changed[80:])))
    more = ("--accepted", str(led), "--reviewed", str(tmp_path / "reviewed"))
    found = take(now, colour_bundle, tmp_path / "out", *more)
    assert found["p"] > found["level"]
    assert 20 <= found["reference"]["received"] <= 70
    assert found["reference"]["photos"] == 48
    again = take(now, colour_bundle, tmp_path / "again", "--reference", str(tmp_path / "out" / "reference"))
    assert (again["p"], again["reference"]) == (found["p"], found["reference"])
    assert take(now, colour_bundle, tmp_path / "other")["p"] <= found["level"]


def test_what_cannot_be_used_is_counted_and_harms_nothing(tmp_path, colour_bundle) -> None:
    good = [line(photo, str(n), second=n) for n, photo in enumerate(photos(30))]
    document = json.dumps(
        {"instances": [{"b64": base64.b64encode(photo).decode()} for photo in photos(2, 500)]}
    )
    lines = [
        *good,
        good[3],
        "not JSON",
        json.dumps({"eventMetadata": {"eventId": "x", "inferenceTime": "2026-01-01T00:00:00Z"}}),
        line(b"no photo", "bytes"),
        line(b"{}{", "document", kind="application/json"),
        line(photos(1, 600)[0], "test", inference_id="ml-pipeline-test/smoke"),
        line(document.encode(), "two", kind="application/json"),
    ]
    found = take(captured(tmp_path, lines), colour_bundle, tmp_path / "out")
    assert found["left_out"] == {"damaged lines": 1, "no input": 2, "repeated": 1, "tests": 1}
    assert (found["captured"], found["unreadable"]) == (33, 1)
    rows = [
        json.loads(text) for text in (tmp_path / "out" / "look" / "photos.jsonl").read_text().splitlines()
    ]
    assert {"two/0", "two/1"} <= {row["id"] for row in rows}


def test_a_photo_that_a_probe_sends_again_and_again_counts_once(tmp_path, colour_bundle) -> None:
    sent = [photo for photo in photos(30) for photo in (photo, photos(1, 400)[0])]
    lines = [line(photo, str(n), second=n) for n, photo in enumerate(sent)]
    found = take(captured(tmp_path, lines), colour_bundle, tmp_path / "out")
    assert (found["captured"], found["left_out"]["copies"]) == (60, 29)
    assert found["photos"] in (30, 31)  # as near to another as toys are
    assert found["p"] > found["level"]


def test_three_photos_are_too_few(tmp_path, colour_bundle) -> None:
    lines = [line(photo, str(n)) for n, photo in enumerate(photos(3))]
    found = take(captured(tmp_path, lines), colour_bundle, tmp_path / "out")
    assert (found["photos"], found["p"], found["tests"], found["accuracy"]) == (3, 1.0, {}, None)
    assert "Too few photos" in (tmp_path / "out" / "look" / "page.html").read_text()


def test_nothing_captured_is_a_look_too(tmp_path, colour_bundle) -> None:
    found = take(tmp_path / "absent", colour_bundle, tmp_path / "out")
    assert (found["captured"], found["first"]) == (0, None)


def test_labels_that_came_back_give_the_true_accuracy_and_leave_the_queue(tmp_path, colour_bundle) -> None:
    files = photos(30)
    lines = [line(photo, str(n), inference_id=f"client-{n}", second=n) for n, photo in enumerate(files)]
    truth = [{"id": f"client-{n}", "label": toys.CLASSES[n % 3]} for n in range(10)]
    truth.append({"id": hashlib.sha256(files[12]).hexdigest(), "label": "nothing of the kind"})
    (tmp_path / "truth").mkdir()
    (tmp_path / "truth" / "a.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in truth))
    captures = captured(tmp_path, lines)
    found = take(
        captures, colour_bundle, tmp_path / "out", "--truth", str(tmp_path / "truth"), "--queue", "50"
    )
    assert found["truth"]["photos"] == 11
    assert found["truth"]["value"] == pytest.approx(10 / 11)
    queue = json.loads((tmp_path / "out" / "look" / "queue.json").read_text())
    known = {f"client-{n}" for n in range(10)}
    assert queue
    assert not known & {entry["inference_id"] for entry in queue}
    assert all((tmp_path / "out" / "look" / "queue" / entry["sha256"]).is_file() for entry in queue)


def test_the_same_look_twice_gives_the_same_bytes(tmp_path, colour_bundle) -> None:
    captures = captured(tmp_path, (line(photo, str(n), second=n) for n, photo in enumerate(photos(30))))
    one = take(captures, colour_bundle, tmp_path / "one", "--sample", "25")
    two = take(captures, colour_bundle, tmp_path / "two", "--sample", "25")
    assert one == two
    assert (tmp_path / "one/look/page.html").read_bytes() == (tmp_path / "two/look/page.html").read_bytes()


def test_without_a_reference_and_test_photos_the_error_names_the_fix(tmp_path, colour_bundle, capsys) -> None:
    assert (
        main(["--captures", str(tmp_path), "--model", str(colour_bundle.folder), "--output", str(tmp_path)])
        == 1
    )
    assert "give --test the shards" in capsys.readouterr().err


def test_the_reference_of_another_model_is_refused(tmp_path, colour_bundle, capsys) -> None:
    take(tmp_path / "none", colour_bundle, tmp_path / "out")
    file = tmp_path / "out" / "reference" / "reference.safetensors"
    whole = file.read_bytes()
    named = whole.index(b'\\"model\\": \\"') + len(b'\\"model\\": \\"')
    file.write_bytes(whole[:named] + b"####" + whole[named + 4 :])  # of the same length
    assert main(
        [
            *("--captures", str(tmp_path), "--model", str(colour_bundle.folder)),
            *("--reference", str(file.parent), "--output", str(tmp_path / "again")),
        ]
    )
    assert "reference.safetensors is" in capsys.readouterr().err
