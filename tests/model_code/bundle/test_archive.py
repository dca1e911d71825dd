"""A bundle is believed only as far as its digests reach."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from model_code.bundle.archive import CARD, SCHEMA_VERSION, Bundle, BundleError, ModelCard, pack, write_card

SCHEMA = json.loads(
    (Path(__file__).parents[3] / "model_code" / "schemas" / "model.schema.json").read_text(encoding="utf-8")
)


def card_fields(**changes: Any) -> dict[str, Any]:
    return {
        "name": "toy",
        "architecture": "squeezenet1_1",
        "classes": ["ant", "bee"],
        "transform": {"size": 64},
        "temperature": 1.25,
        "abstain_threshold": 0.3,
        "metrics": {"valid_accuracy": 0.9},
        "hyperparameters": {"learning_rate": 0.01},
        "dataset": {"name": "insects", "version": "abc"},
        "code_version": "0" * 12,
        "embedder_id": None,
        "weights_sha256": None,
        "runtimes": ["torch"],
        "golden": [{"photo": "AAAA", "probabilities": [0.25, 0.75], "runtime": {}}],
        **changes,
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    (directory / "code").mkdir(parents=True)
    (directory / "model.safetensors").write_bytes(bytes(range(256)) * 400)
    (directory / "code" / "train.py").write_text("print('hello')\n")
    write_card(directory, card_fields())
    return directory


@pytest.fixture
def archive(folder: Path, tmp_path: Path) -> Path:
    path = tmp_path / "model.tar.gz"
    pack(folder, path)
    return path


def test_card_satisfies_its_schema(folder: Path) -> None:
    jsonschema.validate(json.loads((folder / CARD).read_text()), SCHEMA)


def test_archive_and_folder_hold_the_same(folder: Path, archive: Path) -> None:
    with Bundle.open(archive) as unpacked, Bundle.open(folder) as plain:
        assert unpacked.card == plain.card
        assert unpacked.file("code/train.py").read_text() == "print('hello')\n"
        kept = unpacked.directory
    assert not kept.exists()
    assert folder.exists()


def test_workdir_is_kept(archive: Path, tmp_path: Path) -> None:
    with Bundle.open(archive, tmp_path / "here") as bundle:
        assert bundle.directory == tmp_path / "here"
    assert (tmp_path / "here" / CARD).is_file()


def test_same_files_pack_to_same_bytes(folder: Path, archive: Path, tmp_path: Path) -> None:
    before = archive.read_bytes()
    (folder / "model.safetensors").touch()
    (folder / "code" / "train.py").chmod(0o600)
    (folder / "code" / "__pycache__").mkdir()
    (folder / "code" / "__pycache__" / "train.pyc").write_bytes(b"x")
    pack(folder, tmp_path / "again.tar.gz")
    assert (tmp_path / "again.tar.gz").read_bytes() == before


def test_missing_listed_file_names_what_there_is(folder: Path) -> None:
    with pytest.raises(BundleError, match=r"has no model\.onnx; it has code/train\.py"):
        Bundle.open(folder).file("model.onnx")


def _edit_card(folder: Path, **changes: Any) -> None:
    document = json.loads((folder / CARD).read_text())
    document.update(changes)
    (folder / CARD).write_text(json.dumps(document))


TAMPERINGS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "flipped byte": (
        lambda d: (d / "model.safetensors").write_bytes(b"\x01" + (d / "model.safetensors").read_bytes()[1:]),
        "SHA-256 differs",
    ),
    "shorter file": (lambda d: (d / "model.safetensors").write_bytes(b"short"), "has 5 bytes"),
    "missing file": (lambda d: (d / "model.safetensors").unlink(), "is missing"),
    "added code": (lambda d: (d / "code" / "evil.py").write_text("1"), "is not listed"),
    "no card": (lambda d: (d / CARD).unlink(), "has no model.json"),
    "card not JSON": (lambda d: (d / CARD).write_text("{"), "is not JSON"),
    "card not UTF-8": (lambda d: (d / CARD).write_bytes(b"\xff\xfe{}x"), "is not JSON"),
    "card a list": (lambda d: (d / CARD).write_text("[]"), "not a JSON object"),
    "future schema": (
        lambda d: _edit_card(d, schema_version=SCHEMA_VERSION + 1),
        "use the release that wrote it",
    ),
    "no schema": (lambda d: _edit_card(d, schema_version=None), "no schema_version"),
    "one class": (lambda d: _edit_card(d, classes=["ant"]), "at least two"),
    "cold": (lambda d: _edit_card(d, temperature=0), "not above 0"),
    "NaN": (lambda d: _edit_card(d, temperature=float("nan")), "not above 0"),
    "threshold": (lambda d: _edit_card(d, abstain_threshold=7), "not within 0..1"),
    "unknown runtime": (lambda d: _edit_card(d, runtimes=["pickle"]), "unknown runtime 'pickle'"),
    "no runtime": (lambda d: _edit_card(d, runtimes=[]), "runtimes is empty"),
    "unbacked runtime": (lambda d: _edit_card(d, runtimes=["onnx"]), "needs model.onnx"),
    "golden of other width": (
        lambda d: _edit_card(d, golden=[{"photo": "", "probabilities": [1.0]}]),
        "does not fit 2 classes",
    ),
    "files malformed": (lambda d: _edit_card(d, files={"model.safetensors": 3}), "malformed"),
    "transform malformed": (lambda d: _edit_card(d, transform=[]), "malformed"),
    "file outside": (
        lambda d: _edit_card(d, files={"../x": {"sha256": "0" * 64, "bytes": 1}}),
        "leaves the bundle's folder",
    ),
}


@pytest.mark.parametrize("name", TAMPERINGS)
def test_tampered_folder_is_refused_in_one_line(folder: Path, name: str) -> None:
    tamper, message = TAMPERINGS[name]
    tamper(folder)
    with pytest.raises(BundleError) as refused:
        Bundle.open(folder)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_missing_field_is_named(folder: Path) -> None:
    document = json.loads((folder / CARD).read_text())
    del document["classes"], document["temperature"]
    with pytest.raises(BundleError, match="lacks classes, temperature"):
        ModelCard.from_json(document)


@pytest.mark.parametrize("kept", [0, 1, 10, 100, 0.3, 0.6, 0.99])
def test_truncated_archive_is_refused(archive: Path, kept: float) -> None:
    whole = archive.read_bytes()
    archive.write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    with pytest.raises(BundleError, match="download"):
        Bundle.open(archive)


def test_damaged_archive_is_refused(archive: Path) -> None:
    whole = bytearray(archive.read_bytes())
    for at in range(40, len(whole), 97):
        whole[at] ^= 0x55
    archive.write_bytes(bytes(whole))
    with pytest.raises(BundleError):
        Bundle.open(archive)


def _hostile(path: Path, member: tarfile.TarInfo, content: bytes = b"") -> None:
    member.size = len(content) if member.isreg() else 0
    with gzip.open(path, "wb") as zipped, tarfile.open(fileobj=zipped, mode="w") as tar:
        tar.addfile(member, io.BytesIO(content))


def _member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (_member("../escaped"), "leaves the bundle's folder"),
        (_member("a/../../escaped"), "leaves the bundle's folder"),
        (_member("/tmp/escaped"), "leaves the bundle's folder"),
        (_member("link", tarfile.SYMTYPE, "/etc/passwd"), "link or a device"),
        (_member("link", tarfile.LNKTYPE, "model.json"), "link or a device"),
        (_member("pipe", tarfile.FIFOTYPE), "link or a device"),
        (_member("device", tarfile.CHRTYPE), "link or a device"),
    ],
)
def test_hostile_member_is_refused(tmp_path: Path, member: tarfile.TarInfo, message: str) -> None:
    archive = tmp_path / "in" / "model.tar.gz"
    archive.parent.mkdir()
    _hostile(archive, member, b"x")
    with pytest.raises(BundleError, match=message):
        Bundle.open(archive, tmp_path / "out" / "deep")
    assert not list(tmp_path.rglob("*escaped*"))


def test_bomb_is_refused_before_it_fills_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model_code.bundle.archive.MAX_UNPACKED_BYTES", 1 << 20)
    _hostile(tmp_path / "model.tar.gz", _member("model.onnx"), bytes(2 << 20))
    with pytest.raises(BundleError, match="unpacks to more than"):
        Bundle.open(tmp_path / "model.tar.gz", tmp_path / "out")
    assert not (tmp_path / "out" / "model.onnx").exists()


def test_absent_path_says_so(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such model"):
        Bundle.open(tmp_path / "nothing.tar.gz")


def test_card_needs_no_torch() -> None:
    program = (
        "import sys, model_code.bundle; sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'PIL')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
