"""Soft crop windows, fixed-size and crop-and-resize: against the paper's text, literally, in float64."""

import numpy as np
import pytest
from softfeed.softops import (
    Window,
    place,
    resized_shift_limit,
    shift_limit,
    shifted_window,
    soft_resized_window,
    visibility,
)

COUNT = 3000
# Sides up to 2,500 pixels: float32 places a window to within a few roundings of 2,500 * 2**-24, below 1e-3 pixels.
# Where the exact position comes nearer than that to a half, it may round either way; such samples are left out.
NEAR_HALF = 1e-3


def sides(seed=0):
    """Widths and heights: tiny, extreme aspect ratios, around L_min = 112, large."""
    rng = np.random.default_rng(seed)
    special = np.array([1, 2, 3, 16, 32, 111, 112, 113, 224, 500, 2500])
    width = np.concatenate([np.repeat(special, len(special)), rng.integers(1, 2501, COUNT)])[:COUNT]
    height = np.concatenate([np.tile(special, len(special)), rng.integers(1, 2501, COUNT)])[:COUNT]
    return width.astype(np.float32), height.astype(np.float32)


def normals(limit=np.inf, seed=0):
    """Two rows of seeded standard normal draws inside `limit`, with 0 and both ends."""
    rows = np.random.default_rng(seed).standard_normal((2, COUNT))
    ends = [0.0, -limit, limit] if np.isfinite(limit) else [0.0, -8.0, 8.0]
    rows[0, -3:] = rows[1, -5:-2] = ends
    rows = np.where(abs(rows) <= limit, rows, np.random.default_rng(seed).uniform(-1, 1, rows.shape) * limit)
    return rows.astype(np.float32)


def nearest(x):
    """Nearest whole number in float64, and whether rounding in float32 cannot change it."""
    below = np.floor(x)
    return np.where(x - below >= 0.5, below + 1, below), abs(x - below - 0.5) > NEAR_HALF


def assert_equal_where(settled, got, expected):
    assert settled.mean() > 0.97, "the test would look at too few samples"
    for field, value, reference in zip(Window._fields, got, expected, strict=True):
        np.testing.assert_array_equal(value[settled], reference[settled], err_msg=field)


def draw_offset(draws, limit, sigma):
    """SA Listing 1: redraw until one fits, then a whole number (towards 0); 0 if none fits."""
    for draw in draws:
        x = draw * sigma
        if abs(x) <= limit:
            return int(x)
    return 0


@pytest.mark.parametrize("sigma", [0.3, 1, 0.0003])
def test_shifted_window_is_listing_1_to_the_nearest_pixel(run, sigma):
    width, height = sides()
    z = normals(shift_limit(sigma))
    got = run(lambda w, h, x, y: shifted_window(w, h, (x, y), sigma=sigma), width, height, *z)
    x, x_settled = nearest(z[0].astype(np.float64) * sigma * width)
    y, y_settled = nearest(z[1].astype(np.float64) * sigma * height)
    if sigma != 0.0003:  # there nearly all shifts are 0
        assert (x > 0).any()
        assert (x < 0).any()
    assert_equal_where(x_settled & y_settled, got, (x, y, width, height))
    # the listing's int() takes the next whole number towards 0: at most one pixel less of a shift
    for moved, draws, side in ((got.left, z[0], width), (got.top, z[1], height)):
        literal = np.array([draw_offset([d], s, sigma * s) for d, s in zip(draws.tolist(), side.tolist(), strict=True)])
        further = (moved - literal) * np.sign(draws)
        assert ((further == 0) | (further == 1)).all()


@pytest.mark.parametrize("times", [1, 3])
def test_shifted_window_reaches_the_limit_and_no_further(run, times):
    width, height = sides()
    limit = np.full(COUNT, times * shift_limit(0.3), np.float32)
    got = run(lambda w, h, x, y: shifted_window(w, h, (x, -1.0 * y), sigma=0.3), width, height, limit, limit)
    np.testing.assert_array_equal(got.left, width)
    np.testing.assert_array_equal(got.top, -height)


