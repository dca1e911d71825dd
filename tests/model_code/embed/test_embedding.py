"""The embed job: the same embeddings as torch gives, only what is missing, and by hand as on SageMaker."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from model_code.data import shards
from model_code.data.shards import Sample, Split
from model_code.data.transform import Transform
from model_code.embed import __main__ as embed
from model_code.embed import embedding, embeddings
from model_code.embed.embeddings import NO_WEIGHTS, Embedder
from model_code.embed.forward import OnnxForward, OpenVinoForward, TorchForward
from model_code.networks.backbone import build_backbone
from model_code.process import cores
from model_code.process.progress import Progress
from tests.model_code.photo_files import photo

ARCHITECTURE = "mobilenet_v3_small"
SMALL = Transform(resize=64, crop=64)


def shard(folder: Path, split: Split, count: int, first: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    samples = [
        Sample(f"{n:020x}", "odd" if n % 2 else "even", photo(n), "jpg") for n in range(first, first + count)
    ]
    info = shards.write_shard(folder / "x", split, samples)
    return (folder / "x").rename(folder / f"{info.sha256}.tar")


@pytest.fixture(scope="module")
def runtime() -> OnnxForward:
    return OnnxForward(build_backbone(ARCHITECTURE), SMALL)


def test_all_runtimes_give_the_same_embeddings(runtime: OnnxForward) -> None:
    pixels = np.stack([SMALL.pixels(photo(n)) for n in range(5)])
    expected = TorchForward(build_backbone(ARCHITECTURE), SMALL)(pixels)
    for other in (runtime, OpenVinoForward(build_backbone(ARCHITECTURE), SMALL)):
        assert np.allclose(other(pixels), expected, atol=1e-3)
        assert np.allclose(other(pixels[:1]), expected[:1], atol=1e-3)
    with torch.inference_mode():
        plain = build_backbone(ARCHITECTURE)(torch.from_numpy(SMALL.normalize(pixels))).numpy()
    assert np.allclose(expected, plain, atol=1e-3)


def test_openvino_sends_no_telemetry(tmp_path: Path) -> None:
    program = (
        "import sys, torch; from model_code.embed import forward; "
        "from model_code.networks.backbone import build_backbone; "
        "from model_code.data.transform import Transform; "
        "forward.OpenVinoForward(build_backbone('squeezenet1_1'), Transform(64, 64)); "
        "assert not [name for name, module in sys.modules.items() if 'openvino_telemetry' in name and module]"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env={**os.environ, "HOME": str(tmp_path)})
    assert not (tmp_path / "intel").exists()  # where it keeps the id that it reports with


FIRST_CALLS = """
import sys, threading
import numpy as np
from torch import nn
from model_code.embed.forward import OpenVinoForward
from model_code.data.transform import Transform

sys.setswitchinterval(1e-6)
network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
forward, ready = OpenVinoForward(network, Transform(32, 32)), threading.Barrier(8)

def call():
    ready.wait()
    for _ in range(20):
        forward(np.zeros((1, 32, 32, 3), np.uint8))

