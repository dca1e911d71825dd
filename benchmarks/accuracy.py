"""accuracy: test accuracy after split, embed, tune and refit, as the DAG does it, over several split seeds.

Photos are embedded once, because an embedding does not depend on the split; every seed then has its own
stratified split, its own search on its own validation photos, and one look at its own test photos. The peer is the
same search without the pretrained classifier's rows, the recipe before 2026-12, on the same splits: the ratio is the
difference of the two in points, with its paired 95 % interval over all test photos. Another peer is the classifier of
the weights untrained: each class of the data set takes the row that its training photos choose.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks._shared import need, shared
from model_code.data.manifest import Manifest
from model_code.data.records import Fractions, Photo
from model_code.data.scan import scan
from model_code.data.shards import Sample, Split, write_shard
from model_code.data.source import Folder
from model_code.data.splits import assign
from model_code.embed import __main__ as embed
from model_code.embed.embeddings import Embedder, Embeddings, file_name, read_folder, write_embeddings
from model_code.evaluate.scores import Difference, paired_difference
from model_code.networks.weights import find_weights
from model_code.process.parallel import ordered_map
from model_code.train import arguments as train
from model_code.train.distributed import World
from model_code.train.features import class_rows, read_features
from model_code.train.head import strategy as train_head
from model_code.tune import __main__ as tune

# The bars of the issues, by data set.
LIMITS = {"stanford-dogs": 0.81, "imagewoof": 0.90}
_SHARD_PHOTOS = 3000
_WITHOUT_PRIOR = ("--prior", "0", "--ranges", '{"weight_decay": {"low": 0.5, "high": 20}}')


@dataclass(frozen=True)
class Stored:
    """All photos' embeddings, found by key."""

    batches: Sequence[Embeddings]
    embedder: Embedder
    rows: NDArray[np.float16]
    view: NDArray[np.int32]
    photo_of: Mapping[str, NDArray[np.int64]]

    @classmethod
    def read(cls, folder: Path) -> Stored:
        """From a folder of embeddings files."""
        batches = read_folder(folder)
        rows = np.concatenate([batch.embeddings for batch in batches])
        view = np.concatenate([batch.view for batch in batches])
        keys = np.concatenate([np.asarray(batch.keys)[batch.photo] for batch in batches])
        order = np.argsort(keys, kind="stable")
        unique, first = np.unique(keys[order], return_index=True)
        photo_of = dict(zip(unique.tolist(), np.split(order, first[1:]), strict=True))
        return cls(batches, batches[0].embedder, rows, view, photo_of)

    def of(self, photos: Sequence[Photo], split: Split, classes: Sequence[str]) -> Embeddings:
        """Select the embeddings of `photos` as `split`: all views for training, else the evaluation view."""
        chosen = []
        for number, photo in enumerate(photos):
            rows = self.photo_of[photo.key]
            kept = rows if split is Split.TRAIN else rows[self.view[rows] == 0]
            chosen.append((kept, np.full(len(kept), number), np.full(len(kept), classes.index(photo.label))))
        rows, numbers, label = (np.concatenate(column) for column in zip(*chosen, strict=True))
        return Embeddings(
            embeddings=self.rows[rows],
            photo=numbers.astype(np.int32),
            view=self.view[rows],
            label=label.astype(np.int32),
            keys=tuple(photo.key for photo in photos),
            classes=tuple(classes),
            embedder=self.embedder,
            shard="0" * 64,
            split=split,
        )


def embed_all(source: Folder, photos: Sequence[Photo], work: Path, options: argparse.Namespace) -> Stored:
    """Embed every photo with all views, unless `work` has it already."""
    folder = work / "shards"
    if not folder.exists():
        folder.mkdir(parents=True)
        for start in range(0, len(photos), _SHARD_PHOTOS):
            part = photos[start : start + _SHARD_PHOTOS]

            def sample(photo: Photo) -> Sample:
                return Sample(photo.key, photo.label, source.read(photo.path), photo.suffix)

            write_shard(folder / f"{start:064d}.tar", Split.TRAIN, ordered_map(sample, part))
    output = work / f"embeddings-{options.architecture}-{options.views}"
    argv = ["--shards", str(folder), "--output", str(output), "--architecture", options.architecture]
    if embed.main([*argv, "--weights", str(options.weights), "--views", str(options.views)]) != 0:
        sys.exit("embedding failed")
    return Stored.read(output)


