"""Every architecture splits into backbone and head without changing what it computes."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from model_code.data.transform import Interpolation, Transform, for_architecture
from model_code.embed.forward import Forward, Normalized, OnnxForward, OpenVinoForward, TorchForward
from model_code.networks.backbone import attach_head, build, build_backbone
from model_code.networks.torchvision_compat import import_torchvision, torchvision
from model_code.networks.weights import ArchitectureError, load_state_dict
from tools import timm_recipes

ARCHITECTURES = {
    "mobilenet_v2": (1280, True),
    "mobilenet_v3_small": (1024, False),
    "mobilenet_v3_large": (1280, False),
    "squeezenet1_1": (512, True),
    "resnet18": (512, True),
    "resnet50": (2048, True),
    "efficientnet_b0": (1280, True),
    "efficientnet_v2_s": (1280, True),
    "convnext_tiny": (768, False),
    "regnet_y_400mf": (440, True),
    "swin_t": (768, True),
    "vit_b_16": (768, False),
    "timm:tf_efficientnet_lite0": (1280, True),
    "timm:convnext_atto": (320, False),
    "timm:vit_tiny_patch16_224": (192, False),
}


@pytest.fixture(autouse=True)
def fast_initialisation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Truncated normals take seconds per transformer, and any numbers do here."""
    monkeypatch.setattr(
        torch.nn.init, "trunc_normal_", lambda tensor, *_, **options: tensor.data.normal_(0, 0.02)
    )


def whole_model(architecture: str, path: Path) -> torch.nn.Module:
    """A model of torchvision or timm in eval mode whose weights are in `path`."""
    torch.manual_seed(5)
    model: torch.nn.Module
    if architecture.startswith("timm:"):
        import timm

        model = timm.create_model(architecture.removeprefix("timm:"), pretrained=False).eval()
    else:
        model = torchvision.models.get_model(architecture, weights=None).eval()
    torch.save(model.state_dict(), path)
    return model


def weights_of(architecture: str, folder: Path) -> Path:
    whole_model(architecture, folder / "weights.pth")
    return folder / "weights.pth"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_backbone_and_head_together_are_the_whole_model(architecture: str, tmp_path: Path) -> None:
    dim, has_map = ARCHITECTURES[architecture]
    whole = whole_model(architecture, tmp_path / "weights.pth")
    backbone = build_backbone(architecture, tmp_path / "weights.pth")
    side = 224 if "vit_" in architecture else 64
    photos = torch.randn(2, 3, side, side)
    with torch.inference_mode():
        features = backbone(photos)
        assert features.shape == (2, dim) == (2, backbone.dim)
        assert backbone.has_feature_map is has_map
        if has_map:
            assert torch.allclose(backbone.feature_map(photos).mean((2, 3)), features, atol=1e-6)
        if architecture != "squeezenet1_1":  # its own classifier clips each place of the map at zero
            weight, bias = list(whole.parameters())[-2:]
            logits = torch.nn.functional.linear(features, weight, bias)
            assert torch.allclose(logits, whole(photos), atol=1e-4)
    owned = [id(parameter) for block in backbone.blocks() for parameter in block.parameters]
    assert sorted(owned) == sorted(id(parameter) for parameter in backbone.parameters())


def test_blocks_run_from_input_to_output() -> None:
    assert [block.name for block in build_backbone("resnet18").blocks()] == [
        "conv1", "layer1", "layer2", "layer3", "layer4"
    ]  # fmt: skip
    assert len(build_backbone("mobilenet_v2").blocks()) == 19


def test_a_classifier_has_the_classes_asked_for_and_learns() -> None:
    model = build("mobilenet_v3_small", classes=7, seed=3)
    logits = model(torch.randn(2, 3, 64, 64))
    assert logits.shape == (2, 7)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_same_seed_gives_the_same_network() -> None:
    one, same, other = (build("mobilenet_v3_small", classes=3, seed=seed) for seed in (1, 1, 2))
    states = [
        torch.cat([tensor.flatten() for tensor in model.state_dict().values()])
        for model in (one, same, other)
    ]
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_building_leaves_the_callers_random_numbers_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    build("mobilenet_v3_small", classes=3, seed=9)
    assert torch.equal(torch.rand(1), expected)


def test_an_untrained_backbone_tells_photos_apart() -> None:
    backbone = build_backbone("mobilenet_v2")
    photos = torch.nn.functional.interpolate(torch.randn(4, 3, 6, 6), size=96)
    with torch.inference_mode():
        features = backbone(photos)
    assert features.std(0).mean() > 0.05
    assert features.abs().max() < 100


