"""Export a trained classifier as a bundle: weights, ONNX, int8 where it passes its guard, golden outputs, code."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import nn

import model_code
from model_code.bundle import archive as bundle
from model_code.bundle.card import finite
from model_code.export.golden import answers, golden_entries, golden_photos
from model_code.export.int8.guard import Verdict
from model_code.export.int8.make import Int8, make_int8
from model_code.export.onnx_graph import export_onnx
from model_code.networks.backbone import Classifier, attach_head
from model_code.networks.head import Head
from model_code.predict.calibration import calibrate, probabilities
from model_code.predict.unknown import UNKNOWN, fit_unknown
from model_code.predict.unknown import save as save_unknown
from model_code.process.errors import first_line
from model_code.watch import reference

AGREEMENT = 1e-3
"""Largest difference in probability allowed between torch and ONNX on the golden photos; float32 kernels give 1e-6.
"""


def export_bundle(
    *,
    output: Path,
    model: nn.Module,
    reference_model: nn.Module,
    card: Mapping[str, Any],
    calibration_shards: Sequence[Path],
    valid_shards: Sequence[Path],
    held_out: tuple[NDArray[np.floating], NDArray[np.integer]] | None = None,
    reference_shards: Sequence[Path] = (),
) -> None:
    """Fill the folder `output` with a model bundle (docs/contracts.md, "model.tar.gz").

    Where onnx or onnxscript is missing, or the network cannot be traced, the bundle holds `model.safetensors`
    only and the log says why.

    Args:
        output: The folder, SageMaker's model directory; files of an earlier attempt are replaced.
        model: The model to serve: normalized photos [n, 3, h, w] to logits [n, classes].
        reference_model: the same recipe fitted on train alone, so that the validation split can judge it.
        card: name, architecture, classes, transform (a `Transform`), temperature, abstain_threshold, metrics,
            hyperparameters, dataset, embedder_id, weights_sha256, code_version.
        calibration_shards: training photos, for the ranges of int8 and the golden photos.
        valid_shards: the validation split, for the int8 guard.
        held_out: `reference_model`'s logits [n, classes] and the labels [n] of the validation split: what the score of
            unknown photos and the sets of classes are fitted on. None: the bundle has neither.
        reference_shards: Photos that `model` was not trained on, which `watch` compares served photos with. The
            finished model sees them; nothing of it is fitted on them. None given: the first look makes a reference.

    Raises:
        BundleError: the card contradicts itself.
    """
    _clear(output)
    model, reference_model = exportable(model), exportable(reference_model)
    fields = {
        **card,
        "transform": card["transform"].to_dict(),
        "metrics": finite(card["metrics"]),
        "golden": [],
    }
    weights = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, output / bundle.SAFETENSORS)
    _copy_code(output / bundle.CODE)
    photos = golden_photos(calibration_shards)
    runtimes = ["torch"]
    print("exporting to ONNX, then searching for an int8 form that costs no accuracy", flush=True)
    if _try_onnx(model, output, fields, photos):
        runtimes = ["onnx", *runtimes]
        int8 = _try_int8(output, model, reference_model, card, calibration_shards, valid_shards)
        if int8.logits is not None:
            runtimes = ["onnx-int8", *runtimes]
        _record(fields, int8)
        if int8.logits is not None:
            held_out = int8.logits, int8.labels
    _write_unknown(output, held_out, fields["temperature"])
    golden = golden_entries(output, fields, photos, runtimes)
    sealed = {**fields, "runtimes": runtimes, "golden": golden}
    bundle.write_card(output, sealed)
    if reference_shards and reference.write(output, reference_shards):
        bundle.write_card(output, sealed)


def _write_unknown(
    output: Path, held_out: tuple[NDArray[np.floating], NDArray[np.integer]] | None, temperature: float
) -> None:
    """Fit "I don't know" on photos that the judged model has not seen; the log says where they are too few."""
    fitted = None
    if held_out is not None:
        fitted = fit_unknown(probabilities(held_out[0], temperature), np.asarray(held_out[1]))
    if fitted is None:
        print("too few held-out photos or classes: answers will carry no score of unknown photos", flush=True)
    else:
        save_unknown(fitted, output / UNKNOWN)


def exportable(model: nn.Module) -> nn.Module:
    """`model` on the CPU in eval mode, its head folded into plain linear layers."""
    model = model.eval().cpu()
    if isinstance(model, Classifier) and isinstance(model.head, Head):
        model = attach_head(model.backbone, model.head.folded().eval())
    return model


def _clear(output: Path) -> None:
    """Remove files of an interrupted attempt, which would otherwise be sealed into the bundle."""
    output.mkdir(parents=True, exist_ok=True)
    for name in (bundle.CARD, UNKNOWN, reference.FILE, *bundle.RUNTIME_FILES.values()):
        (output / name).unlink(missing_ok=True)
    shutil.rmtree(output / bundle.CODE, ignore_errors=True)


def _copy_code(folder: Path) -> None:
    package = Path(model_code.__file__).parent
    shutil.copytree(
        package, folder / package.name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc", ".*")
    )


def _try_onnx(model: nn.Module, output: Path, fields: Mapping[str, Any], photos: Sequence[bytes]) -> bool:
    """Write `model.onnx` if the network can be exported and agrees with torch; else print the reason."""
    path = output / bundle.ONNX
    try:
        export_onnx(model, fields["transform"]["crop"], path)
        ours, theirs = (answers(output, fields, photos, runtime) for runtime in ("torch", "onnx"))
    except ImportError as error:
        return _without_onnx(path, f"{error.name or error} is not installed here")
    except (
        Exception
    ) as error:  # the exporter's errors have no common class; torch serves what it cannot trace
        return _without_onnx(path, first_line(error))
    difference = float(np.abs(ours - theirs).max())
    if not difference <= AGREEMENT:
        return _without_onnx(path, f"its probabilities differ from torch's by {difference:.4f}")
    return True


def _without_onnx(path: Path, reason: str) -> bool:
    path.unlink(missing_ok=True)
    print(
        f"warning: the bundle has no {path.name} and will be served by torch, more slowly: {reason}",
        flush=True,
    )
    return False


def _try_int8(output: Path, *arguments: Any) -> Int8:
    try:
        return make_int8(output, *arguments)
    except Exception as error:  # the quantizer raises almost anything on operators it does not know
        (output / bundle.ONNX_INT8).unlink(missing_ok=True)
        return Int8(
            Verdict(False, f"quantization failed: {first_line(error)}", None, 0), None, np.zeros(0, np.int64)
        )


def _record(fields: dict[str, Any], int8: Int8) -> None:
    """Record the verdict. If int8 will serve, calibrate it, and keep the calibration of the float fallback."""
    verdict = int8.verdict
    print(f"int8 {'kept' if verdict.kept else 'dropped'}: {verdict.reason}", flush=True)
    fields["metrics"]["int8"] = verdict.to_json()
    if int8.logits is not None:
        calibration = calibrate(int8.logits, int8.labels)
        names = ("temperature", "abstain_threshold")
        fields["metrics"]["int8"]["float"] = {name: fields[name] for name in names}
        fields |= {name: getattr(calibration, name) for name in names}