def measure(
    stored: Stored, photos: Sequence[Photo], seed: int, work: Path, options: argparse.Namespace
) -> dict[str, Any]:
    """Split, tune, refit and test with one seed."""
    started, cpu = time.monotonic(), time.process_time()
    splits, _ = assign(photos, {}, seed, Fractions())
    classes = sorted({photo.label for photo in photos})
    parts = {
        split: stored.of([p for p in photos if splits.get(p.sha256) is split], split, classes)
        for split in Split
    }
    for split in (Split.TRAIN, Split.VALID):
        (work / split).mkdir()
        write_embeddings(work / split / file_name("0" * 64), parts[split])
    manifest = Manifest("accuracy", None, seed, Fractions(), tuple(classes), {}, (), "0" * 64, ())
    (work / "manifest.json").write_text(manifest.to_json())
    channels = {"train": work / "train", "valid": work / "valid", "dataset": work, "weights": options.weights}
    files = [part for name, path in channels.items() for part in (f"--{name}", str(path))]
    files += ["--model_dir", str(work), "--architecture", options.architecture, "--seed", str(seed)]
    trials = _tune(files, work, options.trials)
    plain = _tune([*files, *_WITHOUT_PRIOR], work, options.trials)
    with contextlib.redirect_stdout(io.StringIO()):
        untuned, tuned, before = (
            _hits(files, chosen, parts[Split.TEST])
            for chosen in (
                trials["trials"][0]["searched"],
                trials["best"]["hyperparameters"],
                {**plain["best"]["hyperparameters"], "prior": 0},
            )
        )
    return {
        "seed": seed,
        "valid": trials["best"]["metrics"]["valid_accuracy"],
        "untuned": float(untuned.mean()),
        "test": float(tuned.mean()),
        "before": float(before.mean()),
        "hits": tuned,
        "hits_before": before,
        "hits_untrained": _untrained(files, parts[Split.TEST]),
        "seconds": time.monotonic() - started,
        "cpu_seconds": time.process_time() - cpu,
        "trial_seconds": statistics.median(trial["seconds"] for trial in trials["trials"]),
        "best": trials["best"]["hyperparameters"],
    }


def _tune(argv: Sequence[str], work: Path, trials: int) -> dict[str, Any]:
    """Search with these arguments; the content of trials.json."""
    with contextlib.redirect_stdout(io.StringIO()) as log:
        if tune.main([*argv, "--trials", str(trials)], {}) != 0:
            sys.exit(f"tuning failed:\n{log.getvalue()}")
    found: dict[str, Any] = json.loads((work / "trials.json").read_text())
    return found


def _hits(files: Sequence[str], chosen: Mapping[str, Any], test: Embeddings) -> NDArray[np.bool_]:
    """Refit with the chosen hyperparameters, as the final job does, and judge each test photo."""
    argv = [
        *files,
        "--mode",
        "final",
        *(part for name, value in chosen.items() for part in (f"--{name}", str(value))),
    ]
    _, refit = train_head.prepare(train.job_from(train.parser({}).parse_args(argv), {}, World()))
    model = refit().model
    with torch.no_grad():
        logits = model.head(torch.from_numpy(test.embeddings).float())  # type: ignore[operator]
    hits: NDArray[np.bool_] = logits.argmax(1).numpy() == test.label
    return hits


def _untrained(files: Sequence[str], test: Embeddings) -> NDArray[np.bool_]:
    """Judge each test photo by the rows of the pretrained classifier, before any training."""
    job = train.job_from(train.parser({}).parse_args([*files, "--mode", "final"]), {}, World())
    features, _ = read_features(job.folders.train, job.manifest.classes, Split.TRAIN)
    weights = find_weights(job.folders.weights)
    rows = class_rows(weights, features, job.classes) if weights else None
    if rows is None:
        return np.zeros(len(test.label), bool)
    logits = rows(torch.from_numpy(test.embeddings).float())
    hits: NDArray[np.bool_] = logits.argmax(1).numpy() == test.label
    return hits