def test_shifted_window_is_odd_in_the_draw_and_still_at_zero(run):
    width, height = sides()
    z = normals(shift_limit(0.3))

    def window(w, h, x, y):
        return shifted_window(w, h, (x, y), sigma=0.3)

    there, back = run(window, width, height, *z), run(window, width, height, *-z)
    settled = [nearest(z[i].astype(np.float64) * 0.3 * side)[1] for i, side in enumerate((width, height))]
    np.testing.assert_array_equal(there.left[settled[0]], -back.left[settled[0]])
    np.testing.assert_array_equal(there.top[settled[1]], -back.top[settled[1]])
    still = run(window, width, height, *np.zeros_like(z))
    for field, value in zip(still, (0, 0, width, height), strict=True):
        np.testing.assert_array_equal(field, np.broadcast_to(value, COUNT))


def appendix_b3(side, size_draw, position_draw, sigma, min_side, spread):
    """One axis of SA App. B.3, sample by sample: (start, length, settled)."""
    rows = []
    for full, n_size, n_position in zip(side.tolist(), size_draw.tolist(), position_draw.tolist(), strict=True):
        if full <= min_side:
            less = 0.0
        else:
            less = min(abs(n_size * sigma * (full - min_side)), full - min_side)
        length, length_settled = nearest(full - less)
        t = n_position * spread * sigma * (full + length)
        centre = full / 2 + t
        start, start_settled = nearest(centre - length / 2)
        rows.append((float(start), float(length), bool(length_settled and start_settled)))
    start, length, settled = zip(*rows, strict=True)
    return np.array(start), np.array(length), np.array(settled)


@pytest.mark.parametrize(
    ("sigma", "min_side", "spread"), [(0.3, 112, 0.5), (0.3, 112.0, 1.0), (1, 16, 0.5), (2.5, 1, 1)]
)
def test_soft_resized_window_is_appendix_b3(run, sigma, min_side, spread):
    width, height = sides()
    z_size, z_position = normals(seed=1), normals(resized_shift_limit(sigma, spread), seed=2)

    def window(w, h, *z):
        return soft_resized_window(w, h, z[:2], z[2:], sigma=sigma, min_side=min_side, spread=spread)

    got = run(window, width, height, *z_size, *z_position)
    left, w, x_settled = appendix_b3(width, z_size[0], z_position[0], sigma, min_side, spread)
    top, h, y_settled = appendix_b3(height, z_size[1], z_position[1], sigma, min_side, spread)
    assert_equal_where(x_settled & y_settled, got, (left, top, w, h))


def test_soft_resized_window_keeps_its_bounds(run):
    width, height = sides()
    z_size, z_position = normals(seed=1) * 3, normals(resized_shift_limit(0.3), seed=2)

    def window(w, h, *z):
        return soft_resized_window(w, h, z[:2], z[2:], sigma=0.3, min_side=112)

    got = run(window, width, height, *z_size, *z_position)
    for start, length, side in ((got.left, got.width, width), (got.top, got.height, height)):
        assert (length <= side).all()
        assert (length >= np.minimum(side, 112)).all()
        small = side <= 112
        assert small.sum() > 50
        np.testing.assert_array_equal(length[small], side[small])
        assert (length[side > 112] == 112).any(), "no draw was clipped at L_min"
        # |t| <= (W + w) / 2: a window at most touches the image from outside
        assert ((start >= -length) & (start <= side)).all()
        np.testing.assert_array_equal(start, np.floor(start))
        np.testing.assert_array_equal(length, np.floor(length))


def test_soft_resized_window_is_the_image_at_zero(run):
    width, height = sides()
    zero = np.zeros(COUNT, np.float32)

    def window(w, h, z):
        return soft_resized_window(w, h, (z, z), (z, z), sigma=0.3, min_side=112)

    for field, value in zip(run(window, width, height, zero), (0, 0, width, height), strict=True):
        np.testing.assert_array_equal(field, np.broadcast_to(value, COUNT))


def test_windows_never_lose_their_last_pixel(run):
    width, height = sides()
    many = np.full(COUNT, 50, np.float32)
    zero = np.zeros(COUNT, np.float32)

    def window(w, h, size, position):
        return soft_resized_window(w, h, (size, size), (position, position), sigma=0.3, min_side=0.1)

    got = run(window, width, height, many, zero)
    np.testing.assert_array_equal(got.width, 1)
    np.testing.assert_array_equal(got.height, 1)


