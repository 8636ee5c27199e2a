"""Several versions of each sample: their windows are the reported ones, and their overlap is what pixels count."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from softfeed import softops
from softfeed.pipelines import (
    CenterCrop,
    Loader,
    Mollify,
    Normalize,
    Occlude,
    RandomResizedCrop,
    Recipe,
    SoftCrop,
    SoftShift,
    TrivialAugment,
)
from softfeed.pipelines.shards.convert import ShardOptions, convert

VALUES = Normalize(mean=(0.0, 0.0, 0.0), std=(256 / 255,) * 3)  # pixel values come out as value / 256, exactly


@pytest.fixture(params=["png", "raw"])
def ramp_data(request, tmp_path):
    """Six images of 32 x 32: red is 40 + x, green 40 + y, blue 250 + the image's number."""
    y, x = np.mgrid[:32, :32]
    for i in range(6):
        pixels = np.stack([40 + x, 40 + y, np.full_like(x, 250 + i)], axis=2).astype(np.uint8)
        path = tmp_path / "ramp" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    if request.param == "raw":
        convert(tmp_path / "ramp", tmp_path / "set", ShardOptions(raw=True, shuffle=False))
        return tmp_path / "set"
    return tmp_path / "ramp"


def test_windows_of_every_view_are_the_reported_ones(ramp_data, device):
    recipe = Recipe(crop=SoftShift(sigma=0.5), normalize=VALUES, views=3)
    with Loader(ramp_data, recipe, 40, 32, device=device, last_batch="fill", details=True, index=True) as loader:
        batch = next(iter(loader))
    assert batch._fields == ("images", "labels", "confidence", "iou", "index", "details")
    assert batch.images.shape == (3, 40, 3, 32, 32)
    assert batch.labels.shape == (40,)
    assert batch.confidence.shape == (3, 40)
    y, x = np.mgrid[:32, :32]
    blue = batch.images[:, :, 2].cpu().double() * 256
    for view in range(3):
        for sample in range(40):
            window, flipped = batch.details["window"][view, sample], batch.details["flipped"][view, sample]
            source_x, source_y = x + window[0], y + window[1]
            inside = (source_x >= 0) & (source_x < 32) & (source_y >= 0) & (source_y < 32)
            image = (batch.images[view, sample].cpu().double() * 256).numpy()
            expected = np.stack([40 + source_x, 40 + source_y]) * inside
            np.testing.assert_allclose(image[:2], expected[:, :, ::-1] if flipped else expected, atol=1e-3)
    # all views of a sample show the same image
    numbers = torch.where(blue > 200, blue, torch.nan).flatten(2).nanmean(dim=2)
    for other in numbers[1:]:
        seen = numbers[0].isfinite() & other.isfinite()  # both windows show something of it
        assert seen.sum() > 20
        torch.testing.assert_close(numbers[0][seen], other[seen])
    assert (batch.details["window"][0] != batch.details["window"][1]).any(axis=1).mean() > 0.9


def test_iou_is_that_of_counted_pixels(photo_folder):
    with Loader(
        photo_folder, Recipe(crop=SoftCrop(), views=2), 50, 32, device="cpu", last_batch="fill", details=True
    ) as loader:
        batch = next(iter(loader))
    windows = batch.details["window"].astype(int)
    y, x = np.mgrid[-700:1400, -700:1400]
    for sample in range(50):
        a, b = (
            (x >= left) & (x < left + width) & (y >= top) & (y < top + height)
            for left, top, width, height in windows[:, sample]
        )
        np.testing.assert_allclose(batch.iou[0, 1, sample], (a & b).sum() / (a | b).sum(), rtol=1e-6)
    torch.testing.assert_close(batch.iou[0, 1], batch.iou[1, 0])
    assert (batch.iou[0, 0] == 1).all()
    assert batch.iou[0, 1].std() > 0.05


def test_the_first_view_is_what_one_view_gives(ramp_data):
    one = Recipe(crop=SoftShift(), mollify=Mollify(1, 1, 1, 1))
    two = Recipe(crop=SoftShift(), mollify=Mollify(1, 1, 1, 1), views=2)
    with Loader(ramp_data, one, 6, 32, device="cpu") as a, Loader(ramp_data, two, 6, 32, device="cpu") as b:
        single, double = next(iter(a)), next(iter(b))
    torch.testing.assert_close(double.images[0], single.images, rtol=0, atol=1e-6)
    torch.testing.assert_close(double.confidence[0], single.confidence, rtol=0, atol=0)
    assert (double.images[1] != single.images).any()


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(crop=SoftCrop(sigma=0.5)),
        Recipe(crop=RandomResizedCrop()),  # windows that end between pixels
        Recipe(crop=SoftCrop(), policy=TrivialAugment(), occlude=Occlude(share=(0.0, 0.5))),
    ],
)
@pytest.mark.parametrize("roi", [True, False])
def test_a_shared_decode_changes_nothing(photo_folder, recipe, roi):
    """Each view has the pixels that it has when it is the only one: JPEGs are cut in the middle of their blocks."""
    options = {"device": "cpu", "details": True, "roi_decode": roi}
    with Loader(photo_folder, replace(recipe, views=3), 10, 64, **options) as loader:
        together = next(iter(loader))
    with Loader(photo_folder, recipe, 10, 64, **options) as loader:
        alone = next(iter(loader))
    torch.testing.assert_close(together.images[0], alone.images, rtol=0, atol=0)
    assert len({image.numpy().tobytes() for view in together.images for image in view}) == 30


def test_a_view_is_its_own_window_of_a_jpeg(photo_folder):
    """The second view against Pillow: decoded whole, cut, resized with antialiasing."""
    recipe = Recipe(crop=SoftCrop(sigma=0.3), flip=None, normalize=VALUES, views=2)
    with Loader(photo_folder, recipe, 10, 64, device="cpu", details=True, index=True) as loader:
        batch = next(iter(loader))
        paths = [loader.source(index) for index in batch.index.tolist()]
    for row, path in enumerate(paths):
        left, top, width, height = batch.details["window"][1, row]
        with Image.open(path) as photo:
            window = photo.convert("RGB").transform(
                (round(width), round(height)), Image.Transform.EXTENT, (left, top, left + width, top + height)
            )
        expected = np.asarray(window.resize((64, 64), Image.Resampling.BILINEAR)).astype(float)
        found = (batch.images[1, row].double() * 256).numpy().transpose(1, 2, 0)
        # Pillow blends the fill into the pixels at the image's border, where the graph repeats the edge
        assert np.median(abs(found - expected)) < 1.5
        assert (abs(found - expected) > 8).mean() < 0.1


def test_soft_targets_of_views(ramp_data):
    recipe = Recipe(crop=SoftShift(), views=2)
    with Loader(ramp_data, recipe, 6, 32, device="cpu") as a, Loader(ramp_data, recipe, 6, 32, targets="soft") as b:
        hard, soft = next(iter(a)), next(iter(b))
    assert soft.targets.shape == (2, 6, 2)
    for view in range(2):
        expected = softops.weighted_targets(hard.labels, hard.confidence[view], 2)
        torch.testing.assert_close(soft.targets[view].cpu(), expected)


@pytest.mark.parametrize(("views", "message"), [(0, "views must be a whole number"), (2, "views must be 1 for a crop")])
def test_bad_values(views, message):
    with pytest.raises(ValueError, match=message):
        Recipe(crop=CenterCrop(), views=views)