def test_any_head_can_be_attached() -> None:
    backbone = build_backbone("resnet18")
    model = attach_head(
        backbone, torch.nn.Sequential(torch.nn.Linear(512, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    )
    assert model(torch.randn(1, 3, 64, 64)).shape == (1, 2)
    assert {name.split(".")[0] for name in model.state_dict()} == {"backbone", "head"}


def test_weights_of_another_architecture_say_what_does_not_fit(tmp_path: Path) -> None:
    path = weights_of("mobilenet_v3_small", tmp_path)
    with pytest.raises(ArchitectureError) as caught:
        build_backbone("resnet18", path)
    text = str(caught.value)
    assert "do not fit resnet18" in text
    assert "conv1.weight is not in the file" in text
    assert "more" in text
    with pytest.raises(
        ArchitectureError, match=r"is \[16, 3, 3, 3\] in the file, \[32, 3, 3, 3\] in the model"
    ):
        build_backbone("mobilenet_v2", path)


@pytest.mark.parametrize(
    "kind", ["safetensors", "wrapped", "parallel", "compiled", "averaged", "other classes", "no counters"]
)
def test_weights_come_in_many_wrappings(kind: str, tmp_path: Path) -> None:
    tensors = load_state_dict(weights_of("mobilenet_v3_small", tmp_path))
    path = tmp_path / "other"
    if kind == "safetensors":
        from safetensors.torch import save_file

        save_file(tensors, path)
    elif kind == "wrapped":
        torch.save({"state_dict": tensors, "epoch": 3}, path)
    elif kind == "parallel":
        torch.save({f"module.{name}": tensor for name, tensor in tensors.items()}, path)
    elif kind == "compiled":
        compiled = {f"module._orig_mod.{name}": tensor for name, tensor in tensors.items()}
        torch.save({"model_state_dict": compiled, "epoch": 3}, path)
    elif kind == "averaged":
        averaged = {f"_orig_mod.module.{name}": tensor for name, tensor in tensors.items()}
        torch.save({"n_averaged": torch.tensor(7), **averaged}, path)
    elif kind == "other classes":
        torch.save(
            {**tensors, "classifier.3.weight": torch.zeros(5, 1024), "classifier.3.bias": torch.zeros(5)},
            path,
        )
    else:
        torch.save({name: t for name, t in tensors.items() if "num_batches" not in name}, path)
    photos = torch.randn(1, 3, 64, 64)
    expected = build_backbone("mobilenet_v3_small", tmp_path / "weights.pth")(photos)
    assert torch.equal(build_backbone("mobilenet_v3_small", path)(photos), expected)


def test_what_is_no_weights_file_is_refused_and_never_executed(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("<html>not found</html>")
    with pytest.raises(ArchitectureError, match="not a weights file"):
        load_state_dict(tmp_path / "page.html")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
    with pytest.raises(ArchitectureError, match="not a weights file"):
        load_state_dict(tmp_path / "module.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ArchitectureError, match="holds no state_dict"):
        load_state_dict(tmp_path / "list.pth")


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ArchitectureError, match=r"'resnet19'.*resnet18"):
        build_backbone("resnet19")
    with pytest.raises(ArchitectureError, match=r"'resnet19'.*timm:resnet"):
        build_backbone("timm:resnet19")
    with pytest.raises(ArchitectureError, match="does not end in one linear layer"):
        build_backbone("timm:levit_128s")


def test_the_inputs_of_timms_models_are_those_of_the_installed_release() -> None:
    assert timm_recipes.TARGET.read_text() == timm_recipes.text(), "run python -m tools.timm_recipes"
    lite = for_architecture("timm:tf_efficientnet_lite2")
    assert (lite.crop, lite.mean, lite.interpolation) == (260, (0.5, 0.5, 0.5), Interpolation.BICUBIC)


def test_torchvision_is_imported_once_with_any_torch() -> None:
    assert import_torchvision() is torchvision
    assert torchvision.models.list_models()


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_runtimes_agree_on_embeddings(architecture: str) -> None:
    side = 224 if "vit_" in architecture else 64
    transform = Transform(side, side)
    backbone = build_backbone(architecture)
    pixels = np.random.default_rng(0).integers(0, 256, (3, side, side, 3), np.uint8)
    with torch.inference_mode():
        exact = (
            Normalized(copy.deepcopy(backbone), transform).double().eval()(torch.from_numpy(pixels)).numpy()
        )

    def error(forward: Forward) -> float:
        return float(np.abs(forward(pixels) - exact).max() / np.abs(exact).max())

    # Untrained networks may blow float32's rounding up to a hundredth; another fault would be far larger.
    allowed = 1e-5 + 10 * error(TorchForward(backbone, transform))
    assert error(OpenVinoForward(backbone, transform)) < allowed
    assert error(OnnxForward(backbone, transform)) < allowed
