"""Masks cover the pixels that they report, the label knows how many, and they fall as their papers say."""

import numpy as np
import pytest
import torch
from scipy import stats
from softfeed.pipelines import (
    AdditiveNoise,
    CenterCrop,
    Cutout,
    GridMask,
    HideAndSeek,
    Linear,
    Loader,
    Mollify,
    Occlude,
    PadCrop,
    RandomErasing,
    Recipe,
    SoftCrop,
)
from softfeed.pipelines.draws import Draws
from softfeed.pipelines.finishing import Finisher
from softfeed.pipelines.occlusion import occlude_batch
from softfeed.pipelines.shards.convert import ShardOptions, convert
from softfeed.pipelines.threads import RowThreads

SIZE = 48
DRAWS = 2000
N = 20_000
MASKS = [
    Occlude(share=0.4),
    Occlude(share=(0.1, 0.9), power=3),
    Occlude(share=0.0),
    Occlude(share=1.0),
    RandomErasing(),
    RandomErasing(probability=1.0, area=(0.5, 1.0), power=1),
    Cutout(side=21),
    Cutout(side=SIZE),
    HideAndSeek(grid=5),  # cells of 9 and of 10 pixels
    HideAndSeek(grid=16, probability=0.3),
    GridMask(spacing=(7, 30)),
    GridMask(ratio=0.0, spacing=(5, SIZE), probability=1.0),
]