def _gain(rows: Sequence[Mapping[str, Any]], peer: str) -> Difference:
    """The gain of the tuned head over a peer, over the test photos of all seeds."""
    return paired_difference(*(np.concatenate([row[name] for row in rows]) for name in ("hits", peer)))


def _ends(gain: Difference) -> tuple[float, float]:
    return gain.interval.low, gain.interval.high


def _points(gain: Difference) -> str:
    low, high = _ends(gain)
    return f"{100 * gain.mean:+.2f} points (paired 95 % interval {100 * low:+.2f} to {100 * high:+.2f})"


def main() -> int:
    """Print a row per seed, then the line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    parser.add_argument("--data", type=Path, default=shared("data/stanford-dogs"), help="a folder per class")
    parser.add_argument("--weights", type=Path, default=shared("weights/mobilenet_v2_imagenet.pth"))
    parser.add_argument("--architecture", default="mobilenet_v2")
    parser.add_argument("--seeds", type=int, default=3, help="split seeds 0 .. n - 1")
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--views", type=int, default=4, help="views of each training photo")
    parser.add_argument("--work", type=Path, help="a folder that keeps the embeddings for another run")
    options = parser.parse_args()
    need(options.data, options.weights)
    source = Folder(options.data)
    photos, _ = scan(source)
    with tempfile.TemporaryDirectory(prefix="accuracy-") as scratch:
        stored = embed_all(source, photos, options.work or Path(scratch, "embedded"), options)
        print(
            f"{'seed':>4} {'valid':>7} {'untuned test':>13} {'tuned test':>11} {'no prior':>9} {'seconds':>8}  best",
            flush=True,
        )
        rows = []
        for seed in range(options.seeds):
            work = Path(scratch, str(seed))
            work.mkdir()
            row = measure(stored, photos, seed, work, options)
            best = " ".join(f"{name}={value:.3g}" for name, value in row["best"].items())
            print(
                f"{seed:>4} {row['valid']:>7.4f} {row['untuned']:>13.4f} {row['test']:>11.4f} "
                f"{row['before']:>9.4f} {row['seconds']:>8.1f}  {best}",
                flush=True,
            )
            rows.append(row)
    figure = statistics.mean(row["test"] for row in rows)
    untuned = statistics.mean(row["untuned"] for row in rows)
    before = statistics.mean(row["before"] for row in rows)
    name = options.data.resolve().name
    gain, gain_untrained = _gain(rows, "hits_before"), _gain(rows, "hits_untrained")
    untrained = statistics.mean(float(row["hits_untrained"].mean()) for row in rows)
    print(f"against the search without a prior: {_points(gain)}")
    print(f"against the untrained classifier, {untrained:.4f}: {_points(gain_untrained)}")
    print(
        f"mean test accuracy {figure:.4f} tuned, {untuned:.4f} untuned, over {options.seeds} split seeds. Part of "
        "these photos were in ImageNet's training set, which flatters ImageNet weights."
        if name in LIMITS
        else f"mean test accuracy {figure:.4f} tuned, {untuned:.4f} untuned, over {options.seeds} split seeds."
    )
    print(
        json.dumps(
            {
                "name": "accuracy",
                "figure": round(figure, 4),
                "unit": "fraction of test photos",
                "limit": LIMITS.get(name),
                "peers": {
                    "untuned head": round(untuned, 4),
                    "search without a prior": round(before, 4),
                    "untrained classifier": round(untrained, 4),
                },
                "ratio": round(100 * gain.mean, 2),
                "conditions": {
                    "data": name,
                    "photos": len(photos),
                    "architecture": options.architecture,
                    "seeds": options.seeds,
                    "trials": options.trials,
                    "views": options.views,
                    "ratio": "points above the search without a prior",
                    "ratio_interval": [round(100 * end, 2) for end in _ends(gain)],
                    "points_above_untrained": [
                        round(100 * end, 2) for end in (gain_untrained.mean, *_ends(gain_untrained))
                    ],
                    "deviation": round(statistics.pstdev(row["test"] for row in rows), 4),
                    "median_trial_seconds": round(statistics.median(row["trial_seconds"] for row in rows), 2),
                },
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
