"""A toy model to the bundle's contract: it names a photo's mean colour, so every answer is plain to see.

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

from model_code.bundle.archive import pack, write_card
from model_code.data.transform import Transform

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
    """Encode the image as a file of that kind."""
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def probabilities(red: float, green: float, blue: float) -> list[float]:
    """Return the toy's answer for a photo of that mean color (0..1)."""
    scaled = np.exp(GAIN * np.array([red, green, blue]) / TEMPERATURE)
    return [float(p) for p in scaled / scaled.sum()]


def network(
    head: np.ndarray, features: bool = True, slow: bool = False, hangs: bool = False
) -> onnx.ModelProto:
    """Build the graph: pool to 4 x 4 (features), average, head [classes, 3].

    Args:
        head: Weights of the last layer, [classes, 3].
        features: Make the pooled features an output too.
        slow: Add some 5 GFLOP per photo, whose result is discarded.
        hangs: Loop without end on a photo that is bright in all channels.
    """
    floats = TensorProto.FLOAT
    outputs = [helper.make_tensor_value_info("logits", floats, ["n", len(CLASSES)])]
    if features:
        outputs.append(helper.make_tensor_value_info("features", floats, ["n", 3, 4, 4]))
    stride = SIDE // 4
    constants = {"head": head.astype(np.float32)}
    nodes = [
        helper.make_node(
            "AveragePool", ["input"], ["features"], kernel_shape=[stride, stride], strides=[stride, stride]
        ),
        helper.make_node("GlobalAveragePool", ["features"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "head"], ["colours" if slow or hangs else "logits"], transB=1),
    ]
    if slow:
        constants |= {
            "scales": np.array([1, 1, 8, 8], np.float32),
            "wide": np.ones((64, 3, 3, 3), np.float32),
            "deep": np.ones((64, 64, 3, 3), np.float32),
            "nothing": np.zeros((64, len(CLASSES)), np.float32),
        }
        nodes += [
            helper.make_node("Resize", ["input", "", "scales"], ["large"], mode="nearest"),
            helper.make_node("Conv", ["large", "wide"], ["first"]),
            helper.make_node("Conv", ["first", "deep"], ["second"]),
            helper.make_node("GlobalAveragePool", ["second"], ["work"]),
            helper.make_node("Flatten", ["work"], ["worked"]),
            helper.make_node("MatMul", ["worked", "nothing"], ["zero"]),
            helper.make_node("Add", ["colours", "zero"], ["logits"]),
        ]
    if hangs:
        constants |= {"grey": np.array(0.5, np.float32), "long": np.array(1e18, np.float32)}
        nodes += [
            helper.make_node("ReduceMin", ["flat"], ["darkest"], keepdims=0),
            helper.make_node("Sub", ["darkest", "grey"], ["excess"]),
            helper.make_node("Relu", ["excess"], ["some"]),
            helper.make_node("Mul", ["some", "long"], ["many"]),
            helper.make_node("Cast", ["many"], ["rounds"], to=TensorProto.INT64),
            helper.make_node("Loop", ["rounds", "", "colours"], ["logits"], body=_idle_round()),
        ]
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("input", floats, ["n", 3, SIDE, SIDE])],
        outputs,
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.checker.check_model(model)
    return model


def _idle_round() -> onnx.GraphProto:
    """The body of an ONNX Loop that hands on what it is given."""
    yes = helper.make_tensor_value_info("yes", TensorProto.BOOL, [])
    number = helper.make_tensor_value_info("number", TensorProto.INT64, [])
    given, kept = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", len(CLASSES)])
        for name in ("given", "kept")
    )
    still = helper.make_tensor_value_info("still", TensorProto.BOOL, [])
    nodes = [
        helper.make_node("Identity", ["given"], ["kept"]),
        helper.make_node("Identity", ["yes"], ["still"]),
    ]
    return helper.make_graph(nodes, "round", [number, yes, given], [still, kept])


def write_toy(
    directory: Path,
    *,
    int8: bool = True,
    int8_head: np.ndarray | None = None,
    float_head: np.ndarray | None = None,
    features: bool = True,
    runtimes: tuple[str, ...] | None = None,
    golden: bool = True,
    slow: bool = False,
    hangs: bool = False,
    abstain_threshold: float = 0.5,
    classes: tuple[str, str, str] = CLASSES,
) -> Path:
    """Write an unpacked toy bundle.

    With a head other than the true one, a runtime contradicts the golden outputs.
    """
    directory.mkdir(parents=True, exist_ok=True)
    true_head = GAIN * np.eye(3)
    heads = {"model.onnx": float_head} | ({"model.int8.onnx": int8_head} if int8 else {})
    for name, head in heads.items():
        onnx.save(network(true_head if head is None else head, features, slow, hangs), str(directory / name))
    save_file({"head.weight": true_head.astype(np.float32)}, directory / "model.safetensors")
    examples = [("red", (1, 0, 0)), ("lime", (0, 1, 0)), ("blue", (0, 0, 1))]
    write_card(
        directory,
        {
            "name": "toy",
            "architecture": "toy",
            "classes": list(classes),
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
