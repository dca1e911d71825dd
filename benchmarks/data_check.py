"""data-check: wrong labels and near-duplicates that were put in on purpose, and how many of them are found.

5 % of the labels are flipped, at random or to one of the 3 most confused classes. 1,000 photos each are re-encoded,
resized, cropped by a tenth, mirrored and brightened. The peer for labels is the margin of probabilities (cleanlab's
`normalized_margin`) of a plain head, out of fold.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from benchmarks._shared import need, shared
from benchmarks.accuracy import embed_all
from model_code.check.duplicates import close_pairs, verified
from model_code.check.labels import Judged, judge
from model_code.check.material import Material, collect
from model_code.data.scan import scan
from model_code.data.shards import Sample, Split, key_of, read_shard, shards_in, write_shard
from model_code.data.source import Folder
from model_code.embed import __main__ as embed

FLIPPED = 0.05
_KINDS = ("re-encode", "resize", "crop", "mirror", "brightness")
_COPIES = 1000
_TRAINED_ON = 40
# Bars: AUROC by kind of flip; precision of the 50 worst; recall and precision of near-duplicates;
# loss of accuracy in points, its upper 95 % bound; seconds of CPU.
_BARS = {"random": 0.97, "confused": 0.95}
_REFERENCE = {"random": 0.961, "confused": 0.935}

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Flipped:
    """Labels with errors, and which they are."""

    labels: Integers
    wrong: Flags


def flip(labels: Integers, into: Callable[[int], Integers], seed: int) -> Flipped:
    """Give 5 % of the photos a label drawn from `into(true label)`."""
    draw = np.random.default_rng(seed)
    chosen = draw.permutation(len(labels))[: round(FLIPPED * len(labels))]
    flipped, wrong = labels.copy(), np.zeros(len(labels), bool)
    wrong[chosen] = True
    for at in chosen:
        flipped[at] = draw.choice(into(int(labels[at])))
    return Flipped(flipped, wrong)


def auroc(score: Floats, wrong: Flags) -> float:
    """Probability that a wrong label scores above a right one (Mann-Whitney U)."""
    rank = np.empty(len(score))
    rank[np.argsort(score, kind="stable")] = np.arange(1, len(score) + 1)
    bad = int(wrong.sum())
    return float((rank[wrong].sum() - bad * (bad + 1) / 2) / (bad * (len(score) - bad)))


def probability_margin(rows: Floats, labels: Integers, classes: int) -> Floats:
    """The peer: best other probability less the given one, of a plain head (a linear discriminant), out of fold."""
    fold = np.random.default_rng(1).permutation(len(rows)) % 5
    margin = np.empty(len(rows), np.float32)
    for number in range(5):
        judged = fold == number
        scores = discriminant(rows[~judged], labels[~judged], classes)(rows[judged])
        probability = np.exp(scores - scores.max(axis=1, keepdims=True))
        probability /= probability.sum(axis=1, keepdims=True)
        at = np.arange(len(scores)), labels[judged]
        own = probability[at].copy()
        probability[at] = -1
        margin[judged] = probability.max(axis=1) - own
    return margin


def discriminant(rows: Floats, labels: Integers, classes: int) -> Callable[[Floats], Floats]:
    """Scores of a shrunk linear discriminant, which has no hyperparameters that labels with errors could mislead."""
    center = rows.mean(axis=0)
    centered = rows - center
    counts = np.maximum(np.bincount(labels, minlength=classes), 1)[:, None]
    means = np.zeros((classes, rows.shape[1]), np.float32)
    np.add.at(means, labels, centered)
    means /= counts
    rest = centered - means[labels]
    scatter = rest.T @ rest / (len(rows) - classes)
    scatter = 0.7 * scatter + 0.3 * np.trace(scatter) / len(scatter) * np.eye(len(scatter), dtype=np.float32)
    weights = np.linalg.solve(scatter, means.T)
    bias = -0.5 * (means.T * weights).sum(axis=0)
    return lambda other: (other - center) @ weights + bias


def confused(judged: Judged) -> Callable[[int], Integers]:
    """The 3 classes that photos of a class are most often taken for."""
    beaten = judged.beaten.astype(np.float64)
    np.fill_diagonal(beaten, -1)
    nearest = np.argsort(-beaten, axis=1)[:, :3]
    return lambda label: nearest[label]


def labels_found(material: Material, kind: str, into: Callable[[int], Integers]) -> dict[str, float]:
    """AUROC, the peer's, precision of the 50 worst, precision and recall of the suspects: all photos."""
    flipped = flip(material.labels, into, seed=0)
    rows = material.rows.astype(np.float32)
    started = time.process_time()
    judged = judge(material.rows, flipped.labels, len(material.classes))
    seconds = time.process_time() - started
    suspects = judged.suspects()
    found = {
        "auroc": auroc(judged.odds, flipped.wrong),
        "peer": auroc(probability_margin(rows, flipped.labels, len(material.classes)), flipped.wrong),
        "worst_50": float(flipped.wrong[np.argsort(-judged.odds)[:50]].mean()),
        "precision": float(flipped.wrong[suspects].mean()),
        "recall": float(flipped.wrong[suspects].sum() / flipped.wrong.sum()),
        "cpu_seconds": seconds,
    }
    print(
        f"{kind:>9} flips: " + "  ".join(f"{name} {value:.3f}" for name, value in found.items()), flush=True
    )
    return found


