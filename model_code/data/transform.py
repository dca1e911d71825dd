"""Photo bytes to network input: the one transform of embed, train, evaluate and serve."""

from __future__ import annotations

import hashlib
import json
import math
import random
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model_code.data import photos
from model_code.data.limits import MAX_PIXELS
from model_code.data.photos import Pixels
from model_code.hyperparameters.architectures import TIMM, timm_recipe

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Interpolation(StrEnum):
    """Resampling kernels; all are antialiased when they shrink."""

    BILINEAR = "bilinear"
    BICUBIC = "bicubic"


_KERNELS = {
    Interpolation.BILINEAR: Image.Resampling.BILINEAR,
    Interpolation.BICUBIC: Image.Resampling.BICUBIC,
}


@dataclass(frozen=True)
class Augmentation:
    """Random resized crop and mirror, as torchvision's RandomResizedCrop draws them.

    Attributes:
        min_area: Smallest part of the photo's area that a crop may keep, in (0, 1].
        max_aspect: Crops are between 1/max_aspect and max_aspect wide per unit of height.
    """

    min_area: float = 0.35
    max_aspect: float = 4 / 3

    def __post_init__(self) -> None:
        if not 0 < self.min_area <= 1:
            raise ValueError(f"min_area must be in (0, 1], not {self.min_area}")
        if self.max_aspect < 1:
            raise ValueError(f"max_aspect must be at least 1, not {self.max_aspect}")


