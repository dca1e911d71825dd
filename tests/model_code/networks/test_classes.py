from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from model_code.networks.backbone import build, build_backbone
from model_code.networks.classes import ClassRows, assign_rows, pretrained_rows
from model_code.networks.torchvision_compat import torchvision


@pytest.mark.parametrize("architecture", ["mobilenet_v2", "squeezenet1_1", "resnet18", "mobilenet_v3_small"])
def test_the_last_layer_of_a_weights_file_is_found(architecture: str, tmp_path: Path) -> None:
    model = torchvision.models.get_model(architecture, weights=None, num_classes=7)
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    rows = pretrained_rows(tmp_path / "weights.pth", build_backbone(architecture).dim)
    assert rows is not None
    *_, weight, bias = model.parameters()
    assert torch.equal(rows.weight, weight.flatten(1))
    assert torch.equal(rows.bias, bias)


def test_a_model_of_this_project_is_a_weights_file_with_its_head_as_rows(tmp_path: Path) -> None:
    model = build("squeezenet1_1", classes=3, seed=5)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    photos = torch.rand(2, 3, 64, 64)
    backbone = build_backbone("squeezenet1_1", tmp_path / "model.safetensors")
    rows = pretrained_rows(tmp_path / "model.safetensors", backbone.dim)
    assert rows is not None
    with torch.no_grad():
        torch.testing.assert_close(rows(backbone(photos)), model(photos))


def test_weights_without_a_classifier_bring_no_rows(tmp_path: Path) -> None:
    model = torchvision.models.get_model("resnet18", weights=None)
    tensors = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("fc.")}
    torch.save(tensors, tmp_path / "weights.pth")
    assert pretrained_rows(tmp_path / "weights.pth", 512) is None


def test_a_class_that_the_weights_know_takes_its_own_row() -> None:
    pretrained = ClassRows(4 * torch.eye(5), torch.arange(5.0))
    labels = torch.tensor([0, 1, 0, 1])
    photos = 8 * torch.eye(5)[[3, 1, 3, 1]]
    rows = assign_rows(pretrained, photos, labels, 2)
    torch.testing.assert_close(rows.weight, pretrained.weight[[3, 1]], atol=1e-3, rtol=0)
    torch.testing.assert_close(rows.bias, pretrained.bias[[3, 1]], atol=1e-3, rtol=0)


def test_a_class_without_photos_is_no_error() -> None:
    rows = assign_rows(ClassRows(torch.eye(3), torch.zeros(3)), torch.eye(3), torch.tensor([0, 0, 2]), 3)
    assert torch.isfinite(rows.weight).all()
