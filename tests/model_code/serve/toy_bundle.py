"""A toy model to the bundle's contract: it knows red, green and blue by the mean colour, so every answer is plain to see.

logits[c] = 8 * mean(channel c), features = the photo pooled to 4 x 4, all of it an ONNX graph of four nodes.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from safetensors.numpy import save_file

from model_code.bundle import pack, write_card
from model_code.transform import Transform

CLASSES = ("red", "green", "blue")
SIDE = 32
TRANSFORM = Transform(resize=SIDE, crop=SIDE, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
GAIN = 8.0
TEMPERATURE = 2.0


def photo(
    colour: str | tuple[int, int, int] = "red", size: tuple[int, int] = (48, 40), kind: str = "JPEG"
) -> bytes:
    """An encoded photo of one colour (PIL's names)."""
    return encode(Image.new("RGB", size, colour), kind)


def encode(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    """The image as a file of that kind."""
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def probabilities(red: float, green: float, blue: float) -> list[float]:
    """What the toy answers for a photo of that mean colour (0..1)."""
    scaled = np.exp(GAIN * np.array([red, green, blue]) / TEMPERATURE)
    return [float(p) for p in scaled / scaled.sum()]


def network(head: np.ndarray, features: bool = True) -> onnx.ModelProto:
    """The graph: pool to 4 x 4 (features), average, head [classes, 3]."""
    floats = TensorProto.FLOAT
    outputs = [helper.make_tensor_value_info("logits", floats, ["n", len(CLASSES)])]
    if features:
        outputs.append(helper.make_tensor_value_info("features", floats, ["n", 3, 4, 4]))
    stride = SIDE // 4
    nodes = [
        helper.make_node(
            "AveragePool", ["input"], ["features"], kernel_shape=[stride] * 2, strides=[stride] * 2
        ),
        helper.make_node("GlobalAveragePool", ["features"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "head"], ["logits"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("input", floats, ["n", 3, SIDE, SIDE])],
        outputs,
        [numpy_helper.from_array(head.astype(np.float32), "head")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.checker.check_model(model)
    return model


def write_toy(
    directory: Path,
    *,
    int8: bool = True,
    int8_head: np.ndarray | None = None,
    float_head: np.ndarray | None = None,
    features: bool = True,
    runtimes: tuple[str, ...] | None = None,
    golden: bool = True,
    abstain_threshold: float = 0.5,
) -> Path:
    """Write an unpacked toy bundle; a head other than the true one makes that runtime contradict the golden outputs."""
    directory.mkdir(parents=True, exist_ok=True)
    true_head = GAIN * np.eye(3)
    onnx.save(
        network(true_head if float_head is None else float_head, features), str(directory / "model.onnx")
    )
    if int8:
        onnx.save(
            network(true_head if int8_head is None else int8_head, features),
            str(directory / "model.int8.onnx"),
        )
    save_file({"head.weight": true_head.astype(np.float32)}, directory / "model.safetensors")
    examples = [("red", (1, 0, 0)), ("lime", (0, 1, 0)), ("blue", (0, 0, 1))]
    write_card(
        directory,
        {
            "name": "toy",
            "architecture": "toy",
            "classes": list(CLASSES),
            "transform": TRANSFORM.to_dict(),
            "temperature": TEMPERATURE,
            "abstain_threshold": abstain_threshold,
            "metrics": {},
            "hyperparameters": {},
            "dataset": {"name": "colours", "version": "c0ffee"},
            "code_version": "test",
            "embedder_id": None,
            "weights_sha256": None,
            "runtimes": list(runtimes or (("onnx-int8", "onnx") if int8 else ("onnx",))),
            "golden": [
                {
                    "photo": base64.b64encode(photo(name, kind="PNG")).decode(),
                    "probabilities": probabilities(*colour),
                    "runtime": {"onnx-int8": probabilities(*colour)} if int8 else {},
                }
                for name, colour in examples
                if golden
            ],
        },
    )
    return directory


def write_toy_archive(directory: Path, **options: Any) -> Path:
    """The toy as `model.tar.gz`."""
    archive = directory / "model.tar.gz"
    pack(write_toy(directory / "bundle", **options), archive)
    return archive
