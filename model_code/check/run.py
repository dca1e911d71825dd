"""Check a data set version: findings in check.json, one line per finding, and a page with photos."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model_code.check import classes as by_class
from model_code.check.duplicates import Pair, close_pairs, verified
from model_code.check.labels import Judged, judge
from model_code.check.material import Material
from model_code.check.quality import Fault, Look, faults, look
from model_code.data.photos import PhotoError, thumbnail
from model_code.process.parallel import ordered_map
from model_code.process.progress import Progress

SCHEMA_VERSION = 1
LISTED = 200
"""Findings of a kind in check.json; findings.jsonl has all."""
SIDE = 160


@dataclass(frozen=True)
class Findings:
    """Everything that was found, by index into the material."""

    judged: Judged
    pairs: tuple[Pair, ...]
    faults: Mapping[Fault, np.ndarray]
    unlike: np.ndarray
    indistinct: tuple[by_class.Indistinct, ...]
    small: np.ndarray
    unreadable: tuple[int, ...]


def find(material: Material, workers: int) -> Findings:
    """Judge labels and classes from embeddings, then look at every photo once."""
    print(f"checking {len(material)} photos of {len(material.classes)} classes", flush=True)
    count = len(material.classes)
    judged = judge(material.rows, material.labels, count)
    unlike, _ = by_class.unlike(material.rows, material.labels, count)
    pairs = verified(close_pairs(material.rows), material.read, workers)
    looks = _look_at(material, workers)
    seen = np.array([at for at, found in enumerate(looks) if found is not None], np.int64)
    found = faults([found for found in looks if found is not None])
    return Findings(
        judged=judged,
        pairs=tuple(pairs),
        faults={fault: seen[chosen] for fault, chosen in found.items()},
        unlike=unlike,
        indistinct=tuple(by_class.indistinct(judged)),
        small=by_class.small(material.labels, count),
        unreadable=tuple(
            at for at, found in enumerate(looks) if found is None and material.places[at] is not None
        ),
    )


def _look_at(material: Material, workers: int) -> list[Look | None]:
    progress = Progress(len(material), "photos")

    def one(at: int) -> Look | None:
        try:
            return look(material.read(at)) if material.places[at] is not None else None
        except PhotoError:  # upload has decoded it: another release of the codec
            return None

    looks = []
    for found in ordered_map(one, range(len(material)), workers):
        looks.append(found)
        progress.advance()
    return looks


def document(material: Material, findings: Findings, dataset: Mapping[str, str] | None) -> dict[str, Any]:
    """check.json."""
    suspects = findings.judged.suspects()
    counts = np.bincount(material.labels, minlength=len(material.classes))
    pairs = [_pair(material, pair) for pair in findings.pairs]
    across = [pair for pair in pairs if pair["left"]["class"] != pair["right"]["class"]]
    leaks = [pair for pair in pairs if pair["left"]["split"] != pair["right"]["split"]]
    return {
        "schema_version": SCHEMA_VERSION,
        "dataset": dict(dataset) if dataset else None,
        "embedder": material.embedder.to_dict(),
        "photos": len(material),
        "classes": [
            {"name": name, "photos": int(count)} for name, count in zip(material.classes, counts, strict=True)
        ],
        "out_of_fold_accuracy": round(findings.judged.accuracy, 6),
        "suspects": {
            "count": len(suspects),
            "share": round(len(suspects) / len(material), 6),
            "listed": [_suspect(material, findings.judged, at) for at in suspects[:LISTED].tolist()],
        },
        "near_duplicates": {
            "pairs": len(pairs),
            "across_classes": len(across),
            "across_splits": len(leaks),
            "listed": sorted(pairs, key=_gravity)[:LISTED],
        },
        "photos_to_look_at": {
            fault.value: {
                "count": len(found),
                "listed": [_photo(material, at) for at in found[:LISTED].tolist()],
            }
            for fault, found in findings.faults.items()
        },
        "unlike_their_class": {
            "count": len(findings.unlike),
            "listed": [_photo(material, at) for at in findings.unlike[:LISTED].tolist()],
        },
        "unreadable": [_photo(material, at) for at in findings.unreadable[:LISTED]],
        "balance": {
            "largest": int(counts.max()),
            "smallest": int(counts.min()),
            "ratio": round(float(counts.max() / max(1, counts.min())), 3),
            "too_small": [material.classes[at] for at in findings.small.tolist()],
        },
        "cannot_be_told_apart": [
            {
                "classes": [material.classes[pair.left], material.classes[pair.right]],
                "accuracy": round(pair.accuracy, 6),
                "photos": pair.photos,
            }
            for pair in findings.indistinct
        ],
    }


def lines(material: Material, findings: Findings) -> Iterator[str]:
    """findings.jsonl: one line per photo with a finding, in the order of keys."""
    found: dict[int, list[dict[str, Any]]] = {}

    def add(at: int, kind: str, **facts: Any) -> None:
        found.setdefault(int(at), []).append({"kind": kind, **facts})

    for at in findings.judged.suspects().tolist():
        suspect = _suspect(material, findings.judged, at)
        add(at, "suspect", suggestion=suspect["suggestion"], odds=suspect["odds"])
    for pair in findings.pairs:
        add(pair.left, "near_duplicate", of=material.keys[pair.right])
        add(pair.right, "near_duplicate", of=material.keys[pair.left])
    for fault, photos in findings.faults.items():
        for at in photos.tolist():
            add(at, fault.value)
    for at in findings.unlike.tolist():
        add(at, "unlike")
    for at in findings.unreadable:
        add(at, "unreadable")
    for at in sorted(found):
        yield json.dumps({**_photo(material, at), "findings": found[at]}, ensure_ascii=False) + "\n"


def thumbnails(material: Material, listed: Mapping[str, Any], limit: int) -> dict[str, bytes]:
    """JPEGs whose shorter side is `SIDE`, by key, of the first `limit` photos of every kind of finding."""
    keys = _shown(listed, limit)
    index = {key: at for at, key in enumerate(material.keys)}
    images = {}
    for key in keys:
        try:
            images[key] = thumbnail(material.read(index[key]), SIDE)
        except PhotoError:
            continue
    return images


def _shown(listed: Mapping[str, Any], limit: int) -> list[str]:
    groups = [listed["suspects"]["listed"], listed["unlike_their_class"]["listed"]]
    groups += [found["listed"] for found in listed["photos_to_look_at"].values()]
    keys = [photo["key"] for group in groups for photo in group[:limit]]
    for pair in listed["near_duplicates"]["listed"][:limit]:
        keys += [pair["left"]["key"], pair["right"]["key"]]
    return list(dict.fromkeys(keys))


def _photo(material: Material, at: int) -> dict[str, Any]:
    photo = {"key": material.keys[at], "class": material.label(at), "split": material.splits[at].value}
    return {**photo, "path": material.paths[at]} if material.paths[at] else photo


def _suspect(material: Material, judged: Judged, at: int) -> dict[str, Any]:
    suggestion = material.classes[judged.suggestion[at]]
    return {**_photo(material, at), "suggestion": suggestion, "odds": round(float(judged.odds[at]), 3)}


def _pair(material: Material, pair: Pair) -> dict[str, Any]:
    return {
        "left": _photo(material, pair.left),
        "right": _photo(material, pair.right),
        "similarity": round(pair.similarity, 4),
        "match": round(pair.match, 4),
        "mirrored": pair.mirrored,
    }


def _gravity(pair: Mapping[str, Any]) -> tuple[bool, bool, float]:
    left, right = pair["left"], pair["right"]
    return left["class"] == right["class"], left["split"] == right["split"], -pair["match"]


def write(output: Path, report: Mapping[str, Any], found: Iterator[str], page: str) -> None:
    """check.json, findings.jsonl and data_report.html. check.json comes last: it says that all is there."""
    output.mkdir(parents=True, exist_ok=True)
    with (output / "findings.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(found)
    (output / "data_report.html").write_text(page, encoding="utf-8")
    text = json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False)
    (output / "check.json").write_text(text + "\n", encoding="utf-8")
