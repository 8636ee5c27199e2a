"""Image and label agree: the pixels of a white image that survive, counted, give the confidence that came with it."""

from dataclasses import replace

import numpy as np
import pytest
from softfeed.pipelines import (
    CenterCrop,
    Loader,
    Normalize,
    Occlude,
    PadCrop,
    RandAugment,
    RandomResizedCrop,
    Recipe,
    SoftCrop,
    SoftShift,
)
from softfeed.pipelines.shards.convert import ShardOptions, convert

# Division by 256 is exact: white is 255/256, and a fill value that is not exactly 0 would show.
PLAIN = Normalize(mean=(0.0, 0.0, 0.0), std=(256 / 255,) * 3)
WHITE = 255 / 256
DRAWS = 2000
SHAPES = [(300, 200), (64, 64), (97, 331), (20, 500), (1, 1), (129, 64)]
# Truncating a very wide Gaussian makes the shifts nearly uniform, so that windows miss the image often.
WIDE = 3.0


def play(data, recipe, size, device, **options):
    """(surviving pixels, confidence, details) of DRAWS samples."""
    batch = 250
    with Loader(
        data, recipe, batch, size, device=device, last_batch="fill", details=True, index=True, **options
    ) as loader:
        rows = []
        while sum(len(row[0]) for row in rows) < DRAWS:
            for images, _, confidence, index, details in loader:
                white = (images == WHITE).all(dim=1)
                assert ((images.abs() < 1e-30).all(dim=1) | white).all(), "pixels that are neither image nor fill"
                rows.append((white.sum(dim=(1, 2)).cpu().numpy(), confidence.cpu().numpy(), index.cpu(), details))
    survivors, confidences, indices = (np.concatenate([row[i] for row in rows])[:DRAWS] for i in range(3))
    windows = np.concatenate([row[3]["window"] for row in rows])[:DRAWS]
    return survivors, confidences, indices, windows


def expected_confidence(visibility, power, classes=2):
    return 1 / classes + (1 - 1 / classes) * (1 - (1 - visibility.astype(np.float64)) ** power)


@pytest.mark.parametrize("sigma", [0.3, WIDE])
@pytest.mark.parametrize("size", [64, 224])
def test_soft_crop(white_folder, device, sigma, size):
    folder = white_folder(*SHAPES)
    recipe = Recipe(crop=SoftCrop(sigma=sigma, min_side=16), normalize=PLAIN)
    survivors, confidence, index, windows = play(folder, recipe, size, device)
    # rows of the folder are in the order of its classes c0, c1
    shapes = np.array(SHAPES[0::2] + SHAPES[1::2], np.float64)[index]
    share_of_image = windows[:, 2].astype(np.float64) * windows[:, 3] / shapes.prod(axis=1)
    np.testing.assert_allclose(
        confidence, expected_confidence(survivors / size**2 * share_of_image, power=2), rtol=3e-7
    )
    if sigma == WIDE:
        assert (survivors == 0).sum() > 20, "no window missed the image"
        assert (confidence[survivors == 0] == 0.5).all()


@pytest.mark.parametrize("raw", [False, True], ids=["png", "raw"])
@pytest.mark.parametrize("sigma", [0.3, WIDE])
def test_soft_shift(white_folder, device, sigma, raw, tmp_path):
    data = white_folder((32, 32), (32, 32), (32, 32))
    if raw:
        convert(data, tmp_path / "set", ShardOptions(raw=True))
        data = tmp_path / "set"
    recipe = Recipe(crop=SoftShift(sigma=sigma, power=3), normalize=PLAIN)
    survivors, confidence, _, _ = play(data, recipe, 32, device)
    np.testing.assert_allclose(confidence, expected_confidence(survivors / 32**2, power=3), rtol=3e-7)
    assert len(np.unique(survivors)) > 100
    if sigma == WIDE:
        assert (survivors == 0).sum() > 20, "no window missed the image"


def test_raw_images_through_a_crop_that_resizes(white_folder, device, tmp_path):
    convert(white_folder((48, 40), (48, 40)), tmp_path / "set", ShardOptions(raw=True))
    recipe = Recipe(crop=SoftCrop(sigma=WIDE, min_side=8), normalize=PLAIN)
    survivors, confidence, _, windows = play(tmp_path / "set", recipe, 32, device)
    visibility = survivors / 32**2 * (windows[:, 2].astype(np.float64) * windows[:, 3] / (48 * 40))
    np.testing.assert_allclose(confidence, expected_confidence(visibility, power=2), rtol=3e-7)


def test_occlusion_multiplies_the_certainty(white_folder, device):
    # The crop takes the whole image, so what is missing is the patch.
    recipe = Recipe(crop=CenterCrop(), normalize=PLAIN, occlude=Occlude(share=0.4, power=2))
    survivors, confidence, _, _ = play(white_folder((50, 50), (64, 64)), recipe, 64, device, shuffle=True)
    assert (survivors == 64**2 - 40**2).all(), "the patch is not a whole square inside the image"
    np.testing.assert_allclose(confidence, expected_confidence(survivors / 64**2, power=2), rtol=3e-7)


def test_occlusion_and_soft_crop_together(white_folder, device):
    crop, occlude = SoftCrop(min_side=16), Occlude(share=0.2)
    folder = white_folder((96, 64), (64, 96))
    cropped = play(folder, Recipe(crop=crop, normalize=PLAIN), 64, device)[1]
    both = play(folder, Recipe(crop=crop, normalize=PLAIN, occlude=occlude), 64, device)[1]
    certainty = 1 - (round(0.2**0.5 * 64) ** 2 / 64**2) ** 2
    np.testing.assert_allclose(both - 0.5, (cropped.astype(np.float64) - 0.5) * certainty, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "crop", [RandomResizedCrop(), PadCrop(padding=4), CenterCrop()], ids=lambda c: type(c).__name__
)
def test_hard_crops_keep_full_confidence(white_folder, device, crop):
    survivors, confidence, _, _ = play(white_folder((64, 64), (64, 64)), Recipe(crop=crop, normalize=PLAIN), 64, device)
    assert (confidence == 1).all()
    if isinstance(crop, PadCrop):
        assert sorted(np.unique(survivors)) == sorted({(64 - x) * (64 - y) for x in range(5) for y in range(5)})
    else:
        assert (survivors == 64**2).all(), "a window inside the image was filled up"


def test_canvas_of_a_policy_is_placed_like_the_rest(white_folder, device):
    """With a policy the window goes to a canvas first; one that changes nothing shows that the geometry is the same."""

    class Unchanging(RandAugment):
        def suite(self):
            from nvidia.dali.auto_aug import augmentations

            brightness = augmentations.brightness.augmentation((0, 0.9), True, augmentations.shift_enhance_range)
            return [brightness, brightness]

    folder = white_folder((96, 64), (64, 96), (20, 200))
    recipe = Recipe(crop=SoftCrop(sigma=WIDE, min_side=16), normalize=PLAIN)
    plain = play(folder, recipe, 64, device)
    canvas = play(folder, replace(recipe, policy=Unchanging(num_ops=1, magnitude=0)), 64, device)
    for a, b in zip(plain, canvas, strict=True):
        np.testing.assert_array_equal(a, b)
