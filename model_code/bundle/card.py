"""`model.json`, the card of a model bundle: what the network is, how to feed it, how far to trust it.

Torch-free: Airflow and the server's front read cards too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path, PurePosixPath
from typing import Any

SCHEMA_VERSION = 1
CARD = "model.json"
CODE = "code"
SAFETENSORS = "model.safetensors"
ONNX = "model.onnx"
ONNX_INT8 = "model.int8.onnx"
RUNTIME_FILES = {"onnx-int8": ONNX_INT8, "onnx": ONNX, "torch": SAFETENSORS}
"""The file that each runtime opens; `ModelCard.runtimes` lists those the bundle really has, best first."""


class BundleError(Exception):
    """The bundle cannot be trusted or read; the text is one line that says what to do."""


@dataclass(frozen=True)
class FileEntry:
    """Digest and size that a file of the bundle must have."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Golden:
    """A photo (base64 of its encoded bytes) with the probabilities that a faithful runtime must give for it.

    `probabilities` are those of the float32 ONNX graph (torch where there is none); `runtime` maps a
    runtime's name to its own where they differ by design (int8).
    """

    photo: str
    probabilities: tuple[float, ...]
    runtime: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelCard:
    """`model.json`. `transform` holds the fields of `model_code.transform.Transform`, as JSON gives them."""

    name: str
    architecture: str
    classes: tuple[str, ...]
    transform: Mapping[str, Any]
    temperature: float
    abstain_threshold: float
    metrics: Mapping[str, Any]
    hyperparameters: Mapping[str, Any]
    dataset: Mapping[str, Any]
    code_version: str
    embedder_id: str | None
    weights_sha256: str | None
    runtimes: tuple[str, ...]
    files: Mapping[str, FileEntry]
    golden: tuple[Golden, ...] = ()
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        if len(self.classes) < 2 or len(set(self.classes)) != len(self.classes):
            raise BundleError(f"{CARD}: classes must be at least two different names: export the model again")
        if not self.temperature > 0:
            raise BundleError(
                f"{CARD}: temperature {self.temperature} is not above 0: export the model again"
            )
        if not 0 <= self.abstain_threshold <= 1:
            raise BundleError(
                f"{CARD}: abstain_threshold {self.abstain_threshold} is not within 0..1: export again"
            )
        for name in self.files:
            check_member_name(name)
        self._check_runtimes()
        for golden in self.golden:
            rows = (golden.probabilities, *golden.runtime.values())
            if any(len(row) != len(self.classes) for row in rows):
                raise BundleError(
                    f"{CARD}: a golden output does not fit {len(self.classes)} classes: export again"
                )

    def _check_runtimes(self) -> None:
        if not self.runtimes:
            raise BundleError(f"{CARD}: runtimes is empty: export the model again")
        for runtime in self.runtimes:
            if runtime not in RUNTIME_FILES:
                raise BundleError(
                    f"{CARD}: unknown runtime {runtime!r}, known are {', '.join(RUNTIME_FILES)}"
                )
            if RUNTIME_FILES[runtime] not in self.files:
                raise BundleError(f"{CARD}: runtime {runtime!r} needs {RUNTIME_FILES[runtime]}: export again")

    def served_by(self, runtime: str) -> ModelCard:
        """This card with the temperature and the abstain threshold of `runtime`.

        Those of the card belong to the runtime that it prefers. Where that is int8, `metrics.int8.float` holds those of
        the float runtimes; a card of an older release has none there, and one pair for all.
        """
        floats = (self.metrics.get("int8") or {}).get("float")
        if floats is None or runtime == "onnx-int8":
            return self
        temperature, threshold = float(floats["temperature"]), float(floats["abstain_threshold"])
        return replace(self, temperature=temperature, abstain_threshold=threshold)

    def to_json(self) -> dict[str, Any]:
        """Return the card as `schemas/model.schema.json` describes it."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Any) -> ModelCard:
        """Read a card.

        Raises:
            BundleError: not an object, written by a newer release, or a field is missing or malformed.
        """
        if not isinstance(document, dict):
            raise BundleError(f"{CARD} is not a JSON object: download or export the model again")
        version = document.get("schema_version")
        if not isinstance(version, int) or version < 1:
            raise BundleError(f"{CARD} has no schema_version: it was not written by this project's export")
        if version > SCHEMA_VERSION:
            raise BundleError(
                f"{CARD} has schema_version {version}, this release reads up to {SCHEMA_VERSION}: "
                f"use the release that wrote it (code_version {document.get('code_version')!r}) or newer"
            )
        missing = [f.name for f in fields(cls) if f.name not in document and f.name not in ("golden",)]
        if missing:
            raise BundleError(f"{CARD} lacks {', '.join(missing)}: export the model again")
        try:
            return cls(**_card_arguments(document))
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise BundleError(f"{CARD} is malformed ({error}): download or export the model again") from error


def _card_arguments(document: Mapping[str, Any]) -> dict[str, Any]:
    arguments = {f.name: document[f.name] for f in fields(ModelCard) if f.name in document}
    arguments["classes"] = tuple(str(name) for name in document["classes"])
    arguments["runtimes"] = tuple(str(name) for name in document["runtimes"])
    arguments["temperature"] = float(document["temperature"])
    arguments["abstain_threshold"] = float(document["abstain_threshold"])
    arguments["files"] = {
        str(name): FileEntry(str(entry["sha256"]), int(entry["bytes"]))
        for name, entry in document["files"].items()
    }
    arguments["golden"] = tuple(
        Golden(
            str(item["photo"]),
            tuple(float(p) for p in item["probabilities"]),
            {str(name): tuple(float(p) for p in row) for name, row in item.get("runtime", {}).items()},
        )
        for item in document.get("golden", ())
    )
    for name in ("transform", "metrics", "hyperparameters", "dataset"):
        if not isinstance(arguments[name], Mapping):
            raise TypeError(f"{name} is not an object")
    return arguments


def check_member_name(name: str, where: Path | str = CARD) -> None:
    """Refuse the name of a file that would be outside the bundle's folder.

    Args:
        name: The name, as a bundle or its card gives it.
        where: The file that holds the name, for the message.

    Raises:
        BundleError: The name is empty, absolute, or holds "..", a backslash or a null.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or not name:
        raise BundleError(f"{where}: file name {name!r} leaves the bundle's folder: do not use it")


def finite(value: Any) -> Any:
    """`value` with every number that JSON cannot hold (a loss that overflowed) as None."""
    if isinstance(value, Mapping):
        return {name: finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
