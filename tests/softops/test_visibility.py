"""Placement and visibility: against painted images and nearest-neighbour maps, pixels counted in whole numbers."""

from itertools import product

import numpy as np
import pytest
from softfeed.softops import Window, place, visibility


def small_axes():
    """Every start, window length and image side of up to 6 pixels: int64 of shape (3, n)."""
    return np.array([row for row in product(range(-7, 8), range(1, 7), range(1, 7))]).T


def large_axes(count=3000, seed=0):
    """Seeded starts, lengths and sides of up to 4,000 pixels, windows that touch or miss the image included.

    Up to there `(edge - start) * out` is exact in float32 and a tie cannot be missed.
    """
    rng = np.random.default_rng(seed)
    length, side = rng.integers(1, 4001, (2, count))
    start = (-length + rng.random(count) * (length + side)).astype(np.int64)
    start[:20], start[20:40] = -length[:20], side[20:40]  # touches the image from outside
    start[40:60], start[60:80] = -2 * length[40:60], side[60:80] + 50
    start[80:100], length[80:100] = 0, side[80:100]
    return np.array([start, length, side])


def window_pairs(axes, *, inside_the_image_only=False):
    x = axes()
    if inside_the_image_only:
        x = x[:, x[1] <= x[2]]
    whole = np.array([[0, 0], [3, 6], [3, 6]])
    y = x[:, np.random.default_rng(1).permutation(x.shape[1])]  # unlike the other axis, so that a swap shows
    return np.append(x, whole, axis=1), np.append(y, whole, axis=1)


def source_span(start, length, side):
    """(first, count) of an image line's pixels that lie in the window, painted pixel by pixel."""
    line = np.arange(side.max())
    painted = (line >= start[:, None]) & (line < (start + length)[:, None]) & (line < side[:, None])
    return painted.argmax(axis=1), painted.sum(axis=1)


