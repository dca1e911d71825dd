"""Photos to start with when there are none: imagewoof2 from the network, or drawn shapes. Torch-free."""

from __future__ import annotations

import colorsys
import math
import random
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from model_code.data.download import Checksum, DownloadError, Progress, download

IMAGEWOOF_URL = "https://s3.amazonaws.com/fast-ai-imageclas/imagewoof2-160.tgz"
# MD5 of the archive as public loaders of imagewoof2 state it.
IMAGEWOOF_CHECKSUM = "md5:3d200a7be99704a0d7509be2a9fbfe15"
_MAX_UNPACKED = 2 * 2**30
_WORDNET_NAMES = {
    "n02086240": "Shih-Tzu",
    "n02087394": "Rhodesian_ridgeback",
    "n02088364": "beagle",
    "n02089973": "English_foxhound",
    "n02093754": "Border_terrier",
    "n02096294": "Australian_terrier",
    "n02099601": "golden_retriever",
    "n02105641": "Old_English_sheepdog",
    "n02111889": "Samoyed",
    "n02115641": "dingo",
}

FetchError = DownloadError

_SIDE = 192
Draw = Callable[[ImageDraw.ImageDraw, random.Random, tuple[int, int, int]], None]


def fetch_imagewoof(
    dest: Path,
    url: str = IMAGEWOOF_URL,
    checksum: str | None = IMAGEWOOF_CHECKSUM,
    progress: Progress | None = None,
) -> Path:
    """Download and unpack imagewoof2 into one folder per breed.

    It holds 12,954 photos of ten dog breeds of ImageNet (fast.ai). The archive's own train and val folders
    are put together: the pipeline splits the photos itself.

    Args:
        dest: The folder to make.
        url: Address of the archive.
        checksum: `md5:<hex>` or `sha256:<hex>` of the archive, or None to trust what arrives.
        progress: Called with (bytes so far, total bytes).

    Returns:
        `dest`, which appears only when it is complete.

    Raises:
        FetchError: The archive cannot be downloaded, is not the expected one, or holds no photos.
    """
    dest.parent.mkdir(parents=True, exist_ok=True)
    expected = Checksum.parse(checksum) if checksum else None
    with tempfile.TemporaryDirectory(dir=dest.parent, prefix=".fetch-") as folder:
        archive = Path(folder, "archive.tgz")
        download(url, archive, checksum=expected, progress=progress)
        photos = Path(folder, "photos")
        try:
            count = _unpack(archive, photos)
        except (tarfile.TarError, EOFError, OSError) as error:
            raise FetchError(f"{url} is not a readable tgz archive: {error}") from error
        if count == 0:
            raise FetchError(f"{url} holds no photos in train/<class>/ or val/<class>/")
        if dest.exists():
            shutil.rmtree(dest)
        photos.rename(dest)
    return dest


def _unpack(archive: Path, folder: Path) -> int:
    """Write the photos of the archive to `folder`/<class>/; only plain files, only under names that we choose."""
    count = size = 0
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            parts = PurePosixPath(member.name).parts
            if not member.isfile() or len(parts) < 3 or parts[-3] not in ("train", "val"):
                continue
            size += member.size
            if size > _MAX_UNPACKED:
                raise OSError(f"it unpacks to more than {_MAX_UNPACKED / 1e9:.0f} GB")
            label, name = _WORDNET_NAMES.get(parts[-2], parts[-2]), parts[-1]
            if ".." in (label, name) or name.startswith("."):
                continue
            body = tar.extractfile(member)
            if body is not None:
                target = folder / label / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(body.read())
                count += 1
    return count


def draw(dest: Path, photos: int = 60, seed: int = 0, classes: int | None = None) -> Path:
    """Draw a small data set of shapes, the same for the same arguments.

    Hue, size, place, background and noise vary inside a class, so that telling them apart takes some
    learning.

    Args:
        dest: The folder to draw into.
        photos: Photos per class.
        seed: Of the drawing.
        classes: Number of classes, at most 8; default: all.

    Returns:
        `dest`, with a folder per class.
    """
    for position, (label, shape) in enumerate(list(_SHAPES.items())[:classes]):
        folder = dest / label
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(photos):
            source = random.Random(f"{seed}:{label}:{number}")
            image = _picture(shape, position / len(_SHAPES), source)
            image.save(folder / f"{label}-{number:03d}.jpg", quality=90)
    return dest


