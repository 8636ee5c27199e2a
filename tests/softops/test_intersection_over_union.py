"""IoU of windows: against two painted masks, pixels counted."""

import numpy as np
import pytest
from softfeed.softops import Window, intersection_over_union

CANVAS = 20  # windows may reach outside the image, so the canvas has room on the negative side too


def windows(count=3000, seed=0):
    """Four fields of windows inside [-CANVAS, CANVAS), tiny ones included: int64 of shape (4, count)."""
    rng = np.random.default_rng(seed)
    start = rng.integers(-CANVAS, CANVAS, (2, count))
    length = np.minimum(rng.integers(1, CANVAS + 1, (2, count)), CANVAS - start)
    return np.concatenate([start, length])


def painted(window):
    """Boolean masks of shape (count, 2 CANVAS, 2 CANVAS)."""
    left, top, width, height = window[:, :, None]
    line = np.arange(-CANVAS, CANVAS)
    columns, rows = (line >= left) & (line < left + width), (line >= top) & (line < top + height)
    return rows[:, :, None] & columns[:, None, :]


def iou(*fields):
    return intersection_over_union(Window(*fields[:4]), Window(*fields[4:]))


def test_iou_counts_pixels(run):
    a, b = windows(seed=0), windows(seed=1)
    b[:, :50] = a[:, :50]
    mask_a, mask_b = painted(a), painted(b)
    shared, union = (mask_a & mask_b).sum(axis=(1, 2)), (mask_a | mask_b).sum(axis=(1, 2))
    assert (shared == 0).any()
    assert (shared == union).any()
    # whole numbers below 2**24 and one division, so not a bit of tolerance
    np.testing.assert_array_equal(run(iou, *np.float32([*a, *b])), np.float32(shared / union))


def test_iou_is_symmetric_and_ignores_where_the_origin_is(run):
    a, b = np.float32(windows(seed=2)), np.float32(windows(seed=3))
    plain = run(iou, *a, *b)
    np.testing.assert_array_equal(run(iou, *b, *a), plain)
    moved = np.float32([[100], [-37], [0], [0]])
    np.testing.assert_array_equal(run(iou, *(a + moved), *(b + moved)), plain)
    turned = [1, 0, 3, 2]
    np.testing.assert_array_equal(run(iou, *a[turned], *b[turned]), plain)


@pytest.mark.parametrize("largest", [5, 500, 60000])
def test_iou_keeps_its_bounds(run, largest):
    rng = np.random.default_rng(4)
    a, b = np.float32(rng.integers(1, largest + 1, (2, 4, 3000)))
    got = run(iou, *a, *b)
    assert ((got >= 0) & (got <= 1)).all()
    np.testing.assert_array_equal(run(iou, *a, *a), 1)
    beside = a.copy()
    beside[0] += a[2]  # touches, shares nothing
    np.testing.assert_array_equal(run(iou, *a, *beside), 0)


def test_every_library_agrees_to_the_bit(run):
    a, b = np.float32(windows(seed=5)), np.float32(windows(seed=6))
    np.testing.assert_array_equal(run(iou, *a, *b), iou(*a, *b))
