"""An exported model answers as the trained one does, in every runtime."""

from __future__ import annotations

import base64
import builtins
import io
import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from PIL import Image

import model_code
from model_code.bundle.archive import Bundle
from model_code.data.shards import Split, read_shard
from model_code.data.transform import Transform
from model_code.export import assemble as export
from model_code.export import golden
from model_code.export.onnx_graph import export_onnx, has_features
from model_code.networks.backbone import attach_head, build, build_backbone
from model_code.networks.head import Head
from model_code.networks.weights import ArchitectureError
from model_code.predict import torch_session
from model_code.predict.calibration import probabilities
from model_code.predict.predictor import Predictor
from model_code.process.onnx import open_onnx
from tests.model_code import colours
from tests.model_code.colours import Colours
from tests.model_code.networks.test_backbone import ARCHITECTURES

SCHEMAS = Path(model_code.__file__).parent / "schemas"


def test_bundle_holds_what_the_contract_says(colour_bundle: Colours) -> None:
    document = json.loads((colour_bundle.folder / "model.json").read_text())
    jsonschema.validate(document, json.loads((SCHEMAS / "model.schema.json").read_text()))
    files = set(document["files"])
    assert {
        "model.safetensors",
        "model.onnx",
        "code/model_code/train/__main__.py",
        "code/model_code/schemas/model.schema.json",
    } <= files
    assert document["runtimes"][-2:] == ["onnx", "torch"]
    assert ("model.int8.onnx" in files) == (document["runtimes"][0] == "onnx-int8")
    assert document["metrics"]["history"] == colours.card()["metrics"]["history"]
    assert document["metrics"]["int8"]["reason"]
    assert not any("pyc" in name or name.endswith((".pt", ".pkl")) for name in files)


def test_no_machine_path_and_no_stack_trace_in_the_graph(colour_bundle: Colours) -> None:
    content = (colour_bundle.folder / "model.onnx").read_bytes()
    assert str(Path(model_code.__file__).parent).encode() not in content
    assert b"stack_trace" not in content


def test_golden_photos_are_small_and_their_outputs_repeat(colour_bundle: Colours) -> None:
    card = Bundle.open(colour_bundle.folder).card
    assert len(card.golden) == golden.GOLDEN_PHOTOS
    photos = [base64.b64decode(item.photo) for item in card.golden]
    assert max(map(len, photos)) < 10_000
    answers = Predictor.open(colour_bundle.folder, runtime="onnx", threads=1).predict(photos)
    assert np.abs(answers - np.array([item.probabilities for item in card.golden])).max() < 1e-5


def test_training_path_and_served_path_give_the_same_probabilities(colour_bundle: Colours) -> None:
    """Training: transform, torch module, softmax over the temperature. Serving: bytes in, answer out."""
    samples = list(read_shard(colour_bundle.shards[Split.TEST]))
    batch = torch.from_numpy(np.stack([colours.TRANSFORM(sample.data) for sample in samples]))
    with torch.no_grad():
        logits = colour_bundle.model(batch).numpy()
    photos = [sample.data for sample in samples]
    for runtime, tolerance in (("torch", 1e-5), ("onnx", 1e-5)):
        predictor = Predictor.open(colour_bundle.folder, runtime=runtime, threads=1)
        assert predictor.runtime == runtime
        expected = probabilities(logits, predictor.card.temperature)
        assert np.abs(predictor.predict(photos) - expected).max() < tolerance


def test_torch_onnx_and_int8_agree_on_the_same_bytes(colour_bundle: Colours) -> None:
    """Float runtimes to 1e-5 in probability; int8 in class for 95 % of photos, and to 0.15 in the mean probability."""
    samples = list(read_shard(colour_bundle.shards[Split.TEST]))
    photos = [sample.data for sample in samples]
    answers = {
        runtime: Predictor.open(colour_bundle.folder, runtime=runtime, threads=1).predict(photos)
        for runtime in ("torch", "onnx", "onnx-int8")
    }
    assert np.abs(answers["torch"] - answers["onnx"]).max() < 1e-5
    assert (answers["onnx-int8"].argmax(1) == answers["onnx"].argmax(1)).mean() >= 0.95
    assert np.abs(answers["onnx-int8"] - answers["onnx"]).mean() < 0.15
    truth = [colours.toys.CLASSES.index(sample.label) for sample in samples]
    assert (answers["onnx-int8"].argmax(1) == truth).mean() > 0.9


def test_served_temperature_is_that_of_the_served_runtime(colour_bundle: Colours) -> None:
    card = Bundle.open(colour_bundle.folder).card
    assert card.runtimes[0] == "onnx-int8"
    assert card.temperature != 1.3
    fallen_back = Predictor.open(colour_bundle.folder, runtime="onnx", threads=1)
    assert (fallen_back.card.temperature, fallen_back.card.abstain_threshold) == (1.3, 0.4)
    preferred = Predictor.open(colour_bundle.folder, threads=1)
    assert preferred.card.temperature == card.temperature
    photo = next(iter(read_shard(colour_bundle.shards[Split.TEST]))).data
    expected = probabilities(fallen_back.logits([photo]), 1.3)
    assert np.abs(fallen_back.predict([photo]) - expected).max() < 1e-5


