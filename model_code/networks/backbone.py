"""Any classifier of torchvision or timm as a backbone (photo to embedding) and a head (embedding to logits)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from model_code.data.transform import for_architecture
from model_code.hyperparameters.architectures import TIMM
from model_code.networks import timm_models
from model_code.networks.torchvision_compat import torchvision
from model_code.networks.weights import MODEL_HEAD, ArchitectureError, load_state_dict

_NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)
_SHOWN = 8


class Block(NamedTuple):
    """A unit of fine-tuning, named after its first module."""

    name: str
    modules: tuple[nn.Module, ...]
    parameters: tuple[nn.Parameter, ...]


class Backbone(nn.Module):
    """A classifier without its last linear layer.

    Args:
        architecture: torchvision's name, or `timm:` and timm's.
        network: The module without its last linear layer.
        dim: Numbers per embedding.
        trunk: Gives the activations [n, dim, h, w] whose spatial mean is the embedding, where the
            architecture has such.
    """

    def __init__(
        self,
        architecture: str,
        network: nn.Module,
        dim: int,
        trunk: Callable[[nn.Module, Tensor], Tensor] | None,
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.dim = dim
        self.network = network
        self._trunk = trunk

    @property
    def has_feature_map(self) -> bool:
        """True where a linear head on this backbone has an exact class-activation map."""
        return self._trunk is not None

    def feature_map(self, photos: Tensor) -> Tensor:
        """Normalized photos [n, 3, h, w] to activations [n, dim, h', w'] whose spatial mean is the embedding.

        Raises:
            ArchitectureError: `has_feature_map` is false.
        """
        if self._trunk is None:
            raise ArchitectureError(
                f"{self.architecture} has no feature map that its embedding is the mean of"
            )
        return self._trunk(self.network, photos)

    def forward(self, photos: Tensor) -> Tensor:
        """Normalized photos [n, 3, h, w] to embeddings [n, dim]."""
        if self._trunk is not None:
            return self._trunk(self.network, photos).mean((2, 3))
        return self.network(photos)

    def blocks(self) -> list[Block]:
        """Return the backbone from input to output in units of fine-tuning; every parameter is in exactly one."""
        groups: list[tuple[str, list[nn.Module]]] = []
        for name, module in _units(self.network):
            if not any(True for _ in module.parameters()):
                continue
            if groups and _is_norm(module):
                groups[-1][1].append(module)
            else:
                groups.append((name, [module]))
        blocks = [Block(name, tuple(group), _parameters(group)) for name, group in groups]
        owned = {id(p) for block in blocks for p in block.parameters}
        loose = tuple(p for p in self.network.parameters() if id(p) not in owned)  # class token, positions
        if loose:
            blocks[0] = blocks[0]._replace(parameters=loose + blocks[0].parameters)
        return blocks


class Classifier(nn.Module):
    """A backbone with a head: normalized photos [n, 3, h, w] to logits [n, classes]."""

    def __init__(self, backbone: Backbone, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, photos: Tensor) -> Tensor:
        """Logits [n, classes], before temperature."""
        return self.head(self.backbone(photos))


def attach_head(backbone: Backbone, head: nn.Module) -> Classifier:
    """Return the whole classifier of a backbone and a head that takes [n, dim]."""
    return Classifier(backbone, head)


def build(
    architecture: str, classes: int | None = None, weights: Path | None = None, seed: int = 0
) -> Backbone | Classifier:
    """Build a backbone (`classes` None), or a classifier with a fresh linear head for `classes` classes.

    See `build_backbone` for the rest.
    """
    backbone = build_backbone(architecture, weights, seed)
    if classes is None:
        return backbone
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 1)
        return attach_head(backbone, nn.Linear(backbone.dim, classes))


def build_backbone(architecture: str, weights: Path | None = None, seed: int = 0) -> Backbone:
    """Build a classification model by name, without its last linear layer, in eval mode.

    Args:
        architecture: torchvision's name, or `timm:` and timm's.
        weights: A state_dict file of the whole model (`load_state_dict`), or None: drawn from `seed`.
        seed: Of untrained weights.

    Raises:
        ArchitectureError: The name is unknown, the weights do not fit, or the model has no linear classifier.
    """
    is_timm = architecture.startswith(TIMM)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = timm_models.build(architecture) if is_timm else _torchvision_model(architecture)
    head = timm_models.head_name(network) if is_timm else _head_name(network)
    side = for_architecture(architecture).crop
    if weights is not None:
        _load(architecture, network, load_state_dict(weights), weights, head)
    else:
        _settle_norms(network, side, seed)
    _drop_auxiliary(network)
    network.eval()
    if is_timm:
        dim = timm_models.remove_head(network)
        pooled = timm_models.pools_its_map(network, side)
        return Backbone(architecture, network, dim, timm_models.feature_map if pooled else None).eval()
    trunk = _trunk_of(network)
    if trunk is not None:
        dim = _drop_head(network)
    else:
        path, linear = _last_linear(architecture, network)
        dim = linear.in_features
        network.set_submodule(path, nn.Identity())
    return Backbone(architecture, network, dim, trunk).eval()


def _torchvision_model(architecture: str) -> nn.Module:
    models = torchvision.models
    names = models.list_models(module=models)
    if architecture not in names:
        raise ArchitectureError(
            f"torchvision has no classification model {architecture!r}; it has {', '.join(names)}"
        )
    return models.get_model(architecture, weights=None)


def _settle_norms(network: nn.Module, side: int, seed: int) -> None:
    """Give the batch norms of an untrained network the statistics of cloudy noise.

    With their initial statistics, activations fade from layer to layer until every photo has the same
    embedding.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    draw = torch.Generator().manual_seed(seed)
    clouds = functional.interpolate(torch.randn(4, 3, 8, 8, generator=draw), size=side, mode="bilinear")
    noise = clouds + 0.2 * torch.randn(4, 3, side, side, generator=draw)
    network.eval()
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0  # the running statistics become those of this one batch
    with torch.no_grad():
        network(noise)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.eval()
        norm.momentum = momentum