@pytest.mark.parametrize("spread", [0.5, 1.0])
def test_position_limit_is_half_of_both_sides(spread):
    # the window's centre moves by z * spread * sigma * (W + w); |t| < (W + w) / 2 wherever |z| is below the limit
    assert resized_shift_limit(0.3, spread) * spread * 0.3 == pytest.approx(0.5)
    assert resized_shift_limit(0.3) == resized_shift_limit(0.3, 0.5)
    assert shift_limit(0.3) * 0.3 == pytest.approx(1)


def test_sigma_may_differ_by_sample(run):
    width, height = sides()
    z = normals(1 / 0.4)
    sigmas = np.array([0.1, 0.25, 0.4], np.float32)
    sigma = np.resize(sigmas, COUNT)
    limits = run(shift_limit, sigma), run(resized_shift_limit, sigma)
    np.testing.assert_allclose(limits[0], 1 / sigma.astype(np.float64), rtol=2.0**-23)
    np.testing.assert_allclose(limits[1], 1 / sigma.astype(np.float64), rtol=2.0**-23)
    shifted = run(lambda w, h, x, y, s: shifted_window(w, h, (x, y), sigma=s), width, height, *z, sigma)
    resized = run(
        lambda w, h, x, y, s: soft_resized_window(w, h, (x, y), (y, x), sigma=s, min_side=8), width, height, *z, sigma
    )
    for i, single in enumerate(sigmas.tolist()):
        some = slice(i, None, 3)
        part = [array[some] for array in (width, height, *z)]
        one = run(lambda w, h, x, y, s=single: shifted_window(w, h, (x, y), sigma=s), *part)
        two = run(lambda w, h, x, y, s=single: soft_resized_window(w, h, (x, y), (y, x), sigma=s, min_side=8), *part)
        for whole, alone in zip((*shifted, *resized), (*one, *two), strict=True):
            np.testing.assert_array_equal(whole[some], alone)


def test_every_library_draws_the_same_windows(run):
    """Bit for bit: only products, sums, bounds and floors, each rounded once in every library."""
    width, height = sides()
    z_size, z_position = normals(seed=1), normals(resized_shift_limit(0.3), seed=2)

    def shifted(w, h, x, y):
        return shifted_window(w, h, (x, y), sigma=0.3)

    def resized(w, h, *z):
        return soft_resized_window(w, h, z[:2], z[2:], sigma=0.3, min_side=112)

    for got, expected in zip(
        (*run(shifted, width, height, *z_position), *run(resized, width, height, *z_size, *z_position)),
        (*shifted(width, height, *z_position), *resized(width, height, *z_size, *z_position)),
        strict=True,
    ):
        np.testing.assert_array_equal(got, expected)


def test_listing_1_white_image_gives_the_visibility(run):
    """Listing 1's own padding and cropping of a white image, pixels counted, against the visibility of the window."""
    rng = np.random.default_rng(0)
    for dim1, dim2 in ((32, 32), (7, 12), (1, 1)):  # height, width
        shift_y, shift_x = (rng.integers(-dim, dim + 1, 400) for dim in (dim1, dim2))
        shift_y[:2] = shift_x[:2] = 0
        shift_y[2] = dim1
        counts = []
        for ty, tx in zip(shift_y, shift_x, strict=True):
            padded = np.zeros((dim1 * 3, dim2 * 3), np.int64)
            padded[dim1 : 2 * dim1, dim2 : 2 * dim2] = 1
            counts.append(padded[ty + dim1 : ty + 2 * dim1, tx + dim2 : tx + 2 * dim2].sum())
        arrays = np.float32([shift_x, shift_y, np.full(400, dim2), np.full(400, dim1)])

        def seen(x, y, w, h, size=(dim1, dim2)):
            # whole-pixel shifts given as draws: z = t / (sigma * L)
            window = shifted_window(w, h, (x / w, y / h), sigma=1.0)
            return visibility(window, place(window, w, h, size), w, h, size)

        np.testing.assert_array_equal(run(seen, *arrays), np.float32(np.array(counts) / (dim1 * dim2)))
        assert 0 in counts
        assert dim1 * dim2 in counts
