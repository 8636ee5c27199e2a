"""The standard hard crops: pad-and-crop by slicing a padded image, RandomResizedCrop by torchvision's own loop."""

import math

import numpy as np
import pytest
from softfeed.softops import padded_window, random_resized_window

COUNT = 1200
ATTEMPTS = 10
# Sides up to 1,000: the float32 square root of an area is right to about 1000 * 2**-22, well below 1e-3 pixels.
NEAR_HALF = 1e-3


@pytest.mark.parametrize("padding", [0, 1, 4, 13])
def test_padded_window_is_a_window_of_the_padded_image(run, padding):
    side, choices = 32, 2 * padding + 1
    u = np.linspace(0, 1, 997, endpoint=False, dtype=np.float32)
    # 1 is no draw, but a float64 draw next to it becomes 1 as float32: then the last start, not one beyond it
    u = np.append(u, np.float32([1, 1 - 2**-24, 0.5, 2**-24]))
    width, height = np.full(len(u), side, np.float32), np.full(len(u), side + 5, np.float32)
    got = run(lambda w, h, x, y: padded_window(w, h, (x, y), padding=padding), width, height, u, u[::-1].copy())
    np.testing.assert_array_equal(got.width, width)
    np.testing.assert_array_equal(got.height, height)
    # u cuts [0, 1) in equal parts, one for each start in the padded image, whose border is `padding` wide
    for shift, draws in ((got.left, u), (got.top, u[::-1])):
        exact = draws.astype(np.float64) * choices
        settled = (abs(exact - np.round(exact)) > 1e-5) & (draws < 1)
        assert settled.mean() > 0.9
        np.testing.assert_array_equal(shift[settled], np.floor(exact[settled]) - padding)
        assert shift.min() == -padding
        assert shift.max() == padding


@pytest.mark.parametrize("padding", [0, 1, 4, 13])
def test_padded_shifts_are_equally_likely(run, padding):
    choices = 2 * padding + 1
    u = ((np.arange(50 * choices) + 0.5) / (50 * choices)).astype(np.float32)
    side = np.full(len(u), 32, np.float32)
    got = run(lambda s, x: padded_window(s, s, (x, x), padding=padding), side, u)
    values, counts = np.unique(got.left, return_counts=True)
    np.testing.assert_array_equal(values, np.arange(-padding, padding + 1))
    np.testing.assert_array_equal(counts, 50)
    np.testing.assert_array_equal(got.left, got.top)
    mirrored = run(lambda s, x: padded_window(s, s, (x, x), padding=padding), side, 1 - u)
    np.testing.assert_array_equal(mirrored.left, -got.left)


def images(seed=0):
    """Widths and heights: small ones all combined, extreme aspect ratios, photographs."""
    rng = np.random.default_rng(seed)
    special = np.array([1, 2, 3, 10, 100, 1000])
    width = np.concatenate([np.repeat(special, 6), rng.integers(1, 1001, 800), rng.integers(1, 20, COUNT)])[:COUNT]
    height = np.concatenate([np.tile(special, 6), rng.integers(1, 1001, COUNT)])[:COUNT]
    return width.astype(np.float32), height.astype(np.float32)


def uniforms(attempts=ATTEMPTS, seed=0):
    rows = np.random.default_rng(seed).random((2 * attempts + 2, COUNT), dtype=np.float32)
    rows[:, -3:] = 0, 1 - 2**-24, 1  # 1: what a float64 draw next to it becomes in float32
    return rows


