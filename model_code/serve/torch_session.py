"""The network in torch: for bundles without ONNX, and for machines without ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from model_code.architectures import ArchitectureError, Classifier
from model_code.export import load_classifier
from model_code.serve.sessions import Floats, SessionError

if TYPE_CHECKING:
    from model_code.card import ModelCard


class TorchSession:
    """The classifier in eager mode, on the GPU where there is one."""

    def __init__(self, path: Path, card: ModelCard, threads: int) -> None:
        torch.set_num_threads(threads)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            classifier: Classifier = load_classifier(path.parent, card)
        except (ArchitectureError, OSError, RuntimeError, ValueError) as broken:
            first = (str(broken).splitlines() or [type(broken).__name__])[0]
            raise SessionError(f"{path.name} does not fit {card.architecture}: {first}") from broken
        # channels_last: oneDNN's and cuDNN's convolutions are fastest on it (about 1.5x for mobilenet_v2 on a CPU).
        self._network = classifier.eval().to(self._device, memory_format=torch.channels_last)

    @property
    def has_features(self) -> bool:
        return self._network.backbone.has_feature_map

    @torch.inference_mode()
    def logits(self, batch: Floats) -> Floats:
        return self._network(self._tensor(batch)).float().cpu().numpy()

    @torch.inference_mode()
    def features(self, batch: Floats) -> tuple[Floats, Floats]:
        if not self.has_features:
            raise SessionError("the network has no feature map that its answer is a mean of")
        maps = self._network.backbone.feature_map(self._tensor(batch))
        logits = self._network.head(maps.mean((2, 3)))
        return logits.float().cpu().numpy(), maps.float().cpu().numpy()

    def _tensor(self, batch: Floats) -> torch.Tensor:
        return torch.from_numpy(batch).to(self._device, memory_format=torch.channels_last)