def output_span(start, length, side, out):
    """(first, count) of the output's pixels whose nearest neighbour is a pixel of the image.

    In units of 1 / (2 out) source pixels, so that all is whole numbers. A centre that falls on the border between
    two pixels takes the left one.
    """
    centre = 2 * out * start[:, None] + (2 * np.arange(out) + 1) * length[:, None]
    pixel = -(-centre // (2 * out)) - 1
    inside = (pixel >= 0) & (pixel < side[:, None])
    assert (abs(np.diff(inside.astype(int), axis=1)).sum(axis=1) <= 2).all(), "the visible part is one piece"
    return inside.argmax(axis=1), inside.sum(axis=1)


def float32(*arrays):
    return [np.asarray(array, np.float32) for array in arrays]


def placed(size):
    return lambda left, top, w, h, width, height: place(Window(left, top, w, h), width, height, size)


def seen(size):
    def function(left, top, w, h, width, height):
        window = Window(left, top, w, h)
        return visibility(window, place(window, width, height, size), width, height, size)

    return function


@pytest.mark.parametrize("axes", [small_axes, large_axes])
@pytest.mark.parametrize("size", [(1, 2), (5, 3), (224, 64)])
def test_place_is_the_nearest_neighbour_map(run, axes, size):
    x, y = window_pairs(axes)
    got = run(placed(size), *float32(x[0], y[0], x[1], y[1], x[2], y[2]))
    for axis, out, names in ((x, size[1], ("left", "width")), (y, size[0], ("top", "height"))):
        first, count = source_span(*axis)
        assert (count == 0).any()
        assert (count > 0).any()
        np.testing.assert_array_equal(getattr(got, f"source_{names[1]}"), count)
        np.testing.assert_array_equal(getattr(got, f"source_{names[0]}")[count > 0], first[count > 0])
        out_first, out_count = output_span(*axis, out)
        np.testing.assert_array_equal(getattr(got, names[1]), out_count)
        np.testing.assert_array_equal(getattr(got, names[0])[out_count > 0], out_first[out_count > 0])
        assert (out_count[count == 0] == 0).all()


@pytest.mark.parametrize("axes", [small_axes, large_axes])
@pytest.mark.parametrize("size", [(1, 2), (5, 3), (224, 64)])
def test_visibility_counts_the_output_pixels(run, axes, size):
    x, y = window_pairs(axes, inside_the_image_only=True)
    got = run(seen(size), *float32(x[0], y[0], x[1], y[1], x[2], y[2]))
    white = output_span(*x, size[1])[1] * output_span(*y, size[0])[1]
    # one output pixel stands for w h / (out_w out_h) pixels of the image's W H
    expected = white * (x[1] * y[1]) / (size[0] * size[1] * x[2] * y[2])
    assert (white == 0).any()
    assert (expected == 1).any()
    np.testing.assert_array_equal(got == 0, white == 0)
    np.testing.assert_array_equal(got[expected == 1], 1)
    np.testing.assert_allclose(got, expected, rtol=5 * 2.0**-24, atol=0)  # five roundings
    assert got.max() <= 1


def test_visibility_is_the_share_of_the_image_up_to_the_output_grid(run):
    """Against v = area(window and image) / (W H), painted in source pixels."""
    size = (224, 192)
    x, y = window_pairs(large_axes, inside_the_image_only=True)
    got = run(seen(size), *float32(x[0], y[0], x[1], y[1], x[2], y[2]))
    shares, steps = [], []
    for axis, out in ((x, size[1]), (y, size[0])):
        shares.append(source_span(*axis)[1] / axis[2])
        steps.append(axis[1] / (out * axis[2]))  # what one output pixel stands for; one edge at most is cut
    bound = shares[0] * steps[1] / 2 + shares[1] * steps[0] / 2 + steps[0] * steps[1] / 4
    assert (abs(got - shares[0] * shares[1]) <= bound + 1e-6).all()
    assert bound.max() < 6e-3


def test_windows_that_miss_the_image_show_exactly_nothing(run):
    length, side = large_axes(count=300)[1:]
    far = np.concatenate([-length, -length - 1, -3 * length, side, side + 1, side + 4000])
    near, length, side = np.zeros_like(far), np.tile(length, 6), np.tile(side, 6)
    for left, top in ((far, near), (near, far), (far, far)):
        arrays = float32(left, top, length, length, side, side)
        placement = run(placed((224, 99)), *arrays)
        if left is far:
            np.testing.assert_array_equal(placement.source_width, 0)
            np.testing.assert_array_equal(placement.width, 0)
        if top is far:
            np.testing.assert_array_equal(placement.source_height, 0)
            np.testing.assert_array_equal(placement.height, 0)
        np.testing.assert_array_equal(run(seen((224, 99)), *arrays), 0)


@pytest.mark.parametrize("size", [(1, 1), (7, 32), (224, 224)])
def test_the_whole_image_is_exactly_visible(run, size):
    sides = np.float32([1, 2, 3, 7, 32, 113, 500, 4000, 20000])
    width, height = np.repeat(sides, len(sides)), np.tile(sides, len(sides))
    zero = np.zeros_like(width)
    np.testing.assert_array_equal(run(seen(size), zero, zero, width, height, width, height), 1)
    placement = run(placed(size), zero, zero, width, height, width, height)
    expected = (0, 0, width, height, 0, 0, size[1], size[0])
    for field, value in zip(placement, expected, strict=True):
        np.testing.assert_array_equal(field, np.broadcast_to(value, width.shape))


def test_visibility_falls_as_the_window_leaves(run):
    length = 37
    start = np.arange(-length - 3, 41)
    fixed = [np.full(len(start), value) for value in (0, length, 40, 40, 40)]
    top, w, h, width, height = fixed
    got = run(seen((64, 64)), *float32(start, top, w, h, width, height))
    assert (np.diff(got[start <= 0]) >= 0).all()
    assert (np.diff(got[start >= 3]) <= 0).all()
    inside = (start >= 0) & (start + length <= 40)
    np.testing.assert_allclose(got[inside], 37 / 40, rtol=2.0**-22)
    assert got[0] == got[-1] == 0


def test_visibility_is_symmetric_for_windows_of_the_images_size(run):
    rng = np.random.default_rng(0)
    x, y = rng.integers(-33, 34, (2, 3000))
    side = np.full(3000, 32)

    def both(left, top):
        return run(seen((32, 32)), *float32(left, top, side, side, side, side))

    for left, top in ((-x, y), (x, -y), (-x, -y), (y, x)):
        np.testing.assert_array_equal(both(left, top), both(x, y))


@pytest.mark.parametrize("axes", [small_axes, large_axes])
def test_every_library_places_alike(run, axes):
    """Bit for bit: products and quotients that every library rounds once, and floors."""
    x, y = window_pairs(axes)
    arrays = float32(x[0], y[0], x[1], y[1], x[2], y[2])
    for got, expected in zip(run(placed((224, 99)), *arrays), placed((224, 99))(*arrays), strict=True):
        np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(run(seen((224, 99)), *arrays), seen((224, 99))(*arrays))