def cost_of_errors(
    material: Material, into: Callable[[int], Integers], seeds: int
) -> list[tuple[float, float]]:
    """Points of accuracy lost against clean labels, per seed: with all errors, and without the suspects."""
    rows, labels, classes = material.rows.astype(np.float32), material.labels, len(material.classes)
    lost = []
    for seed in range(seeds):
        drawn = np.random.default_rng(seed).permutation(len(labels))
        by_class = drawn[np.argsort(labels[drawn], kind="stable")]
        counts = np.bincount(labels, minlength=classes)
        place = np.concatenate([np.arange(count) for count in counts])
        taught, tested = by_class[place < _TRAINED_ON], by_class[place >= _TRAINED_ON]
        flipped = flip(labels[taught], into, seed)
        kept = np.ones(len(taught), bool)
        kept[judge(material.rows[taught], flipped.labels, classes).suspects()] = False

        def accuracy(chosen: Integers, given: Integers, tested: Integers = tested) -> float:
            return float(
                (discriminant(rows[chosen], given, classes)(rows[tested]).argmax(1) == labels[tested]).mean()
            )

        clean = accuracy(taught, labels[taught])
        dirty, without = accuracy(taught, flipped.labels), accuracy(taught[kept], flipped.labels[kept])
        lost.append((100 * (clean - dirty), 100 * (clean - without)))
    return lost


def changed(image: Image.Image, kind: str, draw: np.random.Generator) -> Image.Image:
    """A near-duplicate of `image`."""
    width, height = image.size
    if kind == "resize":
        factor = draw.uniform(0.5, 0.9)
        return image.resize((round(width * factor), round(height * factor)), Image.Resampling.BICUBIC)
    if kind == "crop":
        across, down = round(width * 0.9**0.5), round(height * 0.9**0.5)
        left, top = int(draw.integers(0, width - across + 1)), int(draw.integers(0, height - down + 1))
        return image.crop((left, top, left + across, top + down))
    if kind == "mirror":
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if kind == "brightness":
        return ImageEnhance.Brightness(image).enhance(draw.uniform(0.7, 1.3))
    return image


def inject(work: Path, options: argparse.Namespace) -> dict[str, tuple[str, str]]:
    """Shards and embeddings of 1,000 near-duplicates of each kind: {key: (key of the original, kind)}."""
    folder, listed = work / "copies", work / "copies.json"
    if not listed.exists():
        folder.mkdir(exist_ok=True)
        samples = [sample for path in shards_in(work / "shards") for sample in read_shard(path)]
        draw = np.random.default_rng(0)
        chosen = draw.permutation(len(samples))[: len(_KINDS) * _COPIES].reshape(len(_KINDS), -1)
        copies: dict[str, tuple[str, str]] = {}
        for number, kind in enumerate(_KINDS):
            made = []
            for at in chosen[number]:
                stream = io.BytesIO()
                image = Image.open(io.BytesIO(samples[at].data)).convert("RGB")
                changed(image, kind, draw).save(stream, "JPEG", quality=60 if kind == "re-encode" else 90)
                key = key_of(hashlib.sha256(stream.getvalue()).hexdigest())
                copies[key] = (samples[at].key, kind)
                made.append(Sample(key, samples[at].label, stream.getvalue(), "jpg"))
            write_shard(folder / f"{number:064d}.tar", Split.TRAIN, made)
        listed.write_text(json.dumps(copies))
    output = work / f"embeddings-copies-{options.architecture}"
    argv = ["--shards", str(folder), "--output", str(output), "--architecture", options.architecture]
    if embed.main([*argv, "--weights", str(options.weights)]) != 0:
        sys.exit("embedding the near-duplicates failed")
    return {key: (original, kind) for key, (original, kind) in json.loads(listed.read_text()).items()}