def _load(architecture: str, network: nn.Module, tensors: dict[str, Tensor], path: Path, last: str) -> None:
    """Copy `tensors` into `network`; only the `last` linear layer, replaced anyway, may differ or lack."""
    own = network.state_dict()
    head = (f"{last}.weight", f"{last}.bias")
    shapes = [
        f"{name} is {list(tensors[name].shape)} in the file, {list(tensor.shape)} in the model"
        for name, tensor in own.items()
        if name in tensors and tensors[name].shape != tensor.shape and name not in head
    ]
    missing = [f"{name} is not in the file" for name in own if name not in tensors and _is_needed(name, head)]
    unexpected = [
        f"{name} is not in the model" for name in tensors if name not in own and not _is_auxiliary(name)
    ]
    problems = shapes + missing + unexpected
    if problems:
        more = f"\n  and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise ArchitectureError(
            f"the weights in {path} do not fit {architecture}; choose the architecture they belong to:\n  "
            + "\n  ".join(problems[:_SHOWN])
            + more
        )
    fitting = {
        name: tensors[name] for name, t in own.items() if name in tensors and tensors[name].shape == t.shape
    }
    network.load_state_dict(fitting, strict=False)


def _is_needed(name: str, head: tuple[str, ...]) -> bool:
    # Counters of batch norm are not used in inference; old files lack them.
    return name not in head and not name.endswith("num_batches_tracked") and not _is_auxiliary(name)


def _is_auxiliary(name: str) -> bool:
    return name.startswith(("aux1.", "aux2.", "AuxLogits.", f"{MODEL_HEAD}."))


def _head_name(network: nn.Module) -> str:
    if isinstance(network, torchvision.models.SqueezeNet):
        return "classifier.1"
    return _last_linear(type(network).__name__, network)[0]


def _drop_auxiliary(network: nn.Module) -> None:
    """Remove the side heads with which GoogLeNet and Inception answer during training."""
    if isinstance(network, torchvision.models.GoogLeNet):
        network.aux1 = network.aux2 = None
        network.aux_logits = False
    elif isinstance(network, torchvision.models.Inception3):
        network.AuxLogits = None
        network.aux_logits = False


def _last_linear(architecture: str, network: nn.Module) -> tuple[str, nn.Linear]:
    linears = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not linears:
        raise ArchitectureError(f"{architecture} has no linear layer to replace")
    return linears[-1]


def _resnet(network: Any, x: Tensor) -> Tensor:
    x = network.maxpool(network.relu(network.bn1(network.conv1(x))))
    return network.layer4(network.layer3(network.layer2(network.layer1(x))))


def _regnet(network: Any, x: Tensor) -> Tensor:
    return network.trunk_output(network.stem(x))


def _features(network: Any, x: Tensor) -> Tensor:
    return network.features(x)


def _densenet(network: Any, x: Tensor) -> Tensor:
    return functional.relu(network.features(x))


def _swin(network: Any, x: Tensor) -> Tensor:
    return network.permute(network.norm(network.features(x)))


def _mnasnet(network: Any, x: Tensor) -> Tensor:
    return network.layers(x)


def _shufflenet(network: Any, x: Tensor) -> Tensor:
    x = network.maxpool(network.conv1(x))
    return network.conv5(network.stage4(network.stage3(network.stage2(x))))


# Families whose classifier is global average pooling and one linear layer: their activations before pooling
# explain the answer.
_TRUNKS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "DenseNet": _densenet,
    "EfficientNet": _features,
    "MNASNet": _mnasnet,
    "MobileNetV2": _features,
    "RegNet": _regnet,
    "ResNet": _resnet,
    "ShuffleNetV2": _shufflenet,
    "SqueezeNet": _features,
    "SwinTransformer": _swin,
}


def _trunk_of(network: nn.Module) -> Callable[[nn.Module, Tensor], Tensor] | None:
    return _TRUNKS.get(type(network).__name__)


def _drop_head(network: nn.Module) -> int:
    """Remove the classifier of a network with a trunk; returns its input size."""
    for name in ("fc", "classifier", "head"):
        head = getattr(network, name, None)
        if isinstance(head, nn.Module):
            first = next(m for m in head.modules() if isinstance(m, nn.Linear | nn.Conv2d))
            setattr(network, name, nn.Identity())
            return first.in_features if isinstance(first, nn.Linear) else first.in_channels
    raise ArchitectureError(f"{type(network).__name__} has no classifier")


def _units(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Direct children, with plain sequences (and ViT's encoder) opened up; a ResNet's stages stay whole."""
    for name, child in network.named_children():
        if type(child) is nn.Sequential and not re.fullmatch(r"(layer|stage)\d", name):
            yield from ((f"{name}.{inner}", module) for inner, module in child.named_children())
        elif name in ("encoder", "trunk_output"):
            yield from ((f"{name}.{inner}", module) for inner, module in _units(child))
        else:
            yield name, child


def _is_norm(module: nn.Module) -> bool:
    return all(
        isinstance(leaf, _NORMS) for leaf in module.modules() if not any(True for _ in leaf.children())
    )


def _parameters(modules: list[nn.Module]) -> tuple[nn.Parameter, ...]:
    return tuple(parameter for module in modules for parameter in module.parameters())