def play(data, recipe, device, **options):
    """Images, confidence and details of DRAWS samples."""
    with Loader(data, recipe, 250, SIZE, device=device, last_batch="fill", details=True, **options) as loader:
        batches = [next(iter(loader)) for _ in range(DRAWS // 250)]
    images, confidence = (torch.cat([batch[i] for batch in batches]).cpu().numpy() for i in (0, 2))
    details = {name: np.concatenate([batch.details[name] for batch in batches]) for name in batches[0].details}
    return images, confidence.astype(np.float64), details


def painted(patches):
    """Masks (N, SIZE, SIZE) of rectangles (N, M, 4), painted pixel by pixel; overlaps fail."""
    times = np.zeros((len(patches), SIZE, SIZE), int)
    for mask, rectangles in zip(times, patches, strict=True):
        for left, top, width, height in rectangles[rectangles[:, 2:].all(axis=1)]:
            mask[top : top + height, left : left + width] += 1
    assert times.max() <= 1
    return times == 1


@pytest.mark.parametrize("mask", MASKS, ids=repr)
def test_covered_pixels_of_a_white_image_give_the_confidence(white_folder, device, mask):
    # the default normalisation takes white to about 2.4 and nothing that a pixel can hold to exactly 0
    recipe = Recipe(crop=CenterCrop(), occlude=mask)
    images, confidence, details = play(white_folder((SIZE, SIZE), (90, 70)), recipe, device, shuffle=True)
    hidden = (images == 0).all(axis=1)
    assert (images.min(axis=1)[~hidden] > 2).all(), "a pixel is neither white nor hidden"
    np.testing.assert_array_equal(hidden, painted(details["patches"]))
    covered = hidden.sum(axis=(1, 2))
    np.testing.assert_array_equal(covered, details["covered"])
    np.testing.assert_allclose(confidence, 0.5 + 0.5 * (1 - (covered / SIZE**2) ** mask.power), rtol=3e-7)


@pytest.mark.parametrize("mask", MASKS, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_batch_at_once_is_masked_as_image_by_image(device, mask, dtype, layout):
    images = torch.randn(40, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)).to(dtype, memory_format=layout)
    patches = mask.patches(Draws(2, 1, 0, 40), SIZE, 0.5)
    at_once = images.to(device, copy=True)
    memory = at_once.data_ptr()
    occlude_batch(at_once, patches)
    Finisher(SIZE, torch.device("cpu"), RowThreads(1)).occlude(images, patches)
    assert torch.equal(at_once.cpu(), images)
    np.testing.assert_array_equal((images == 0).all(dim=1), painted(np.stack(patches, axis=2)))
    assert at_once.data_ptr() == memory
    assert at_once.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("mask", [GridMask(spacing=(7, 30)), HideAndSeek(), RandomErasing()], ids=repr)
def test_confidence_with_everything_else_is_the_product_rule(photo_folder, mask):
    recipe = Recipe(SoftCrop(sigma=0.5, min_side=40), occlude=mask, noise=AdditiveNoise(), mollify=Mollify(blur=0))
    _, confidence, details = play(photo_folder, recipe, "cpu")
    crop = 1 - (1 - details["visibility"].astype(np.float64)) ** 2
    masked = 1 - (details["covered"] / SIZE**2) ** 2
    noise = 1 - np.minimum(abs(details["noise_amplitude"].astype(np.float64)) / 0.3, 1)
    angle = details["mollify_strength"].astype(np.float64) * np.pi / 2
    mollify = np.where(details["mollify_role"] == "noise", np.cos(angle) ** 2, 1)
    np.testing.assert_allclose(confidence, 0.5 + 0.5 * crop * masked * noise * mollify, rtol=0, atol=3e-7)


def test_raw_images_in_views(white_folder, device, tmp_path):
    convert(white_folder((SIZE, SIZE), (SIZE, SIZE)), tmp_path / "set", ShardOptions(raw=True))
    recipe = Recipe(crop=PadCrop(padding=0), occlude=GridMask(spacing=(7, 30), probability=1.0), views=2)
    with Loader(tmp_path / "set", recipe, 100, SIZE, device=device, last_batch="fill", details=True) as loader:
        batch = next(iter(loader))
    hidden = (batch.images == 0).all(dim=2).cpu().numpy()
    for view in range(2):
        np.testing.assert_array_equal(hidden[view], painted(batch.details["patches"][view]))
    assert (hidden[0] != hidden[1]).any(axis=(1, 2)).mean() > 0.9


def drawn(mask, size=64, epoch=0.0):
    """(left, top, width, height), each (N, M), and the covered share of N samples."""
    patches = mask.patches(Draws(3, 0, 0, N), size, epoch)
    return (*patches, patches.covered() / size**2)


def assert_same_distribution(ours, reference):
    assert stats.ks_2samp(np.ravel(ours), np.ravel(reference)).pvalue > 1e-3


def test_occlude_draws_its_share_uniformly():
    rng = np.random.default_rng(1)
    left, top, width, height, covered = drawn(Occlude(share=(0.2, 0.6)))
    side = np.rint(np.sqrt(rng.uniform(0.2, 0.6, N)) * 64)
    np.testing.assert_array_equal(width, height)
    assert_same_distribution(covered, side**2 / 64**2)
    for corner in (left, top):
        assert_same_distribution(corner, rng.integers(0, 64 - side + 1))
    assert abs(np.corrcoef(left[:, 0], top[:, 0])[0, 1] - side.var() * 0.25 / left.var()) < 0.03


def test_random_erasing_like_torchvision():
    from torchvision.transforms import RandomErasing as Reference

    left, top, width, height, covered = drawn(RandomErasing(probability=0.5))
    erased = covered > 0
    assert stats.binomtest(int(erased.sum()), N, 0.5).pvalue > 1e-3
    torch.manual_seed(0)
    image = torch.empty(3, 64, 64)
    reference = np.array([Reference.get_params(image, (0.02, 0.4), (0.3, 1 / 0.3), [0.0])[:4] for _ in range(4000)])
    for ours, column in zip((top, left, height, width), reference.T, strict=True):
        assert_same_distribution(ours[erased], column)
    assert_same_distribution(covered[erased], reference[:, 2] * reference[:, 3] / 64**2)


def test_an_image_that_no_rectangle_fits_stays_whole():
    covered = drawn(RandomErasing(probability=1.0, area=(1.0, 1.0), ratio=(1.0, 1.0)))[4]
    assert (covered == 0).all()


@pytest.mark.parametrize("side", [16, 33])
def test_cutout_is_centred_anywhere_and_cut_off(side):
    rng = np.random.default_rng(2)
    *_, covered = rectangles = drawn(Cutout(side=side))
    ends = []
    for start, length in ((rectangles[0], rectangles[2]), (rectangles[1], rectangles[3])):
        centre = rng.integers(0, 64, N)
        first, last = np.maximum(centre - side // 2, 0), np.minimum(centre - side // 2 + side, 64)
        assert_same_distribution(start, first)
        assert_same_distribution(start + length, last)
        ends.append(last - first)
    assert_same_distribution(covered, ends[0] * ends[1] / 64**2)
    assert len(np.unique(covered)) > 20


def test_hide_and_seek_hides_all_there_is():
    for grid in (1, 5, 64):
        patches = HideAndSeek(grid=grid, probability=1.0).patches(Draws(3, 0, 0, 10), 64, 0)
        assert (patches.covered() == 64**2).all()


def test_hide_and_seek_hides_cells_independently():
    hidden = drawn(HideAndSeek(grid=4, probability=0.3))[2] > 0
    counts = np.bincount(hidden.sum(axis=1), minlength=17)
    expected = stats.binom(16, 0.3).pmf(np.arange(17)) * N
    rare = expected < 5
    counts, expected = (np.append(values[~rare], values[rare].sum()) for values in (counts, expected))
    assert stats.chisquare(counts, expected).pvalue > 1e-3
    assert abs(hidden.mean(axis=0) - 0.3).max() < 0.015
    assert abs(np.corrcoef(hidden.T) - np.eye(16)).max() < 0.03


def reference_grid_mask(rng, size, ratio, spacing):
    """Chen et al.'s `Grid` without rotation, mode 1, for one image: True where it is hidden."""
    rows, columns = np.ones(2 * size, bool), np.ones(2 * size, bool)
    d = rng.integers(spacing[0], spacing[1] + 1)
    kept = min(max(int(d * ratio + 0.5), 1), d - 1)
    for line in (rows, columns):
        for start in range(rng.integers(d), 2 * size, d):
            line[start : start + kept] = False
    middle = slice(size // 2, size // 2 + size)  # the authors cut the middle out of a larger mask
    return rows[middle, None] & columns[middle]


@pytest.mark.parametrize("ratio", [0.4, 0.6])
def test_grid_mask_like_its_authors_code(ratio):
    rng = np.random.default_rng(3)
    covered = drawn(GridMask(ratio=ratio, spacing=(12, 40), probability=0.8))[4]
    masked = covered > 0
    assert stats.binomtest(int(masked.sum()), N, 0.8).pvalue > 1e-3
    reference = np.array([reference_grid_mask(rng, 64, ratio, (12, 40)).mean() for _ in range(6000)])
    assert_same_distribution(covered[masked], reference)


def test_grid_mask_lies_on_a_grid_of_any_offset():
    left, top, width, height, _ = drawn(GridMask(ratio=0.5, spacing=(17, 17), probability=1.0))
    hidden = width * height > 0
    for start, length in ((left, width), (top, height)):
        begins = np.where(hidden & (start > 0), start % 17, -1)
        offset = begins.max(axis=1)
        assert ((begins == offset[:, None]) | (begins == -1)).all(), "squares of one image are not 17 pixels apart"
        share = [((start <= x) & (x < start + length) & hidden).any(axis=1).mean() for x in range(64)]
        np.testing.assert_allclose(share, 8 / 17, atol=0.015)  # the same at the borders as elsewhere


def test_probability_follows_its_schedule(white_folder):
    for mask in (RandomErasing, HideAndSeek, GridMask):
        ramp = mask(probability=Linear(0.0, 1.0, 0, 10))
        shares = [(drawn(ramp, size=224, epoch=epoch)[2].max(axis=1) > 0).mean() for epoch in (0, 0.1, 10)]
        assert shares[0] == 0, mask
        assert 0 < shares[1] < 0.3, mask
        assert shares[2] == 1, mask


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Occlude(share=-0.1), r"share must be in \[0, 1\], got -0.1"),
        (lambda: Occlude(share=float("nan")), r"share must be in \[0, 1\], got nan"),
        (lambda: Occlude(share=(0.2, 1.1)), r"share must be an increasing pair in \[0.0, 1.0\], got \(0.2, 1.1\)"),
        (lambda: Occlude(share=(0.5, 0.2)), r"share must be an increasing pair in .* got \(0.5, 0.2\)"),
        (lambda: Occlude(power=0), "power must be positive, got 0"),
        (lambda: RandomErasing(probability=2), r"probability must be in \[0, 1\], got 2"),
        (lambda: RandomErasing(area=(0.1, 1.2)), r"area must be an increasing pair in .* got \(0.1, 1.2\)"),
        (lambda: RandomErasing(ratio=(0.0, 1.0)), r"ratio must be an increasing pair in .* got \(0.0, 1.0\)"),
        (lambda: RandomErasing(power=-1), "power must be positive, got -1"),
        (lambda: Cutout(side=0), "side must be a whole number of at least 1, got 0"),
        (lambda: Cutout(side=8.5), "side must be a whole number of at least 1, got 8.5"),
        (lambda: Cutout(power=0), "power must be positive, got 0"),
        (lambda: HideAndSeek(grid=0), "grid must be a whole number of at least 1, got 0"),
        (lambda: HideAndSeek(probability=-0.5), r"probability must be in \[0, 1\], got -0.5"),
        (lambda: GridMask(ratio=1.5), r"ratio must be in \[0, 1\], got 1.5"),
        (lambda: GridMask(spacing=(1, 20)), r"spacing must be an increasing pair in \[2, inf\], got \(1, 20\)"),
        (lambda: GridMask(spacing=(30, 20)), r"spacing must be an increasing pair in .* got \(30, 20\)"),
        (lambda: GridMask(spacing=(10.5, 20)), "spacing must be a whole number of at least 1, got 10.5"),
        (lambda: GridMask(probability=1.01), r"probability must be in \[0, 1\], got 1.01"),
    ],
)
def test_bad_values(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (Cutout(side=49), "side must be at most image_size, 48, with Cutout, got 49"),
        (HideAndSeek(grid=49), "grid must be at most image_size, 48, so that cells have a pixel, got 49"),
        (GridMask(), r"spacing must be at most image_size, 48, got \(96, 224\)"),
    ],
)
def test_masks_that_do_not_fit_the_images(white_folder, mask, message):
    with pytest.raises(ValueError, match=message):
        Loader(white_folder((SIZE, SIZE), (SIZE, SIZE)), Recipe(occlude=mask), 2, SIZE, device="cpu")