def test_features_times_head_give_the_logits(colour_bundle: Colours) -> None:
    """Class-activation maps rely on this, in the graph as exported."""
    runtime = open_onnx(colour_bundle.folder / "model.onnx", threads=1)
    for count in (1, 5):  # a dynamic batch
        photos = np.random.default_rng(0).normal(size=(count, 3, 64, 64)).astype(np.float32)
        logits, features = runtime.run(["logits", "features"], {"input": photos})
        head: Any = colour_bundle.model.head
        again = features.mean((2, 3)) @ head.weight.detach().numpy().T + head.bias.detach().numpy()
        assert np.allclose(again, logits, atol=1e-3)


@pytest.mark.parametrize("hidden", [0, 8])
def test_heads_with_and_without_a_hidden_layer_survive_the_round_trip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hidden: int
) -> None:
    monkeypatch.setattr(export, "export_onnx", _missing_onnx)
    backbone = build_backbone("squeezenet1_1")
    head = Head(torch.randn(512), torch.rand(512) + 0.5, 3, hidden=hidden).eval()
    torch.nn.init.normal_(head.output.weight, std=0.01)
    model = attach_head(backbone, head)
    _export(tmp_path / "model", model)
    opened = Bundle.open(tmp_path / "model")
    loaded = torch_session.load_classifier(opened.directory, opened.card)
    photos = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(loaded(photos), model(photos), atol=1e-4)


def _missing_onnx(*_: Any) -> None:
    raise ModuleNotFoundError("No module named 'onnxscript'", name="onnxscript")


def _export(folder: Path, model: torch.nn.Module, **changes: Any) -> None:
    export.export_bundle(
        output=folder,
        model=model,
        reference_model=model,
        card=colours.card(**changes),
        calibration_shards=[],
        valid_shards=[],
    )


def test_without_onnx_the_bundle_holds_the_weights_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real_import = builtins.__import__

    def without(name: str, *arguments: Any, **keywords: Any) -> Any:
        if name.split(".")[0] in ("onnx", "onnxscript"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real_import(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    _export(tmp_path / "model", build("squeezenet1_1", 3))
    card = Bundle.open(tmp_path / "model").card
    assert card.runtimes == ("torch",)
    assert "onnx is not installed here" in capsys.readouterr().out
    assert len(card.golden) == golden.GOLDEN_PHOTOS  # drawn, because there was no calibration shard


def test_leftovers_of_an_interrupted_export_are_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "export_onnx", _missing_onnx)
    folder = tmp_path / "model"
    (folder / "code").mkdir(parents=True)
    (folder / "code" / "old.py").write_text("old")
    (folder / "model.int8.onnx").write_bytes(b"half a file")
    (folder / "model.json").write_text("{")
    _export(folder, build("squeezenet1_1", 3))
    card = Bundle.open(folder).card
    assert "code/old.py" not in card.files
    assert "model.int8.onnx" not in card.files


def test_network_without_a_feature_map_exports_logits_alone(tmp_path: Path) -> None:
    _check_graph(
        torch.nn.Sequential(torch.nn.Conv2d(3, 4, 62), torch.nn.Flatten(), torch.nn.Linear(36, 3)), tmp_path
    )


# The small one of timm stands for vit_b_16, which takes two minutes.
@pytest.mark.slow
@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES.keys() - {"vit_b_16"}))
def test_every_architecture_is_served_in_every_runtime(tmp_path: Path, architecture: str) -> None:
    side = 224 if "vit_" in architecture else 64
    exported = colours.export(tmp_path, architecture, Transform(side, side), per_class=(6, 4, 4))
    card = Bundle.open(exported.folder).card
    assert "onnx" in card.runtimes
    assert "quantization failed" not in card.metrics["int8"]["reason"]
    photos = [sample.data for sample in read_shard(exported.shards[Split.TEST])]
    answers = {
        runtime: Predictor.open(exported.folder, runtime=runtime, threads=1).predict(photos)
        for runtime in card.runtimes
    }
    assert np.abs(answers["onnx"] - answers["torch"]).max() < export.AGREEMENT
    if "onnx-int8" in answers:
        # Far more often than by chance (a third); an untrained network tells these photos apart by little.
        assert (answers["onnx-int8"].argmax(1) == answers["torch"].argmax(1)).mean() > 0.7


def _check_graph(model: torch.nn.Module, tmp_path: Path) -> None:
    export_onnx(model, 64, tmp_path / "model.onnx")
    runtime = open_onnx(tmp_path / "model.onnx", threads=1)
    expected = ["logits", "features"] if has_features(model) else ["logits"]
    assert [output.name for output in runtime.get_outputs()] == expected
    photos = np.random.default_rng(0).normal(size=(3, 3, 64, 64)).astype(np.float32)
    with torch.no_grad():
        logits = model(torch.from_numpy(photos)).numpy()
    # Untrained networks answer with tens, and float32 itself errs by a few parts in 10,000 of that (against float64).
    difference = np.abs(runtime.run(["logits"], {"input": photos})[0] - logits).max()
    assert difference < 5e-4 * max(1.0, np.abs(logits).max())


def test_weights_of_another_architecture_are_refused(colour_bundle: Colours, tmp_path: Path) -> None:
    card = Bundle.open(colour_bundle.folder).card
    with pytest.raises(ArchitectureError, match="does not fit resnet18"):
        torch_session.load_classifier(colour_bundle.folder, _as(card, "resnet18"))


def _as(card: Any, architecture: str) -> Any:
    import dataclasses

    return dataclasses.replace(card, architecture=architecture)


def test_drawn_golden_photos_are_photos() -> None:
    for photo in golden.golden_photos([]):
        with Image.open(io.BytesIO(photo)) as image:
            assert image.size == (golden.GOLDEN_SIDE, golden.GOLDEN_SIDE)
