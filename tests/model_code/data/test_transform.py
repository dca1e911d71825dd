"""The transform: no needless blur, the same views everywhere, and torchvision's recipe."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from model_code.data.transform import Augmentation, Interpolation, Transform, for_architecture
from tests.model_code.photo_files import encoded, photo, picture


def test_a_photo_of_the_right_size_is_not_resampled() -> None:
    image = picture(1, 224, 224)
    assert np.array_equal(Transform().pixels(encoded(image, "PNG")), np.asarray(image))
    larger = picture(1, 250, 244)
    assert np.array_equal(Transform().pixels(encoded(larger, "PNG")), np.asarray(larger)[10:234, 13:237])


def test_a_small_photo_is_enlarged_to_the_crop_only() -> None:
    image = picture(1, 100, 56)
    expected = image.resize((224, 224), 2, box=(22, 0, 78, 56))
    assert np.array_equal(Transform().pixels(encoded(image, "PNG")), np.asarray(expected))


def test_the_centre_is_cut_without_stretching() -> None:
    image = picture(1, 400, 224)
    pixels = Transform().pixels(encoded(image, "PNG"))
    assert np.array_equal(pixels, np.asarray(image)[:, 88:312])


def test_resize_then_crop_agrees_with_torchvision() -> None:
    from PIL import Image

    from model_code.networks.torchvision_compat import torchvision

    image = picture(2, 500, 300)
    recipe = torchvision.transforms.Compose(
        [torchvision.transforms.Resize(256, antialias=True), torchvision.transforms.CenterCrop(224)]
    )
    ours = Transform().pixels(encoded(image, "PNG"))
    difference = np.abs(ours.astype(int) - np.asarray(recipe(Image.fromarray(np.asarray(image)))).astype(int))
    assert difference.mean() < 1.5


def test_normalised_pixels_are_torchvisions() -> None:
    import torch

    from model_code.networks.torchvision_compat import torchvision

    transform = Transform()
    pixels = np.asarray(picture(3, 224, 224))
    expected = torchvision.transforms.functional.normalize(
        torch.tensor(pixels).permute(2, 0, 1) / 255, list(transform.mean), list(transform.std)
    )
    assert np.allclose(transform.normalize(pixels), expected.numpy(), atol=1e-5)
    assert np.array_equal(transform.normalize(np.stack([pixels, pixels]))[1], transform.normalize(pixels))


def test_a_call_is_pixels_then_normalise() -> None:
    data = photo(4, 300, 260)
    transform = Transform()
    tensor = transform(data)
    assert tensor.shape == (3, 224, 224)
    assert tensor.dtype == np.float32
    assert np.array_equal(tensor, transform.normalize(transform.pixels(data)))


def test_a_far_larger_photo_is_decoded_small_and_looks_the_same() -> None:
    image = picture(5, 2400, 1800)
    fast = Transform().pixels(encoded(image, quality=95))
    slow = Transform().pixels(encoded(image, "PNG"))
    assert np.abs(fast.astype(int) - slow.astype(int)).mean() < 2


def test_views_depend_on_photo_and_view_only() -> None:
    data = photo(6, 300, 260)
    transform = Transform(resize=64, crop=64)
    together = transform.views(data, "key", range(4))
    for view, pixels in enumerate(together):
        assert np.array_equal(transform.views(data, "key", range(4))[view], pixels)
    assert np.array_equal(together[0], transform.pixels(data))
    assert np.array_equal(together[1], together[0][:, ::-1])
    assert not np.array_equal(together[2], together[3])
    assert not np.array_equal(together[2], transform.views(data, "other", range(4))[2])


def test_json_gives_back_an_equal_transform_with_the_same_id() -> None:
    import json

    transform = Transform(256, 224, interpolation=Interpolation.BICUBIC, augmentation=Augmentation(0.5))
    copy = Transform.from_dict(json.loads(json.dumps(transform.to_dict())))
    assert copy == transform
    assert copy.id == transform.id
    assert copy.id != Transform().id


@pytest.mark.parametrize("change", [{"resize": 100, "crop": 224}, {"crop": 0}, {"std": (0.0, 1.0, 1.0)}])
def test_nonsense_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must|need"):
        Transform(**change)


def test_unknown_fields_are_named() -> None:
    with pytest.raises(ValueError, match="blur"):
        Transform.from_dict({**Transform().to_dict(), "blur": 1})


def test_every_torchvision_architecture_gets_its_own_recipe() -> None:
    from model_code.networks.torchvision_compat import torchvision

    models = torchvision.models
    for name in models.list_models(module=models):
        recipe = models.get_model_weights(name).DEFAULT.transforms()
        ours = for_architecture(name)
        assert [ours.crop] == recipe.crop_size, name
        assert ours.interpolation.value == recipe.interpolation.value, name
        assert (list(ours.mean), list(ours.std)) == (list(recipe.mean), list(recipe.std)), name
