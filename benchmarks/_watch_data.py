"""Embeddings for the benchmark `watch`: photos as they are, with faults on them, in bursts, and of other things.

Each set is embedded once and kept outside the repository.
"""

from __future__ import annotations

import hashlib
import io
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter

from model_code.data.transform import for_architecture
from model_code.embed.forward import Forward, best_forward
from model_code.networks.backbone import build_backbone
from model_code.watch.properties import looks
from model_code.watch.simulate import FAULTS

ARCHITECTURE = "mobilenet_v2"
CACHE = Path(tempfile.gettempdir()) / "ml-pipeline-watch"
BURST_PHOTOS, BURST_VIEWS = 120, 19
# Of each breed: photos that traffic is drawn from, the first ones by name, and the others that get a fault.
SERVED, FAULTY = 50, 10
Change = Callable[[Image.Image, np.random.Generator], Image.Image]


def _jpeg(image: Image.Image, quality: int) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(io.BytesIO(stream.getvalue())).convert("RGB")


def _zoom(image: Image.Image, draw: np.random.Generator) -> Image.Image:
    width, height = image.size
    box = (width / 4, height / 4, 3 * width / 4, 3 * height / 4)
    return image.resize(image.size, Image.Resampling.BILINEAR, box=box)


def _moment_later(image: Image.Image, draw: np.random.Generator) -> Image.Image:
    """The next photo of a burst: a hand that moves a little, another exposure and compression."""
    width, height = image.size
    scale = draw.uniform(0.9, 1)
    left, top = draw.uniform(0, width * (1 - scale)), draw.uniform(0, height * (1 - scale))
    box = (left, top, left + scale * width, top + scale * height)
    moved = image.resize(image.size, Image.Resampling.BILINEAR, box=box)
    return _jpeg(ImageEnhance.Brightness(moved).enhance(draw.uniform(0.9, 1.1)), int(draw.integers(70, 96)))


SHIFTS: dict[str, Change] = {
    "none": lambda image, draw: image,
    "blur": lambda image, draw: image.filter(ImageFilter.GaussianBlur(2)),
    "jpeg": lambda image, draw: _jpeg(image, 8),
    "zoom": _zoom,
    "dark": lambda image, draw: image.point(lambda value: int(value * 0.35 + 0.5)),
}


@dataclass(frozen=True)
class Embedded:
    """Embeddings [n, dim] and looks [n, 3] of photos."""

    rows: NDArray[np.float32]
    looks: NDArray[np.float32]
    files: NDArray[np.str_]


class Embedder:
    """Embeds photos of a data set, and remembers."""

    def __init__(self, data: Path, weights: Path, cache: Path, shifted: int = SERVED) -> None:
        self.data, self.weights, self.cache, self.shifted = data, weights, cache, shifted
        cache.mkdir(parents=True, exist_ok=True)
        self.paths = sorted(data.glob("*/*.jpg"), key=str)
        self.transform = for_architecture(ARCHITECTURE)
        self._forward: Forward | None = None

    def all(self, shift: str) -> Embedded:
        """Every photo as it is, or those that traffic is drawn from under one of `SHIFTS`."""
        if shift == "none":
            return self._embed(shift, self.paths, SHIFTS[shift])
        if (self.cache / f"{shift}.npz").exists() or self.shifted == SERVED:
            return self._embed(shift, self._each_breed(slice(SERVED)), SHIFTS[shift])
        return self._embed(f"{shift}-{self.shifted}", self._each_breed(slice(self.shifted)), SHIFTS[shift])

    def simulated(self, fault: str) -> Embedded:
        """Photos of each breed that are never traffic, with a fault that a reference is given."""
        paths = self._each_breed(slice(SERVED, SERVED + FAULTY))
        change = FAULTS[fault]
        return self._embed(fault, paths, lambda image, draw: Image.fromarray(change(np.asarray(image), draw)))

    def bursts(self) -> Embedded:
        """`BURST_VIEWS` moments of each of some photos, one photo's next to each other."""
        served = self._each_breed(slice(SERVED))
        chosen = sorted(np.random.default_rng(7).choice(len(served), BURST_PHOTOS, replace=False))
        paths = [served[number] for number in chosen for _ in range(BURST_VIEWS)]
        return self._embed("burst", paths, _moment_later)

    def others(self, folder: Path | None) -> Embedded | None:
        """Crops of photos of other things; None without a folder or what was embedded of one."""
        if folder is None and not (self.cache / "others.npz").exists():
            return None
        endings = (".jpg", ".jpeg", ".png", ".webp")
        found = [path for path in sorted((folder or self.data).rglob("*")) if path.suffix.lower() in endings]
        return self._embed("others", [path for path in found for _ in range(12)], _crop)

    def _each_breed(self, which: slice) -> list[Path]:
        breeds: dict[Path, list[Path]] = {}
        for path in self.paths:
            breeds.setdefault(path.parent, []).append(path)
        return [path for paths in breeds.values() for path in paths[which]]

    def _embed(self, name: str, paths: Sequence[Path], change: Change) -> Embedded:
        file = self.cache / f"{name}.npz"
        if not file.exists():
            self._compute(name, paths, change, file)
        with np.load(file) as stored:
            return Embedded(stored["x"], stored["p"], stored["f"])

    def _compute(self, name: str, paths: Sequence[Path], change: Change, file: Path) -> None:
        if self._forward is None:
            self._forward = best_forward(build_backbone(ARCHITECTURE, self.weights), self.transform)
        forward, started = self._forward, time.monotonic()

        def one(job: tuple[int, Path]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            number, path = job
            seed = hashlib.sha256(f"{name}{path.name}{number % BURST_VIEWS}".encode()).digest()[:4]
            draw = np.random.default_rng(int.from_bytes(seed, "big"))
            with Image.open(path) as image:
                changed = change(image.convert("RGB"), draw)
            pixels = self.transform.crop_center(np.asarray(changed))
            return forward(pixels[None])[0], looks(pixels)

        with ThreadPoolExecutor(forward.callers) as pool:
            rows = list(pool.map(one, enumerate(paths)))
        np.savez(
            file,
            x=np.stack([row for row, _ in rows]),
            p=np.stack([look for _, look in rows]),
            f=np.array([str(path) for path in paths]),
        )
        print(f"embedded {name}: {len(rows) / (time.monotonic() - started):.0f} photos/s", flush=True)


def _crop(image: Image.Image, draw: np.random.Generator) -> Image.Image:
    image.thumbnail((1400, 1400))
    width, height = image.size
    side = draw.uniform(0.25, 1) * min(width, height)
    left, top = draw.uniform(0, width - side), draw.uniform(0, height - side)
    return image.resize((224, 224), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