threads = [threading.Thread(target=call, daemon=True) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_first_calls_at_once_do_not_deadlock() -> None:
    subprocess.run([sys.executable, "-c", FIRST_CALLS], check=True, timeout=120)


@pytest.mark.parametrize(("split", "views"), [(Split.TRAIN, 3), (Split.VALID, 1)])
def test_a_row_per_photo_and_view(tmp_path: Path, runtime: OnnxForward, split: Split, views: int) -> None:
    path = shard(tmp_path, split, 11)
    embedder = Embedder(ARCHITECTURE, NO_WEIGHTS, SMALL, views=3)
    batch = embedding.embed_shard(path, embedder, runtime, Progress(11, "photos"), batch_size=6)
    assert batch.embeddings.shape == (11 * views, 1024)
    assert batch.photo.tolist() == [n for n in range(11) for _ in range(views)]
    assert batch.view.tolist() == list(range(views)) * 11
    assert [batch.classes[label] for label in batch.label[::views]] == [
        "odd" if n % 2 else "even" for n in range(11)
    ]
    assert batch.keys == tuple(f"{n:020x}" for n in range(11))
    assert (batch.shard, batch.split) == (path.stem, split)
    for row in (0, views, 11 * views - 1):
        number, view = int(batch.photo[row]), int(batch.view[row])
        expected = runtime(SMALL.view(photo(number), batch.keys[number], view)[None])[0]
        assert np.allclose(batch.embeddings[row], expected, atol=2e-2)


def test_only_missing_shards_are_embedded(tmp_path: Path, runtime: OnnxForward) -> None:
    paths = [shard(tmp_path / "in", Split.TRAIN, 4), shard(tmp_path / "in", Split.VALID, 3, first=50)]
    embedder = Embedder(ARCHITECTURE, NO_WEIGHTS, SMALL)
    assert embedding.embed(paths[:1], tmp_path / "out", embedder, runtime) > 0
    (first,) = (tmp_path / "out").iterdir()
    written = first.stat().st_mtime_ns
    embedding.embed(paths, tmp_path / "out", embedder, runtime)
    assert first.stat().st_mtime_ns == written
    assert {path.stem for path in (tmp_path / "out").iterdir()} == {path.stem for path in paths}
    assert embedding.embed(paths, tmp_path / "out", embedder, runtime) == 0


def test_by_hand_on_local_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = tmp_path / "weights" / "any-name"
    weights.parent.mkdir()
    from model_code.networks.torchvision_compat import torchvision

    torch.save(torchvision.models.get_model(ARCHITECTURE, weights=None).state_dict(), weights)
    path = shard(tmp_path / "shards", Split.TRAIN, 5)
    arguments = [
        "--shards", str(tmp_path / "shards"), "--weights", str(weights.parent), "--output", str(tmp_path / "out"),
        "--architecture", ARCHITECTURE, "--views", "2",
    ]  # fmt: skip
    assert embed.main(arguments) == 0
    said = capsys.readouterr().out
    assert "progress done=5 total=5 unit=photos" in said
    assert "photos_per_second=" in said
    (batch,) = embeddings.read_folder(tmp_path / "out")
    assert batch.shard == path.stem
    import hashlib

    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    from model_code.data.transform import for_architecture

    identity = embeddings.embedder_id(ARCHITECTURE, digest, for_architecture(ARCHITECTURE), 2)
    assert batch.embedder.id == identity
    assert f"embedder={identity}" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--architecture", "resnet19"], "resnet19"),
        (["--views", "0"], "views must be"),
        (["--weights", "nowhere.pth"], "no weights at nowhere.pth"),
        (["--transform", '{"crop": 3}'], "a transform has the fields"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    shard(tmp_path / "shards", Split.TRAIN, 1)
    assert (
        embed.main(["--shards", str(tmp_path / "shards"), "--output", str(tmp_path / "out"), *arguments]) == 1
    )
    assert message in capsys.readouterr().err


def test_an_instance_without_shards_has_nothing_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "shards").mkdir()
    assert embed.main(["--shards", str(tmp_path / "shards"), "--output", str(tmp_path / "out")]) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_a_damaged_shard_fails_the_job_and_leaves_no_file(
    tmp_path: Path, runtime: OnnxForward, capsys: pytest.CaptureFixture[str]
) -> None:
    path = shard(tmp_path, Split.TRAIN, 6)
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(shards.ShardError):
        embedding.embed([path], tmp_path / "out", Embedder(ARCHITECTURE, NO_WEIGHTS, SMALL), runtime)
    assert list((tmp_path / "out").iterdir()) == []


def test_numbers_beyond_float16_are_refused(tmp_path: Path) -> None:
    class Wild:
        name = "wild"
        batch_size = 4
        callers = 1

        def __call__(self, pixels: np.ndarray) -> np.ndarray:
            return np.full((len(pixels), 3), 1e6, np.float32)

    path = shard(tmp_path, Split.TRAIN, 2)
    with pytest.raises(embedding.EmbedError, match="float16"):
        embedding.embed_shard(path, Embedder(ARCHITECTURE, NO_WEIGHTS, SMALL), Wild(), Progress(2, "photos"))


def test_a_photo_the_codec_no_longer_reads_is_skipped_aloud(
    tmp_path: Path, runtime: OnnxForward, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = [Sample("a" * 20, "cat", photo(1), "jpg"), Sample("b" * 20, "cat", b"broken", "jpg")]
    info = shards.write_shard(tmp_path / "x", Split.TRAIN, samples)
    path = (tmp_path / "x").rename(tmp_path / f"{info.sha256}.tar")
    batch = embedding.embed_shard(
        path, Embedder(ARCHITECTURE, NO_WEIGHTS, SMALL), runtime, Progress(2, "photos")
    )
    assert batch.keys == ("a" * 20,)
    assert f"skipped key={'b' * 20}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"SM_NUM_CPUS": "3"}, 3),
        ({"OMP_NUM_THREADS": "5"}, 5),
        ({"SM_NUM_CPUS": "48", "OMP_NUM_THREADS": "1", "LOCAL_WORLD_SIZE": "4"}, 12),
        ({"OMP_NUM_THREADS": "1", "LOCAL_WORLD_SIZE": "4"}, 4),
        ({"SM_NUM_CPUS": "2", "LOCAL_WORLD_SIZE": "4"}, 1),
    ],
)
def test_the_share_of_cores_comes_from_the_job(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)), raising=False)
    for name in ("SM_NUM_CPUS", "OMP_NUM_THREADS", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cores.cores() == expected
