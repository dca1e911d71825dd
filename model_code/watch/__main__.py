"""Look at what an endpoint was asked: `python -m model_code.watch --help`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from model_code.bundle.archive import BundleError
from model_code.data.shards import ShardError, shards_in
from model_code.process.inputs import optional
from model_code.watch.captures import Served, Tally, read_captures
from model_code.watch.look import Found, Task, look
from model_code.watch.model import WatchedModel
from model_code.watch.page import render, thumbnail
from model_code.watch.reference import FILE, MOST_PHOTOS, Reference, WatchError, accepting, build, load, save

_INPUT = Path("/opt/ml/processing/input")
_OUTPUT = Path("/opt/ml/processing/output")
_FAILURES = (BundleError, ShardError, WatchError, FileNotFoundError, ValueError)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line; its defaults are SageMaker's folders of a processing job."""
    arguments = argparse.ArgumentParser(
        prog="python -m model_code.watch",
        description="Compare captured photos of an endpoint with photos that its model was not trained on. Writes "
        "look.json, photos.jsonl, page.html and queue/ (photos worth a review).",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    arguments.add_argument(
        "--captures", type=Path, default=_INPUT / "captures", help="folder with .jsonl captures"
    )
    arguments.add_argument("--model", type=Path, default=_INPUT / "model", help="model.tar.gz, or its folder")
    arguments.add_argument(
        "--reference",
        type=Path,
        default=_INPUT / "reference",
        help="reference.safetensors of an earlier look",
    )
    arguments.add_argument(
        "--test",
        type=Path,
        default=_INPUT / "test",
        help="test shards, to make a reference where there is none",
    )
    arguments.add_argument(
        "--truth", type=Path, default=_INPUT / "truth", help="folder with .jsonl of labels that came back"
    )
    arguments.add_argument(
        "--accepted",
        type=Path,
        default=_INPUT / "accepted",
        help="captures of the looks that led to this model; a reference that is made now compares with them",
    )
    arguments.add_argument(
        "--reviewed",
        type=Path,
        default=_INPUT / "reviewed",
        help="folder with <SHA-256>.json of reviewed photos, which the model may have been trained on",
    )
    arguments.add_argument("--output", type=Path, default=_OUTPUT, help="folder for look/ and reference/")
    arguments.add_argument(
        "--level", type=float, default=0.0027, help="probability of a false alarm of this look"
    )
    arguments.add_argument("--least", type=int, default=20, help="photos below which nothing is tested")
    arguments.add_argument("--sample", type=int, default=1000, help="photos looked at, at most")
    arguments.add_argument("--queue", type=int, default=20, help="photos proposed for a review")
    arguments.add_argument("--number", type=int, default=0, help="of the look; draws the permutations")
    arguments.add_argument("--title", default="Look", help="heading of the page")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status: 0, or 1 with the reason on stderr."""
    options = parser()
    arguments = options.parse_args(argv)
    try:
        document = run(arguments, options)
    except _FAILURES as error:
        print(f"watch: {error}", file=sys.stderr, flush=True)
        return 1
    accuracy = document["accuracy"]
    print(f"watch_photos={document['photos']} watch_p={document['p']:.6g}", flush=True)
    if accuracy:
        print(f"watch_estimated_accuracy={accuracy['value']:.4f}", flush=True)
    return 0


def run(arguments: argparse.Namespace, options: argparse.ArgumentParser) -> dict[str, Any]:
    """Take the look; returns look.json."""
    tally = Tally()
    files = sorted(arguments.captures.rglob("*.jsonl")) if arguments.captures.is_dir() else []
    captured = sorted(read_captures(files, tally), key=lambda photo: (photo.time, photo.id))
    truth = read_truth(optional(arguments, options, "truth"))
    model = WatchedModel(_the_model(arguments.model))
    try:
        reference = _reference(arguments, options, model)
        task = Task(arguments.level, arguments.least, arguments.sample, arguments.queue, arguments.number)
        found = look(task, model, reference, captured, truth, tally.left_out)
        write(found, model, arguments.output / "look", arguments.title)
    finally:
        model.close()
    return found.document


def _reference(
    arguments: argparse.Namespace, options: argparse.ArgumentParser, model: WatchedModel
) -> Reference:
    folder = optional(arguments, options, "reference")
    reference = load(folder, model.digest) if folder else None
    if reference is not None:
        return reference
    if FILE in model.predictor.card.files:
        reference = load(model.predictor.directory, model.digest)
    if reference is None:
        test = optional(arguments, options, "test")
        shards = shards_in(test) if test else []
        if not shards:
            raise WatchError(
                f"model {model.digest} has no reference and there are no test photos to make one: give --test the "
                "shards of the data set version that it was evaluated on"
            )
        print("no reference of this model yet: making one of test photos", flush=True)
        reference = build(model, shards)
    if accepted := _accepted(
        optional(arguments, options, "accepted"), optional(arguments, options, "reviewed")
    ):
        reference = accepting(reference, model, accepted)
    save(reference, arguments.output / "reference")
    return reference


def _accepted(folder: Path | None, reviewed: Path | None) -> list[bytes]:
    """Return captured photos without a review, at most as many as a reference takes."""
    if folder is None:
        return []
    known = {file.stem for file in reviewed.rglob("*.json")} if reviewed else set()
    captured = read_captures(sorted(folder.rglob("*.jsonl")), Tally())
    photos = {photo.sha256: photo for photo in captured if photo.sha256 not in known}
    drawn = sorted(sorted(photos)[:MOST_PHOTOS], key=lambda sha256: photos[sha256].time)
    return [photos[sha256].data for sha256 in drawn]


def read_truth(folder: Path | None) -> dict[str, str]:
    """Labels that came back: class names by InferenceId or SHA-256; the last line about a photo holds.

    Raises:
        WatchError: A line is no object with "id" and "label".
    """
    found: dict[str, str] = {}
    for file in sorted(folder.rglob("*.jsonl")) if folder else []:
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
                found[str(record["id"])] = str(record["label"])
            except (ValueError, KeyError, TypeError) as error:
                raise WatchError(
                    f'{file.name}, line {number}: give {{"id": <InferenceId or SHA-256>, "label": <class>}}'
                ) from error
    return found


def write(found: Found, model: WatchedModel, folder: Path, title: str) -> None:
    """look.json, photos.jsonl, page.html, and per queued photo its bytes and a thumbnail."""
    classes = model.predictor.classes
    (folder / "queue").mkdir(parents=True, exist_ok=True)
    counted = set(found.counted.tolist())
    with (folder / "photos.jsonl").open("w", encoding="utf-8") as lines:
        for row, photo in enumerate(found.served):
            lines.write(
                json.dumps(_line(found, row, photo, classes, row in counted), ensure_ascii=False) + "\n"
            )
    queue = []
    for row, why in zip(found.queued.tolist(), found.queued_why, strict=True):
        photo = found.served[row]
        small = thumbnail(photo.data)
        if small is None:
            continue
        (folder / "queue" / photo.sha256).write_bytes(photo.data)
        (folder / "queue" / f"{photo.sha256}.jpg").write_bytes(small)
        queue.append({**_line(found, row, photo, classes, True), "why": why})
    (folder / "queue.json").write_text(json.dumps(queue, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "page.html").write_text(render(found, classes, title), encoding="utf-8")
    text = json.dumps(found.document, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / "look.json").write_text(text + "\n", encoding="utf-8")


def _line(found: Found, row: int, photo: Served, classes: Sequence[str], counted: bool) -> dict[str, Any]:
    answer = found.seen.photos.probabilities[row]
    best = int(answer.argmax())
    return {
        "id": photo.id,
        "inference_id": photo.inference_id,
        "sha256": photo.sha256,
        "time": photo.time.isoformat(),
        "prediction": classes[best],
        "probability": round(float(answer[best]), 6),
        "counted": counted,
    }


def _the_model(path: Path) -> Path:
    if path.is_file() or (path / "model.json").is_file():
        return path
    archives = sorted(path.glob("*.tar.gz")) if path.is_dir() else []
    if len(archives) != 1:
        raise WatchError(f"{path} holds {len(archives)} models: give --model one model.tar.gz")
    return archives[0]


if __name__ == "__main__":
    sys.exit(main())
