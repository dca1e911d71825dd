"""mobilenet_v2 in eager torch with torchvision's own preprocessing: what every torch peer runs."""

from __future__ import annotations

import io
import os
from typing import Any

import torch
from PIL import Image

from model_code.networks.torchvision_compat import torchvision


class Classifier:
    """Bytes or tensors to class indices; weights from the file that BENCH_WEIGHTS names."""

    def __init__(self) -> None:
        models = torchvision.models
        self.model = models.mobilenet_v2()
        self.model.load_state_dict(torch.load(os.environ["BENCH_WEIGHTS"], weights_only=True))
        self.model.eval()
        self.preprocess = models.MobileNet_V2_Weights.DEFAULT.transforms()

    def decode(self, photo: bytes) -> Any:
        """A batch of one, [1, 3, 224, 224]."""
        return self.preprocess(Image.open(io.BytesIO(photo)).convert("RGB")).unsqueeze(0)

    def predict(self, batch: Any) -> tuple[int, float]:
        """The best class and its probability."""
        with torch.inference_mode():
            probability, index = self.model(batch).softmax(1).max(1)
        return int(index[0]), float(probability[0])