@dataclass(frozen=True)
class Transform:
    """Shrink the shorter side to `resize`, cut the central `crop` x `crop`, scale to mean 0 and deviation 1.

    A photo whose shorter side is between `crop` and `resize` is not resampled at all: enlarging it only
    blurs it. A smaller one is enlarged to `crop`. Measured with mobilenet_v2: on photos cropped to 224 px
    already, this is 0.6 points better than resizing all to 256; on uncropped ones of 320 px, 256 is 1 point
    better than 224.

    Attributes:
        resize: Most pixels of the shorter side before cropping; at least `crop`.
        crop: Side of the square that the network sees, in pixels.
        mean: Per channel, of pixels in 0..1.
        std: Per channel, of pixels in 0..1.
        interpolation: Resampling kernel.
        augmentation: Draws the extra views of training photos.
    """

    resize: int = 256
    crop: int = 224
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: Interpolation = Interpolation.BILINEAR
    augmentation: Augmentation = Augmentation()

    def __post_init__(self) -> None:
        if not 1 <= self.crop <= self.resize <= 4096:
            raise ValueError(f"need 1 <= crop <= resize <= 4096, not crop={self.crop} resize={self.resize}")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError("mean and std need three numbers each, std above 0")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` gives back an equal transform."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Transform:
        """Inverse of `to_dict`.

        Raises:
            ValueError: Fields are unknown or missing; the message names them.
        """
        known = set(cls.__dataclass_fields__)
        if set(fields) != known:
            raise ValueError(f"a transform has the fields {sorted(known)}, not {sorted(fields)}")
        return cls(
            resize=int(fields["resize"]),
            crop=int(fields["crop"]),
            mean=_triple(fields["mean"]),
            std=_triple(fields["std"]),
            interpolation=Interpolation(fields["interpolation"]),
            augmentation=Augmentation(**fields["augmentation"]),
        )

    @cached_property
    def id(self) -> str:
        """12 hex digits that identify these settings on any machine."""
        text = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def __call__(self, data: bytes, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.float32]:
        """Photo bytes to float32 [3, crop, crop].

        Raises:
            PhotoError: The bytes are no readable photo.
        """
        return self.normalize(self.pixels(data, max_pixels=max_pixels))

    def pixels(self, data: bytes, *, max_pixels: int = MAX_PIXELS) -> Pixels:
        """Photo bytes to uint8 [crop, crop, 3], resized and cropped.

        Raises:
            PhotoError: The bytes are no readable photo.
        """
        return self.crop_center(photos.decode(data, min_side=self.resize, max_pixels=max_pixels))

    def crop_center(self, image: Pixels) -> Pixels:
        """Resize and center-crop uint8 [h, w, 3] to [crop, crop, 3]; only the part that is kept is resampled."""
        height, width = image.shape[:2]
        short = min(height, width)
        resized = min(max(short, self.crop), self.resize)
        if short == resized:
            top, left = (height - self.crop) // 2, (width - self.crop) // 2
            return np.ascontiguousarray(image[top : top + self.crop, left : left + self.crop])
        side = short * self.crop / resized
        left, top = (width - side) / 2, (height - side) / 2
        return self._resample(image, (left, top, left + side, top + side))

    def view(self, data: bytes, key: str, view: int) -> Pixels:
        """View `view` of photo `key`: 0 is `pixels`, 1 its mirror image, others random crops.

        The crop is drawn from (key, view) alone, so an embedding can be computed again on any machine.

        Returns:
            uint8 [crop, crop, 3].

        Raises:
            PhotoError: The bytes are no readable photo.
        """
        return self.views(data, key, (view,))[0]

    def views(self, data: bytes, key: str, views: tuple[int, ...] | range) -> list[Pixels]:
        """Several views of one photo; see `view`."""
        image = enough = photos.decode(data, min_side=self.resize)
        if any(view > 1 for view in views):
            short = min(photos.size(data))
            # A random crop may keep a small part of the photo, which must not have been shrunk away before.
            crops_from = 2 * self.resize
            if photos.scale_factor(short, crops_from) != photos.scale_factor(short, self.resize):
                enough = photos.decode(data, min_side=crops_from)
        return [self._one_view(enough if view > 1 else image, key, view) for view in views]

    def _one_view(self, image: Pixels, key: str, view: int) -> Pixels:
        if view == 0:
            return self.crop_center(image)
        if view == 1:
            return np.ascontiguousarray(self.crop_center(image)[:, ::-1])
        return self.crop_random(image, random.Random(f"{key}:{view}"))

    def crop_random(self, image: Pixels, draw: random.Random) -> Pixels:
        """Return a random resized crop of uint8 [h, w, 3], mirrored half of the time, to [crop, crop, 3]."""
        box = _random_box(image.shape[0], image.shape[1], self.augmentation, draw)
        pixels = self._resample(image, box)
        return np.ascontiguousarray(pixels[:, ::-1]) if draw.random() < 0.5 else pixels

    def normalize(self, pixels: Pixels) -> NDArray[np.float32]:
        """uint8 [..., h, w, 3] to float32 [..., 3, h, w] with mean 0 and deviation 1 per channel."""
        scale, shift = self.scale_shift
        channels_first = np.moveaxis(pixels, -1, -3)
        out = np.empty(channels_first.shape, np.float32)
        np.multiply(channels_first, scale, out=out, dtype=np.float32)
        out += shift
        return out

    @cached_property
    def scale_shift(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Factor and summand, each [3, 1, 1], that take pixels of 0..255 to mean 0 and deviation 1."""
        mean, std = (np.asarray(v, np.float64)[:, None, None] for v in (self.mean, self.std))
        return (1 / (255 * std)).astype(np.float32), (-mean / std).astype(np.float32)

    def _resample(self, image: Pixels, box: tuple[float, float, float, float]) -> Pixels:
        kernel = _KERNELS[self.interpolation]
        return np.asarray(Image.fromarray(image).resize((self.crop, self.crop), kernel, box=box))


def for_architecture(architecture: str) -> Transform:
    """Return the transform that an architecture's ImageNet weights expect.

    Crop, kernel, mean and deviation are those of torchvision's DEFAULT weights (`transforms()`), or of timm's default
    weights (`pretrained_cfg`). The shorter side is resized to the crop itself, not to the somewhat larger size of
    their evaluation recipes, so that photos of the right size are not blurred.

    Raises:
        ValueError: timm has no such model.
    """
    if architecture.startswith(TIMM):
        recipe = timm_recipe(architecture)
        kernel = Interpolation(recipe.interpolation)
        return Transform(recipe.side * 8 // 7, recipe.side, recipe.mean, recipe.std, kernel)
    side, kernel = _RECIPES.get(architecture, (224, Interpolation.BILINEAR))
    transform = Transform(resize=side * 8 // 7, crop=side, interpolation=kernel)
    if architecture == "efficientnet_v2_l":
        return replace(transform, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    return transform


# torchvision 0.28: crop size and kernel of the DEFAULT weights, where they are not 224 and bilinear.
_RECIPES = {
    "efficientnet_b0": (224, Interpolation.BICUBIC),
    "efficientnet_b1": (240, Interpolation.BILINEAR),
    "efficientnet_b2": (288, Interpolation.BICUBIC),
    "efficientnet_b3": (300, Interpolation.BICUBIC),
    "efficientnet_b4": (380, Interpolation.BICUBIC),
    "efficientnet_b5": (456, Interpolation.BICUBIC),
    "efficientnet_b6": (528, Interpolation.BICUBIC),
    "efficientnet_b7": (600, Interpolation.BICUBIC),
    "efficientnet_v2_s": (384, Interpolation.BILINEAR),
    "efficientnet_v2_m": (480, Interpolation.BILINEAR),
    "efficientnet_v2_l": (480, Interpolation.BICUBIC),
    "inception_v3": (299, Interpolation.BILINEAR),
    "maxvit_t": (224, Interpolation.BICUBIC),
    "regnet_y_128gf": (384, Interpolation.BICUBIC),
    "swin_t": (224, Interpolation.BICUBIC),
    "swin_s": (224, Interpolation.BICUBIC),
    "swin_b": (224, Interpolation.BICUBIC),
    "swin_v2_t": (256, Interpolation.BICUBIC),
    "swin_v2_s": (256, Interpolation.BICUBIC),
    "swin_v2_b": (256, Interpolation.BICUBIC),
    "vit_h_14": (518, Interpolation.BICUBIC),
}


def _random_box(
    height: int, width: int, augmentation: Augmentation, draw: random.Random
) -> tuple[float, float, float, float]:
    limit = math.log(augmentation.max_aspect)
    for _ in range(10):
        area = height * width * draw.uniform(augmentation.min_area, 1)
        aspect = math.exp(draw.uniform(-limit, limit))
        box_width, box_height = math.sqrt(area * aspect), math.sqrt(area / aspect)
        if box_width <= width and box_height <= height:
            left, top = draw.uniform(0, width - box_width), draw.uniform(0, height - box_height)
            return left, top, left + box_width, top + box_height
    side = min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def _triple(values: Any) -> tuple[float, float, float]:
    first, second, third = (float(v) for v in values)
    return first, second, third