def duplicates_found(work: Path, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Recall and precision by kind. Strict: every pair of a copy with anything but its original counts as wrong."""
    copies = inject(work, options)
    with tempfile.TemporaryDirectory(prefix="data-check-") as scratch:
        for name, parts in {
            "embeddings": (
                f"embeddings-{options.architecture}-1",
                f"embeddings-copies-{options.architecture}",
            ),
            "shards": ("shards", "copies"),
        }.items():
            Path(scratch, name).mkdir()
            for number, part in enumerate(parts):
                for file in (work / part).iterdir():
                    Path(scratch, name, f"{number}-{file.name}").symlink_to(file)
        material = collect(Path(scratch, "embeddings"), Path(scratch, "shards"), (), {})
        started = time.process_time()
        pairs = verified(close_pairs(material.rows), material.read)
        print(f"near-duplicates: {time.process_time() - started:.1f} s of CPU, photos decoded", flush=True)
    found = [(material.keys[pair.left], material.keys[pair.right]) for pair in pairs]
    result = {}
    for kind in _KINDS:
        wanted = {key: original for key, (original, of) in copies.items() if of == kind}
        touched = [pair for pair in found if pair[0] in wanted or pair[1] in wanted]
        hits = sum(wanted.get(one) == other or wanted.get(other) == one for one, other in touched)
        result[kind] = {"recall": hits / len(wanted), "precision": hits / max(1, len(touched))}
        print(
            f"{kind:>11}: recall {result[kind]['recall']:.3f}  precision {result[kind]['precision']:.3f}",
            flush=True,
        )
    return result


def bound(values: list[float]) -> float:
    """Upper end of the one-sided 95 % interval of the mean (Student's t)."""
    from scipy.stats import t

    return (
        statistics.mean(values)
        + float(t.ppf(0.95, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5
    )


def main() -> int:
    """Print every figure next to its bar, then the line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data_check", description=__doc__)
    parser.add_argument("--data", type=Path, default=shared("data/stanford-dogs"), help="a folder per class")
    parser.add_argument("--weights", type=Path, default=shared("weights/mobilenet_v2_imagenet.pth"))
    parser.add_argument("--architecture", default="mobilenet_v2")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--work", type=Path, help="a folder that keeps the embeddings for another run")
    options = parser.parse_args()
    options.views = 1
    need(options.data, options.weights)
    with tempfile.TemporaryDirectory(prefix="data-check-") as scratch:
        work = options.work or Path(scratch)
        source = Folder(options.data)
        if not (work / f"embeddings-{options.architecture}-1").exists():
            embed_all(source, scan(source)[0], work, options)
        material = collect(work / f"embeddings-{options.architecture}-1", work / "shards", (), {})
        classes = len(material.classes)
        into: Mapping[str, Callable[[int], Integers]] = {
            "random": lambda label: np.setdiff1d(np.arange(classes), [label]),
            "confused": confused(judge(material.rows, material.labels, classes)),
        }
        labels = {kind: labels_found(material, kind, choose) for kind, choose in into.items()}
        lost = {kind: cost_of_errors(material, choose, options.seeds) for kind, choose in into.items()}
        for kind, seeds in lost.items():
            dirty, without = (statistics.mean(part) for part in zip(*seeds, strict=True))
            upper = bound([seed[1] for seed in seeds])
            print(
                f"{kind:>9} flips cost {dirty:.2f} points of accuracy, {without:.2f} without the suspects (upper 95 % "
                f"bound {upper:.2f}; bars 0.3 and 0.6)",
                flush=True,
            )
        started = time.process_time()
        judge(material.rows, material.labels, classes)
        list(close_pairs(material.rows))
        seconds = time.process_time() - started
        print(f"{len(material):,} embeddings: {seconds:.2f} s of CPU (bar 3)", flush=True)
        duplicates = duplicates_found(work, options)
    worst = min(labels, key=lambda kind: labels[kind]["auroc"])
    figure, peer = labels[worst]["auroc"], labels[worst]["peer"]
    print(
        json.dumps(
            {
                "name": "data-check",
                "figure": round(figure, 4),
                "unit": f"AUROC, 5 % of labels flipped ({worst})",
                "limit": _BARS[worst],
                "peers": {
                    "margin of probabilities, same run": round(peer, 4),
                    "plain head, 4,800 photos": _REFERENCE[worst],
                },
                "ratio": round(figure / peer, 4),
                "conditions": {
                    "photos": len(material),
                    "architecture": options.architecture,
                    "labels": {k: {n: round(v, 4) for n, v in found.items()} for k, found in labels.items()},
                    "points_lost": {
                        kind: {
                            "with_errors": round(statistics.mean(seed[0] for seed in seeds), 3),
                            "without_suspects": round(statistics.mean(seed[1] for seed in seeds), 3),
                            "upper_95": round(bound([seed[1] for seed in seeds]), 3),
                        }
                        for kind, seeds in lost.items()
                    },
                    "cpu_seconds": round(seconds, 2),
                    "near_duplicates": {
                        k: {n: round(v, 4) for n, v in found.items()} for k, found in duplicates.items()
                    },
                },
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