def _picture(shape: Draw, hue: float, source: random.Random) -> Image.Image:
    width, height = _SIDE + source.randrange(64), _SIDE + source.randrange(64)
    image = _background(width, height, source)
    layer = Image.new("RGBA", (_SIDE, _SIDE))
    shape(ImageDraw.Draw(layer), source, _color(source.gauss(hue, 0.02), source))
    side = int(source.uniform(0.7, 0.98) * min(width, height))
    layer = layer.rotate(source.uniform(-15, 15), Image.Resampling.BILINEAR).resize((side, side))
    image.paste(layer, (source.randrange(width - side + 1), source.randrange(height - side + 1)), layer)
    return image.filter(ImageFilter.GaussianBlur(source.uniform(0, 0.8)))


def _background(width: int, height: int, source: random.Random) -> Image.Image:
    """Soft patches of near-gray under grain: each different, also for a perceptual hash."""
    numbers = np.random.default_rng(source.getrandbits(32))
    gray = numbers.uniform(85, 170, (5, 5, 1)) + numbers.uniform(-8, 8, (5, 5, 3))
    patches = Image.fromarray(gray.astype(np.uint8)).resize((width, height))
    grain = numbers.normal(0, source.uniform(4, 14), (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(patches) + grain, 0, 255).astype(np.uint8))


def _color(hue: float, source: random.Random) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, source.uniform(0.6, 1), source.uniform(0.6, 1))
    return int(255 * red), int(255 * green), int(255 * blue)


def _disc(canvas: ImageDraw.ImageDraw, source: random.Random, color: tuple[int, int, int]) -> None:
    canvas.ellipse((16, 16, 176, 176), color)


def _ring(canvas: ImageDraw.ImageDraw, source: random.Random, color: tuple[int, int, int]) -> None:
    canvas.ellipse((12, 12, 180, 180), outline=color, width=source.randint(18, 34))


def _square(canvas: ImageDraw.ImageDraw, source: random.Random, color: tuple[int, int, int]) -> None:
    canvas.rectangle((28, 28, 164, 164), color)


def _star(canvas: ImageDraw.ImageDraw, source: random.Random, color: tuple[int, int, int]) -> None:
    radii = (90, 38)
    corners = [
        (96 + radii[i % 2] * math.sin(i * math.pi / 5), 96 - radii[i % 2] * math.cos(i * math.pi / 5))
        for i in range(10)
    ]
    canvas.polygon(corners, color)


def _cross(canvas: ImageDraw.ImageDraw, source: random.Random, color: tuple[int, int, int]) -> None:
    half = source.randint(16, 28)
    canvas.rectangle((96 - half, 8, 96 + half, 184), color)
    canvas.rectangle((8, 96 - half, 184, 96 + half), color)


def _stripes(canvas: ImageDraw.ImageDraw, source: random.Random, color: tuple[int, int, int]) -> None:
    step = source.randint(18, 30)
    for top in range(8, 184, step):
        canvas.rectangle((8, top, 184, top + step // 2), color)


def _checkers(canvas: ImageDraw.ImageDraw, source: random.Random, color: tuple[int, int, int]) -> None:
    step = source.randint(20, 32)
    for row in range(184 // step):
        for column in range(row % 2, 184 // step, 2):
            canvas.rectangle(
                (column * step, row * step, (column + 1) * step - 1, (row + 1) * step - 1), color
            )


def _dots(canvas: ImageDraw.ImageDraw, source: random.Random, color: tuple[int, int, int]) -> None:
    step = source.randint(28, 40)
    for left in range(4, 184 - step // 2, step):
        for top in range(4, 184 - step // 2, step):
            canvas.ellipse((left, top, left + step * 0.55, top + step * 0.55), color)


_SHAPES: dict[str, Draw] = {
    "checkers": _checkers,
    "cross": _cross,
    "disc": _disc,
    "dots": _dots,
    "ring": _ring,
    "square": _square,
    "star": _star,
    "stripes": _stripes,
}
