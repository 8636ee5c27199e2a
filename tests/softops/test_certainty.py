"""Softening curve, product of certainties, confidence: against series, float64 and the authors' chaining."""

import numpy as np
import pytest
from softfeed.softops import combined, confidence, softening

POWERS = [1, 2, 2.0, 4.0, 0.5, 3.7]
# Everything here lies in [0, 1], where one float32 unit is at most 2**-24. CPU libraries keep powers within one
# unit; the GPU's power function is documented to 4 units. Add the roundings of (1 - v) and of the last difference.
ATOL = 8 * 2.0**-24


def shares(count=4000, seed=0):
    """Seeded values of [0, 1], ends included, sorted."""
    values = np.random.default_rng(seed).random(count, dtype=np.float32)
    special = np.float32([0, 1, 2**-24, 1 - 2**-24, 0.5, 1e-30])
    return np.sort(np.concatenate([values, special]))


def curve(visibility, power):
    """Eq. 7 by another route: a geometric series for whole powers, logarithms for the others."""
    v = visibility.astype(np.float64)
    if power == int(power):
        return v * sum((1 - v) ** i for i in range(int(power)))
    with np.errstate(divide="ignore"):
        return -np.expm1(power * np.log1p(-v))


@pytest.mark.parametrize("power", POWERS)
def test_softening_is_equation_7(run, power):
    v = shares()
    np.testing.assert_allclose(run(lambda v: softening(v, power=power), v), curve(v, power), rtol=0, atol=ATOL)


def test_softening_defaults_to_the_square_without_plateau(run):
    v = shares()
    np.testing.assert_array_equal(run(softening, v), run(lambda v: softening(v, power=2.0, plateau=1.0), v))


@pytest.mark.parametrize("plateau", [1, 0.7, 0.25, 1e-3])
@pytest.mark.parametrize("power", [1.0, 2.0, 3.7])
def test_softening_with_a_plateau_is_piecewise(run, power, plateau):
    v = np.sort(np.append(shares(), np.float32(plateau)))
    soft = run(lambda v: softening(v, power=power, plateau=plateau), v)
    full = v >= np.float32(plateau)
    assert full.any()
    assert not full.all()
    np.testing.assert_array_equal(soft[full], 1)
    below = v[~full].astype(np.float64) / plateau
    # v / T is rounded before the power: its error grows by the slope of the curve, at most k
    np.testing.assert_allclose(soft[~full], curve(below, power), rtol=0, atol=ATOL * (1 + power))


@pytest.mark.parametrize("plateau", [1.0, 0.7])
@pytest.mark.parametrize("power", POWERS)
def test_softening_keeps_bounds_ends_and_order(run, power, plateau):
    v = shares()
    soft = run(lambda v: softening(v, power=power, plateau=plateau), v)
    assert soft[0] == 0
    assert soft[-1] == 1
    assert ((soft >= 0) & (soft <= 1)).all()
    # the GPU's power function is not monotone to the last unit
    assert (np.diff(soft) >= -ATOL).all()
    if power >= 1:
        assert (soft >= v - ATOL).all(), "a larger power keeps certainty longer"


def test_softening_rises_with_power(run):
    v = shares()
    curves = [run(lambda v, k=power: softening(v, power=k), v) for power in sorted(set(POWERS))]
    assert (np.diff(curves, axis=0) >= -ATOL).all()
    middle = np.searchsorted(v, 0.5)
    assert (np.diff([curve[middle] for curve in curves]) > 0.01).all()


def test_combined_is_the_product(run):
    factors = [np.random.default_rng(seed).random(3000, dtype=np.float32) for seed in range(4)]
    for count in range(1, 5):
        exact = np.prod(np.float64(factors[:count]), axis=0)
        np.testing.assert_allclose(run(combined, *factors[:count]), exact, rtol=count * 2.0**-24, atol=0)


def test_combined_with_full_and_no_certainty(run):
    c = shares()
    np.testing.assert_array_equal(run(combined, c, np.ones_like(c)), c)
    np.testing.assert_array_equal(run(combined, c, np.zeros_like(c), c), 0)
    np.testing.assert_array_equal(run(combined, c), c)


@pytest.mark.parametrize("num_classes", [2, 10, 1000])
def test_confidence_chains_like_the_authors_code(run, num_classes):
    rng = np.random.default_rng(0)
    visibilities, powers = rng.random((3, 3000), dtype=np.float32), (2.0, 1.0, 4.0)

    def chained(v0, v1, v2):
        certainties = [softening(v, power=k) for v, k in zip((v0, v1, v2), powers, strict=True)]
        return confidence(combined(*certainties), num_classes)

    chance, expected = 1 / num_classes, 1.0
    for v, k in zip(visibilities.astype(np.float64), powers, strict=True):
        expected = expected - (expected - chance) * (1 - v) ** k  # the confidence so far takes the place of 1
    np.testing.assert_allclose(run(chained, *visibilities), expected, rtol=0, atol=3 * ATOL)


@pytest.mark.parametrize("num_classes", [2, 3, 10, 100, 1000, 21841])
def test_confidence_is_a_mixture_of_truth_and_chance(run, num_classes):
    c = shares()
    got = run(lambda c: confidence(c, num_classes), c)
    # a trial with certainty c: the label is known with probability c and guessed among K otherwise
    expected = c.astype(np.float64) + (1 - c.astype(np.float64)) / num_classes
    np.testing.assert_allclose(got, expected, rtol=0, atol=2 * 2.0**-24)
    assert got[0] == np.float32(1 / num_classes)
    assert got[-1] == 1
    assert (np.diff(got) >= 0).all()


def test_full_certainty_is_exactly_1_for_every_number_of_classes():
    one, zero = np.ones(1, np.float32), np.zeros(1, np.float32)
    counts = range(2, 5000)
    assert [k for k in counts if confidence(one, k)[0] != 1] == []
    assert [k for k in counts if confidence(zero, k)[0] != np.float32(1 / k)] == []


@pytest.mark.parametrize("shape", [(), (1,), (3, 4), (2, 3, 5)])
def test_any_shape(run, shape):
    v = np.random.default_rng(1).random(shape, dtype=np.float32).reshape(shape)
    whole = run(lambda v: confidence(combined(softening(v), v), 10), v)
    single = [run(lambda v: confidence(combined(softening(v), v), 10), x.reshape(1))[0] for x in v.reshape(-1)[:3]]
    np.testing.assert_allclose(whole.reshape(-1)[:3], single, rtol=0, atol=ATOL)


@pytest.mark.parametrize("power", [0, -1.0, float("nan")])
def test_power_must_be_positive(power):
    with pytest.raises(ValueError, match=rf"^power must be positive, got {power}$"):
        softening(shares(), power=power)


@pytest.mark.parametrize("plateau", [0, -0.5, 1.5, float("nan")])
def test_plateau_must_be_a_share(plateau):
    with pytest.raises(ValueError, match=rf"^plateau must be in \(0, 1\], got {plateau}$"):
        softening(shares(), plateau=plateau)


@pytest.mark.parametrize("num_classes", [1, 0, -3])
def test_num_classes_must_be_at_least_2(num_classes):
    with pytest.raises(ValueError, match=rf"^num_classes must be at least 2, got {num_classes}; with one class"):
        confidence(shares(), num_classes)


def test_combined_needs_a_certainty():
    with pytest.raises(ValueError, match=r"^combined must get at least one certainty, got none$"):
        combined()