def get_params(width, height, u, scale, ratio):
    """torchvision's RandomResizedCrop.get_params with given uniform draws: (j, i, w, h, how, settled).

    `settled` is False where a value comes so near to a rounding or comparison that float32 may decide otherwise.
    """
    settled = True

    def whole(x):
        nonlocal settled
        settled &= abs(x - math.floor(x) - 0.5) > NEAR_HALF
        return round(x)

    def position(free, draw):  # torch.randint(0, free + 1)
        nonlocal settled
        x = draw * (free + 1)
        settled &= x < NEAR_HALF or min(x % 1, 1 - x % 1) > NEAR_HALF / 10 or draw > 0.999
        return min(int(x), free)

    area = height * width
    log_ratio = math.log(ratio[0]), math.log(ratio[1])
    draws = iter(u)
    for _ in range((len(u) - 2) // 2):
        target_area = area * (scale[0] + (scale[1] - scale[0]) * next(draws))
        aspect_ratio = math.exp(log_ratio[0] + (log_ratio[1] - log_ratio[0]) * next(draws))
        w = whole(math.sqrt(target_area * aspect_ratio))
        h = whole(math.sqrt(target_area / aspect_ratio))
        if 0 < w <= width and 0 < h <= height:
            return position(width - w, u[-2]), position(height - h, u[-1]), w, h, "drawn", settled
    in_ratio = width / height
    if in_ratio < min(ratio):
        w, h, how = width, whole(width / min(ratio)), "narrow"
    elif in_ratio > max(ratio):
        w, h, how = whole(height * max(ratio)), height, "wide"
    else:
        w, h, how = width, height, "whole"
    return (width - w) // 2, (height - h) // 2, w, h, how, settled


def window_function(scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3)):
    def window(w, h, *u):
        attempts = [(u[2 * i], u[2 * i + 1]) for i in range((len(u) - 2) // 2)]
        return random_resized_window(w, h, attempts, u[-2:], scale=scale, ratio=ratio)

    return window


@pytest.mark.parametrize(
    ("attempts", "scale", "ratio", "ways"),
    [
        (10, (0.08, 1.0), (3 / 4, 4 / 3), {"drawn", "narrow", "wide"}),
        (2, (0.5, 1.0), (3 / 4, 4 / 3), {"drawn", "narrow", "wide", "whole"}),
        (0, (0.08, 1.0), (0.61, 1.67), {"narrow", "wide", "whole"}),
        (1, (0.2, 0.2), (1.0, 1.0), {"drawn", "narrow", "wide", "whole"}),
    ],
)
def test_random_resized_window_is_torchvisions(run, attempts, scale, ratio, ways):
    width, height = images()
    u = uniforms(attempts)
    got = run(window_function(scale, ratio), width, height, *u)
    rows = [
        get_params(int(w), int(h), draws, scale, ratio)
        for w, h, draws in zip(width, height, u.T.astype(np.float64).tolist(), strict=True)
    ]
    left, top, w, h, how, settled = (np.array(column) for column in zip(*rows, strict=True))
    assert settled.mean() > 0.95, "the test would look at too few samples"
    assert set(how[settled]) == ways
    for field, value, expected in zip(got._fields, got, (left, top, w, h), strict=True):
        np.testing.assert_array_equal(value[settled], expected[settled], err_msg=field)


def test_random_resized_window_lies_inside_the_image(run):
    width, height = images(seed=3)
    scale, ratio = (0.08, 1.0), (0.1, 0.3)  # a flat image's best window would be less than half a pixel wide
    for attempts in (0, 3):
        u = uniforms(attempts, seed=4)
        u[-2:, ::2] = 1  # what a float64 draw next to it becomes in float32: the last place
        got = run(window_function(scale, ratio), width, height, *u)
        for start, length, side in ((got.left, got.width, width), (got.top, got.height, height)):
            assert (length >= 1).all()
            assert (start >= 0).all()
            assert (start + length <= side).all()
            np.testing.assert_array_equal(start, np.floor(start))


def test_random_resized_window_keeps_scale_and_ratio(run):
    side = np.full(COUNT, 800, np.float32)
    got = run(window_function(), side, side, *uniforms(seed=5))
    share = got.width.astype(np.float64) * got.height / 800**2
    ratio = got.width.astype(np.float64) / got.height
    # sides of at least 190 pixels, each rounded by at most half a pixel
    assert share.min() > 0.08 * 0.994
    assert share.max() <= 1
    assert ratio.min() > 3 / 4 * 0.994
    assert ratio.max() < 4 / 3 * 1.006
    assert share.min() < 0.1
    assert share.max() > 0.85
    assert ratio.min() < 0.77
    assert ratio.max() > 1.3


def test_positions_are_equally_likely_and_reach_both_ends(run):
    """A window of 10 pixels in an image of 15 has six places along each axis."""
    choices = 6
    u = ((np.arange(50 * choices) + 0.5) / (50 * choices)).astype(np.float32)
    side, half = np.full(len(u), 15, np.float32), np.full(len(u), 0.5, np.float32)
    got = run(window_function(scale=(4 / 9, 4 / 9), ratio=(1.0, 1.0)), side, side, half, half, u, u[::-1].copy())
    np.testing.assert_array_equal(got.width, 10)
    for start in (got.left, got.top):
        values, counts = np.unique(start, return_counts=True)
        np.testing.assert_array_equal(values, np.arange(choices))
        np.testing.assert_array_equal(counts, 50)
    np.testing.assert_array_equal(got.left, got.top[::-1])
