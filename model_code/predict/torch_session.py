"""The network in torch: for bundles without ONNX, and for machines without ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from model_code.bundle import archive as bundle
from model_code.networks.backbone import Classifier, attach_head, build_backbone
from model_code.networks.weights import ArchitectureError
from model_code.predict.sessions import Floats, SessionError
from model_code.process.errors import first_line

if TYPE_CHECKING:
    from model_code.bundle.card import ModelCard


class TorchSession:
    """The classifier in eager mode, on the GPU where there is one."""

    def __init__(self, path: Path, card: ModelCard, threads: int) -> None:
        self._threads = threads
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            classifier = load_classifier(path.parent, card)
        except (ArchitectureError, OSError, RuntimeError, ValueError) as broken:
            raise SessionError(
                f"{path.name} does not fit {card.architecture}: {first_line(broken)}"
            ) from broken
        # channels_last is what oneDNN's and cuDNN's convolutions are fastest on.
        self._network = classifier.to(self._device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def has_features(self) -> bool:
        """See `Session`."""
        return bool(self._network.backbone.has_feature_map)

    @torch.inference_mode()
    def logits(self, batch: Floats) -> Floats:
        """See `Session`."""
        return _floats(self._network(self._tensor(batch)))

    @torch.inference_mode()
    def features(self, batch: Floats) -> tuple[Floats, Floats]:
        """See `Session`."""
        if not self.has_features:
            raise SessionError("the network has no feature map that its answer is a mean of")
        maps = self._network.backbone.feature_map(self._tensor(batch))
        return _floats(self._network.head(maps.mean((2, 3)))), _floats(maps)

    def _tensor(self, batch: Floats) -> torch.Tensor:
        # OpenMP keeps the number per calling thread, and the server calls from several.
        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        return torch.from_numpy(batch).to(self._device).to(memory_format=torch.channels_last)


def _floats(tensor: torch.Tensor) -> Floats:
    return tensor.float().cpu().contiguous().numpy()


def load_classifier(directory: Path, card: ModelCard) -> Classifier:
    """Return the classifier of an opened bundle in torch, on the CPU, in eval mode.

    Raises:
        ArchitectureError: the weights do not fit the card's architecture and classes.
    """
    tensors = load_file(directory / bundle.SAFETENSORS)
    classifier = attach_head(build_backbone(card.architecture), _head_like(tensors))
    try:
        classifier.load_state_dict(tensors)
    except RuntimeError as error:
        raise ArchitectureError(f"{bundle.SAFETENSORS} does not fit {card.architecture}: {error}") from error
    return classifier.eval()


def _head_like(tensors: Mapping[str, Tensor]) -> nn.Module:
    """Return an empty head of the shapes that `Head.folded` gives: Linear, or Linear, ReLU, Linear."""
    weights = {
        name: tensor for name, tensor in tensors.items() if name.startswith("head.") and tensor.ndim == 2
    }
    layers = [nn.Linear(tensor.shape[1], tensor.shape[0]) for _, tensor in sorted(weights.items())]
    if set(weights) == {"head.weight"}:
        return layers[0]
    if set(weights) == {"head.0.weight", "head.2.weight"}:
        return nn.Sequential(layers[0], nn.ReLU(), layers[1])
    raise ArchitectureError(
        f"{bundle.SAFETENSORS} holds no head that this release knows, only {sorted(weights)}"
    )
