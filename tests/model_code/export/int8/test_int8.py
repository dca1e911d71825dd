"""The int8 guard: what it keeps, what it drops, and what it looks at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model_code.data.shards import Split
from model_code.export.int8 import correction as refit
from model_code.export.int8 import guard, quantize
from model_code.export.int8 import make as int8
from model_code.export.int8 import search as find
from model_code.export.int8.activations import Activations, squared_error
from model_code.export.int8.correction import Refit
from model_code.export.int8.guard import Verdict
from model_code.export.int8.quantize import Recipe
from model_code.export.onnx_graph import export_onnx
from model_code.networks.backbone import attach_head, build_backbone
from model_code.process.onnx import open_onnx
from tests.model_code import colours
from tests.model_code.colours import Colours

SPEED_UP = guard.speed_up
CHEAP = (Recipe(), Recipe(float_first=3))


def pixels(bundle: Colours, split: Split) -> tuple[list[np.ndarray], np.ndarray]:
    return int8.valid_photos([bundle.shards[split]], colours.TRANSFORM, colours.toys.CLASSES)


@pytest.fixture(autouse=True)
def _fast_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count any speed as a gain: a toy's speed depends on the processor."""
    monkeypatch.setattr(guard, "speed_up", lambda *_: 2.0)


def search(
    bundle: Colours, folder: Path, labels: np.ndarray | None = None, last_resorts: Sequence[Recipe] = ()
) -> find.Outcome:
    photos, truth = pixels(bundle, Split.VALID)
    seen, _ = pixels(bundle, Split.TRAIN)

    def valid() -> Iterator[np.ndarray]:
        return int8.batches(photos, colours.TRANSFORM, 16)

    def calibration() -> Iterator[np.ndarray]:
        return int8.batches(seen, colours.TRANSFORM, 4)

    return find.search(
        bundle.folder / "model.onnx",
        folder,
        find.Photos(calibration, calibration, valid, truth if labels is None else labels),
        int8._readout(bundle.model),
        workers=1,
        recipes=CHEAP,
        last_resorts=last_resorts,
    )


def test_good_int8_is_kept_with_its_accuracies(colour_bundle: Colours, tmp_path: Path) -> None:
    outcome = search(colour_bundle, tmp_path)
    assert outcome.kept is not None
    verdict = outcome.verdict
    assert verdict.kept
    assert verdict.accuracy_float is not None
    assert verdict.accuracy_int8 is not None
    assert verdict.accuracy_int8 >= verdict.accuracy_float - guard.MAX_DROP
    assert verdict.method in {str(recipe) for recipe in CHEAP}
    assert list(verdict.distances or {}) == [verdict.method]
    assert set(verdict.drops or {}) == set(verdict.distances or {})
    assert outcome.kept.logits.shape == (60, 3)
    assert outcome.kept.path.stat().st_size < (colour_bundle.folder / "model.onnx").stat().st_size / 2


