"""Pixels lie where the reported windows say, seen on images whose pixels tell their own coordinates."""

import numpy as np
import pytest
from PIL import Image
from softfeed.pipelines import (
    CenterCrop,
    Flip,
    Loader,
    Normalize,
    Occlude,
    PadCrop,
    RandomResizedCrop,
    Recipe,
    SoftCrop,
    SoftShift,
)
from softfeed.pipelines.shards.convert import ShardOptions, convert

# Pixel values come out as value / 256, exactly.
VALUES = Normalize(mean=(0.0, 0.0, 0.0), std=(256 / 255,) * 3)


@pytest.fixture
def ramp_folder(tmp_path):
    """Makes a folder of two images: red is 40 + x / step, green 40 + y / step, blue 255."""

    def make(height, width, step=1):
        y, x = np.mgrid[:height, :width]
        pixels = np.stack([40 + x // step, 40 + y // step, np.full_like(x, 255)], axis=2).astype(np.uint8)
        for name in ("a", "b"):
            (tmp_path / "ramp" / name).mkdir(parents=True)
            Image.fromarray(pixels).save(tmp_path / "ramp" / name / "0.png")
        return tmp_path / "ramp"

    return make


def play(folder, recipe, size, device, count=64):
    with Loader(folder, recipe, count, size, device=device, last_batch="fill", details=True, shuffle=True) as loader:
        batch = next(iter(loader))
    return (batch.images.cpu().double() * 256).numpy(), batch.details


@pytest.mark.parametrize("raw", [False, True], ids=["png", "raw"])
@pytest.mark.parametrize("crop", [SoftShift(sigma=0.5), PadCrop(padding=9)], ids=lambda crop: type(crop).__name__)
def test_fixed_size_windows_pixel_by_pixel(ramp_folder, device, tmp_path, crop, raw):
    data = ramp_folder(32, 32)
    if raw:
        convert(data, tmp_path / "set", ShardOptions(raw=True))
        data = tmp_path / "set"
    images, details = play(data, Recipe(crop=crop, normalize=VALUES), 32, device)
    assert 10 < details["flipped"].sum() < 54
    y, x = np.mgrid[:32, :32]
    for image, window, flipped in zip(images, details["window"], details["flipped"], strict=True):
        source_x, source_y = x + window[0], y + window[1]
        inside = (source_x >= 0) & (source_x < 32) & (source_y >= 0) & (source_y < 32)
        expected = np.stack([40 + source_x, 40 + source_y, np.full_like(x, 255)]) * inside
        np.testing.assert_allclose(image, expected[:, :, ::-1] if flipped else expected, atol=1e-3)


@pytest.mark.parametrize(
    "crop", [SoftCrop(sigma=0.5, min_side=32), RandomResizedCrop(), CenterCrop()], ids=lambda crop: type(crop).__name__
)
def test_resized_windows_to_a_part_of_a_pixel(ramp_folder, device, crop):
    """Source coordinates are read off the colours; the ramps are linear, so interpolation keeps them."""
    height, width, size, step = 300, 400, 64, 2
    images, details = play(ramp_folder(height, width, step), Recipe(crop=crop, normalize=VALUES), size, device)
    centres = np.arange(size) + 0.5
    seen = 0
    for image, window, flipped in zip(images, details["window"], details["flipped"], strict=True):
        image = image[:, :, ::-1] if flipped else image
        filled = image[2] > 254
        for axis, (start, length, limit) in enumerate([(window[0], window[2], width), (window[1], window[3], height)]):
            expected = start + centres * length / size  # source coordinate at each output pixel's centre
            along = filled.any(axis=axis)
            read = (image[axis].sum(axis=axis)[along] / filled.sum(axis=axis)[along] - 40 + 0.5) * step
            # Beside the border the filter is cut off; the rest is off by rounding to whole pixels: half an output
            # pixel at either end of the visible part, one value of the ramp, and the ramp's own steps.
            scale = length / size
            away = (expected[along] > 2 * scale) & (expected[along] < limit - 2 * scale)
            np.testing.assert_allclose(read[away], expected[along][away], atol=scale / 2 + 1.5 * step)
            seen += away.sum()
    assert seen > 64 * 30


def test_center_crop_takes_torchvisions_window(ramp_folder, device):
    from torchvision.transforms import functional

    folder = ramp_folder(101, 167)
    images, _ = play(folder, Recipe(crop=CenterCrop(resize=80), flip=None, normalize=VALUES), 64, device, count=2)
    reference = functional.center_crop(functional.resize(Image.open(folder / "a" / "0.png"), 80), 64)
    # the window touches no border, so only the rounding of a pixel value remains
    np.testing.assert_allclose(images[0], np.asarray(reference).transpose(2, 0, 1), atol=1.001)


def test_occlusion_hides_the_reported_square(ramp_folder, device):
    recipe = Recipe(crop=CenterCrop(), flip=None, normalize=VALUES, occlude=Occlude(share=0.3))
    images, details = play(ramp_folder(64, 64), recipe, 64, device)
    y, x = np.mgrid[:64, :64]
    for image, ((left, top, width, height),) in zip(images, details["patches"], strict=True):
        hidden = (x >= left) & (x < left + width) & (y >= top) & (y < top + height)
        np.testing.assert_array_equal((image == 0).all(axis=0), hidden)
    corners = details["patches"][:, 0, :2]
    assert corners.min() < 5
    assert corners.max() > 64 - 35 - 5
    assert len(np.unique(corners, axis=0)) > 50


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_flip_probability(ramp_folder, device, probability):
    recipe = Recipe(crop=CenterCrop(), flip=Flip(probability), normalize=VALUES)
    images, details = play(ramp_folder(32, 32), recipe, 32, device)
    assert (details["flipped"] == bool(probability)).all()
    assert ((images[:, 0, 0, 0] > images[:, 0, 0, -1]) == bool(probability)).all()
