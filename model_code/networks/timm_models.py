"""timm's image classifiers (Apache-2.0; the licence of their weights is in each model's card)."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from model_code.hyperparameters.architectures import TIMM, timm_recipe
from model_code.networks import torchvision_compat  # noqa: F401  # timm imports torchvision, which needs this first
from model_code.networks.weights import ArchitectureError


def build(architecture: str) -> nn.Module:
    """Build a model of timm by its name with the prefix `timm:`; its weights are drawn.

    Raises:
        ArchitectureError: timm is not installed, has no such model, or its answer is no single linear layer.
    """
    try:
        timm_recipe(architecture)
        from timm import create_model
    except ValueError as error:
        raise ArchitectureError(str(error)) from error
    except ModuleNotFoundError as error:
        raise ArchitectureError(f"{architecture} needs timm: pip install 'model-code[timm]'") from error
    network = cast(
        nn.Module, create_model(architecture.removeprefix(TIMM), pretrained=False, exportable=True)
    )
    if not isinstance(_classifier(network), nn.Linear):
        raise ArchitectureError(
            f"{architecture} does not end in one linear layer: choose another architecture"
        )
    return network


def head_name(network: nn.Module) -> str:
    """Return the name of the last linear layer, as in the state_dict."""
    classifier = _classifier(network)
    return next(name for name, module in network.named_modules() if module is classifier)


def remove_head(network: nn.Module) -> int:
    """Make `network` answer with its embedding; returns the numbers in one."""
    dim = _classifier(network).in_features
    network.set_submodule(head_name(network), nn.Identity())
    return cast(int, dim)


def feature_map(network: nn.Module, photos: Tensor) -> Tensor:
    """Activations [n, dim, h, w] before pooling."""
    return cast(Any, network).forward_features(photos)


def pools_its_map(network: nn.Module, side: int) -> bool:
    """Tell whether the embedding of a network without head is the spatial mean of `feature_map`."""
    noise = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found, embedding = feature_map(network, noise), network(noise)
    return (
        found.ndim == 4
        and found.shape[:2] == embedding.shape
        and torch.allclose(found.mean((2, 3)), embedding, atol=1e-5, rtol=1e-4)
    )


def _classifier(network: nn.Module) -> Any:
    return cast(Any, network).get_classifier()