def test_int8_that_costs_accuracy_is_dropped_after_the_last_resort(
    colour_bundle: Colours, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []
    _, labels = pixels(colour_bundle, Split.VALID)
    real = find.infer

    def spoilt(graphs: Sequence[Path], *arguments: Any) -> list[np.ndarray]:
        exact, *rounded = real(graphs, *arguments)
        tried.extend(graph.name for graph in graphs[1:])
        return [exact, *map(np.zeros_like, rounded)]

    monkeypatch.setattr(find, "infer", spoilt)
    outcome = search(colour_bundle, tmp_path, labels)
    assert outcome.kept is None
    assert not outcome.verdict.kept
    assert "beyond 0.5 points" in outcome.verdict.reason
    assert {recipe.file_name for recipe in CHEAP} == set(tried)
    assert any(name.endswith("head refitted") for name in outcome.verdict.drops or {})


def test_a_last_resort_is_judged_against_the_same_float_answers(
    colour_bundle: Colours, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, ran = find.infer, []

    def spoilt(graphs: Sequence[Path], *arguments: Any) -> list[np.ndarray]:
        ran.append([graph.name for graph in graphs])
        cheap = {recipe.file_name for recipe in CHEAP}
        found = real(graphs, *arguments)
        return [np.zeros_like(a) if g.name in cheap else a for g, a in zip(graphs, found, strict=True)]

    monkeypatch.setattr(find, "infer", spoilt)
    resort = Recipe(float_last=1)
    outcome = search(colour_bundle, tmp_path, last_resorts=(resort,))
    assert outcome.kept is not None
    assert outcome.kept.recipe == resort
    assert ran[-1] == [resort.file_name]


def test_int8_that_gains_no_time_is_dropped(
    colour_bundle: Colours, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "speed_up", lambda *_: 1.05)
    outcome = search(colour_bundle, tmp_path)
    assert outcome.kept is None
    assert outcome.verdict.reason == "int8 is not sufficiently faster than float32 on this machine"


def test_speed_up_compares_the_graphs(colour_bundle: Colours) -> None:
    graph = colour_bundle.folder / "model.onnx"
    small = np.zeros((1, 3, 64, 64), np.float32)
    assert 0.4 < SPEED_UP(graph, graph, small, rounds=15) < 2.5


@pytest.mark.parametrize(("wrong", "kept"), [(0, True), (1, True), (2, False)])
def test_guard_allows_half_a_point(wrong: int, kept: bool) -> None:
    labels = np.zeros(200, np.int64)
    before = np.tile(np.array([1, 0], np.float32), (200, 1))
    after = before.copy()
    after[:wrong] = [0, 1]
    verdict, chosen = guard.judge([guard.compare(CHEAP[0], after, before, labels)], before, labels)
    assert verdict.kept is kept
    assert (chosen is not None) is kept
    assert verdict.agreement == 1 - wrong / 200


def answers(*wrong: int) -> np.ndarray:
    """Logits of 1,000 photos of class 0, all right but the photos `wrong`."""
    logits = np.tile(np.array([1, 0], np.float32), (1000, 1))
    logits[list(wrong)] = [0, 1]
    return logits


def test_the_comparison_is_paired() -> None:
    labels = np.zeros(1000, np.int64)
    before = answers(*range(100))
    attempt = guard.compare(CHEAP[0], answers(*range(2, 106)), before, labels)
    assert (attempt.lost, attempt.gained) == (6, 2)
    assert attempt.drop == pytest.approx(0.004)
    assert attempt.drop_error == pytest.approx(8**0.5 / 1000, rel=1e-2)
    assert attempt.passes


def test_of_recipes_that_pass_the_nearest_is_kept_not_the_luckiest() -> None:
    labels = np.zeros(1000, np.int64)
    before = answers(*range(10))
    lucky = guard.compare(CHEAP[0], 2 * answers(), before, labels)
    near = guard.compare(CHEAP[1], answers(*range(11)), before, labels)
    failed = guard.compare(Recipe(float_last=1), answers(*range(16)), before, labels)
    verdict, chosen = guard.judge([lucky, near, failed], before, labels)
    assert chosen is near
    assert verdict.drops == {
        str(lucky.recipe): -0.01, str(near.recipe): 0.001, str(failed.recipe): 0.006,
    }  # fmt: skip
    nothing, none = guard.judge([failed], before, labels)
    assert none is None
    assert "16 photos" not in nothing.reason
    assert "6 photos lost, 0 gained of 1000" in nothing.reason


def test_a_linear_error_is_undone_and_noise_is_not_believed() -> None:
    draw = np.random.default_rng(0)
    exact = draw.normal(size=(2000, 6)).astype(np.float32) * 3 + 1
    mixing = np.eye(6) + 0.2 * draw.normal(size=(6, 6))
    rounded = (exact @ mixing + 0.5).astype(np.float32)
    back = refit.fit(rounded[:1500], exact[:1500])
    before, after = (np.abs(values[1500:] - exact[1500:]).mean() for values in (rounded, back(rounded)))
    assert after < before / 2
    few = refit.fit(exact[:20] + draw.normal(size=(20, 6)).astype(np.float32), exact[:20])
    assert np.abs(few.matrix - np.eye(6)).max() < 0.6
    same = refit.fit(exact, exact)
    assert np.allclose(same(exact), exact, atol=1e-4)


@pytest.mark.parametrize("hidden", [False, True])
def test_a_refit_is_folded_into_the_head(colour_bundle: Colours, tmp_path: Path, hidden: bool) -> None:
    backbone = colour_bundle.model.backbone
    head = colours.centroid_head(backbone, colour_bundle.shards[Split.TRAIN], hidden)
    graph = tmp_path / "model.onnx"
    export_onnx(attach_head(backbone, head), 64, graph)
    draw = np.random.default_rng(0)
    noise = 0.02 * draw.normal(size=(backbone.dim, backbone.dim))
    change = Refit(
        (np.eye(backbone.dim) + noise).astype(np.float32), draw.normal(size=backbone.dim).astype(np.float32)
    )
    photos = draw.normal(size=(3, 3, 64, 64)).astype(np.float32)
    embeddings = find.infer([graph], [photos], 1, "features")[0]
    refit.fold(graph, change)
    with torch.no_grad():
        expected = head(torch.from_numpy(change(embeddings))).numpy()
    assert np.allclose(find.infer([graph], [photos], 1)[0], expected, rtol=1e-3, atol=1e-3)


def test_squared_error_of_representable_values_is_zero() -> None:
    values = np.arange(-10, 246, dtype=np.float32)
    assert squared_error(values, -10, 245) == pytest.approx(0, abs=1e-8)
    assert squared_error(values, -10, 100) > 100
    assert squared_error(np.zeros(3, np.float32), 0, 0) == 0


def test_ranges_cut_outliers() -> None:
    sample = np.random.default_rng(0).normal(size=64 * 2048).astype(np.float32)
    sample[:8] = 40
    seen = Activations({"a": float(sample.min())}, {"a": float(sample.max())}, {"a": sample})
    _, high = seen.ranges()["a"]
    assert 3 < high < 30


def test_no_pair_of_weights_can_overflow_16_bits() -> None:
    """Processors without VNNI saturate the sum of two products of bytes."""
    import onnx

    draw = np.random.default_rng(0)
    kernel = draw.normal(size=(8, 5, 3, 3)).astype(np.float32)
    matrix = np.full((6, 4), 0.5, np.float32)
    node = onnx.helper.make_node
    graph = onnx.helper.make_graph(
        [
            node("Conv", ["x", "kernel"], ["y"]),
            node("MatMul", ["z", "matrix"], ["w"]),
            node("Conv", ["x", "grouped"], ["v"], group=2),
        ],
        "g",
        [],
        [],
        [
            onnx.numpy_helper.from_array(values, name)
            for name, values in (("kernel", kernel), ("matrix", matrix), ("grouped", kernel))
        ],
    )
    ranges = quantize.weight_ranges(graph)
    assert set(ranges) == {"kernel", "matrix"}
    ends = np.array([entry["rmax"] for entry in ranges["kernel"]])
    flat = np.round(127 * kernel.transpose(0, 2, 3, 1).reshape(8, 45) / ends[:, None])
    pairs = np.pad(flat, ((0, 0), (0, 1))).reshape(8, -1, 2)
    assert np.abs(flat).max() <= 127
    assert pairs[(pairs > 0).all(2)].sum(1).max() <= 128
    assert (ends >= np.abs(kernel).max((1, 2, 3))).all()
    assert [len(ranges["matrix"]), ranges["matrix"][0]["axis"]] == [4, 1]
    assert ranges["matrix"][3]["rmax"] == 1.0


def test_ends_of_the_backbone_and_the_head_stay_float(colour_bundle: Colours) -> None:
    import onnx

    graph = onnx.load(str(colour_bundle.folder / "model.onnx")).graph
    plain = quantize.excluded_nodes(graph, Recipe())
    ends = quantize.excluded_nodes(graph, Recipe(float_first=2, float_last=1))
    kinds = {node.name: node.op_type for node in graph.node}
    assert {kinds[name] for name in plain} == {"ReduceMean", "Gemm"}
    assert [kinds[name] for name in set(ends) - set(plain)] == ["Conv"] * 3


def test_finetuned_models_are_quantised_from_their_own_graphs(
    colour_bundle: Colours, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With different backbones the reference finds the recipe, and the model's own graph is quantized by it."""
    monkeypatch.setattr(int8, "search", partial(find.search, recipes=CHEAP, last_resorts=()))
    reference = build_backbone(colours.ARCHITECTURE, seed=1)
    other = attach_head(reference, colours.centroid_head(reference, colour_bundle.shards[Split.TRAIN]))
    assert not int8.shares_backbone(colour_bundle.model, other)
    (tmp_path / "model.onnx").write_bytes((colour_bundle.folder / "model.onnx").read_bytes())
    result = int8.make_int8(
        tmp_path,
        colour_bundle.model,
        other,
        colours.card(),
        [colour_bundle.shards[Split.TRAIN]],
        [colour_bundle.shards[Split.VALID]],
    )
    assert result.verdict.kept, result.verdict
    photos, labels = colours.batch(colour_bundle.shards[Split.TEST])
    quantized = open_onnx(tmp_path / "model.int8.onnx", threads=1).run(["logits"], {"input": photos.numpy()})[
        0
    ]
    with torch.no_grad():
        plain = colour_bundle.model(photos).numpy()
    assert (quantized.argmax(1) == plain.argmax(1)).mean() > 0.9
    assert (quantized.argmax(1) == labels).mean() > 0.9
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.int8.onnx", "model.onnx"]


@pytest.mark.parametrize("missing", ["calibration", "validation"])
def test_without_photos_nothing_is_kept_and_the_reason_is_given(
    colour_bundle: Colours, tmp_path: Path, missing: str
) -> None:
    channels = {
        "calibration": [colour_bundle.shards[Split.TRAIN]],
        "validation": [colour_bundle.shards[Split.VALID]],
    }
    channels[missing] = []
    result = int8.make_int8(
        tmp_path, colour_bundle.model, colour_bundle.model, colours.card(), *channels.values()
    )
    assert result.verdict == Verdict(False, f"no {missing} photos were given to judge int8 with", None, 0)
    assert result.logits is None
