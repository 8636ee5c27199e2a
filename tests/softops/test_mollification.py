"""Noise and blur schedules of supervised mollification, against float64 by another route."""

import math

import numpy as np
import pytest
from softfeed.softops import (
    blur_certainty,
    blur_sigma,
    mollified_targets,
    noise_certainty,
    noise_scales,
    weighted_targets,
)

ATOL = 8 * 2.0**-24  # as in test_certainty: single roundings of values in [0, 1], and the GPU's functions


def strengths():
    return np.concatenate([np.float32([0, 1, 0.5]), np.random.default_rng(0).random(1000, dtype=np.float32)])


def test_noise_scales_keep_the_variance(run):
    t = strengths()
    image, noise = run(noise_scales, t)
    turn = np.exp(0.5j * np.pi * t.astype(np.float64))  # a rotation by a right angle from t = 0 to 1
    np.testing.assert_allclose(image, turn.real, rtol=0, atol=ATOL)
    np.testing.assert_allclose(noise, turn.imag, rtol=0, atol=ATOL)


@pytest.mark.parametrize("power", [1, 2.0, 0.5])
def test_noise_certainty_is_that_of_the_signal_to_noise_ratio(run, power):
    t = strengths()
    image, noise = np.cos(t.astype(np.float64) * np.pi / 2), np.sin(t.astype(np.float64) * np.pi / 2)
    gamma = (1 / (1 + (image / np.maximum(noise, 1e-100)) ** 2)) ** power
    np.testing.assert_allclose(run(lambda t: noise_certainty(t, power=power), t), 1 - gamma, rtol=0, atol=2 * ATOL)


@pytest.mark.parametrize("side", [32, 224])
def test_blur_sigma_is_log_linear_from_a_third_of_a_pixel_to_the_side(run, side):
    t = strengths()
    expected = 0.3 ** (1 - t.astype(np.float64)) * float(side) ** t.astype(np.float64)
    np.testing.assert_allclose(run(lambda t: blur_sigma(t, side), t), expected, rtol=4e-6)
    ends = run(lambda t: blur_sigma(t, side), np.float32([0, 1]))
    np.testing.assert_allclose(ends, [0.3, side], rtol=2e-6)


@pytest.mark.parametrize("power", [1, 3.0])
def test_blur_certainty(run, power):
    t = strengths()
    expected = 1 - np.array([math.pow(x, power) for x in t.tolist()])
    np.testing.assert_allclose(run(lambda t: blur_certainty(t, power=power), t), expected, rtol=0, atol=ATOL)


@pytest.mark.parametrize("certainty", [noise_certainty, blur_certainty])
def test_certainty_falls_from_1_to_0(run, certainty):
    c = run(certainty, np.linspace(0, 1, 500, dtype=np.float32))
    assert c[0] == 1
    assert abs(c[-1]) <= ATOL
    assert (np.diff(c) <= 0).all()


@pytest.mark.parametrize("label", ["degrade", "add", "add+smooth"])
def test_mollified_targets(run, label):
    rng = np.random.default_rng(0)
    labels = np.arange(200, dtype=np.int32) % 4
    confidence, gamma = (rng.random(200, dtype=np.float32) for _ in range(2))
    gamma[:2] = 0, 1

    def targets(labels, confidence, gamma):
        return mollified_targets(weighted_targets(labels, confidence, 4), confidence, gamma, label=label)

    found = run(targets, labels, confidence, gamma)
    p, g = confidence.astype(np.float64)[:, None], gamma.astype(np.float64)[:, None]
    expected = p * np.where(np.arange(4) == labels[:, None], p, (1 - p) / 3)
    if label != "add":
        expected = expected * (1 - g)
    if label != "degrade":
        expected = np.concatenate([expected, p * g], axis=1)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=ATOL)


def test_the_smooth_label_is_none_of_these():
    with pytest.raises(ValueError, match="label must be one of degrade, add, add\\+smooth, got 'smooth'"):
        mollified_targets(np.ones((1, 2), np.float32), np.ones(1, np.float32), np.ones(1, np.float32), label="smooth")


@pytest.mark.parametrize("certainty", [noise_certainty, blur_certainty])
@pytest.mark.parametrize("power", [0, -1.0])
def test_power_must_be_positive(certainty, power):
    with pytest.raises(ValueError, match=f"power must be positive, got {power}"):
        certainty(np.float32([0.5]), power=power)
