"""The operations that operators cannot say: the same meaning in every library."""

import numpy as np
import pytest
from softfeed.softops import _elementwise as elementwise

VALUES = np.array([-2.5, -2.0, -1.5, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 1.5, 2.5, 7.0], np.float32)


def test_round_half_up_takes_halves_upwards(run):
    # the libraries' own `round` would give -2, 0, 2, 2 for these halves
    expected = np.array([-2, -2, -1, -1, 0, 0, 0, 0, 1, 2, 3, 7], np.float32)
    np.testing.assert_array_equal(run(elementwise.round_half_up, VALUES), expected)


def test_floor_of_negative_numbers(run):
    expected = np.array([-3, -2, -2, -1, -1, -1, 0, 0, 0, 1, 2, 7], np.float32)
    np.testing.assert_array_equal(run(elementwise.floor, VALUES), expected)


def test_minimum_and_maximum_of_arrays(run):
    other = VALUES[::-1].copy()
    smaller = [min(x, y) for x, y in zip(VALUES.tolist(), other.tolist(), strict=True)]
    larger = [max(x, y) for x, y in zip(VALUES.tolist(), other.tolist(), strict=True)]
    np.testing.assert_array_equal(run(elementwise.minimum, VALUES, other), np.float32(smaller))
    np.testing.assert_array_equal(run(elementwise.maximum, VALUES, other), np.float32(larger))


@pytest.mark.parametrize("number", [0, 0.25, -1])
def test_minimum_and_maximum_with_a_number_on_either_side(run, number):
    smaller, larger = (np.float32([f(x, number) for x in VALUES.tolist()]) for f in (min, max))
    np.testing.assert_array_equal(run(lambda x: elementwise.minimum(x, number), VALUES), smaller)
    np.testing.assert_array_equal(run(lambda x: elementwise.minimum(number, x), VALUES), smaller)
    np.testing.assert_array_equal(run(lambda x: elementwise.maximum(x, number), VALUES), larger)
    np.testing.assert_array_equal(run(lambda x: elementwise.maximum(number, x), VALUES), larger)


def test_select_and_masks_as_numbers(run):
    other = VALUES * 16 + 1
    expected = np.float32([x if x > 0 else y for x, y in zip(VALUES.tolist(), other.tolist(), strict=True)])
    np.testing.assert_array_equal(run(lambda x, y: elementwise.select(x > 0, x, y), VALUES, other), expected)
    np.testing.assert_array_equal(run(lambda x: elementwise.to_float32(x > 0), VALUES), np.float32(VALUES > 0))
