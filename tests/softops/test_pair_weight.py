"""Weights of pairs of views: SA Eqs. 9 and 10, literally, in float64."""

import numpy as np
import pytest
from softfeed.softops import pair_weight


@pytest.mark.parametrize("power", [1, 3.0, 4.0])
@pytest.mark.parametrize("chance", [0.0, 0.01])
def test_equations_9_and_10(run, power, chance):
    iou = np.concatenate([np.float32([0, 1]), np.random.default_rng(0).random(500, dtype=np.float32)])
    x = iou.astype(np.float64)
    distant = run(lambda iou: pair_weight(iou, power=power, chance=chance), iou)
    np.testing.assert_allclose(distant, 1 - (1 - chance) * (1 - x) ** power, rtol=0, atol=1e-6)
    close = run(lambda iou: pair_weight(iou, power=power, chance=chance, weigh_down="close"), iou)
    np.testing.assert_allclose(close, 1 - (1 - chance) * x**power, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"power": 0}, "power must"),
        ({"chance": 1}, r"chance must be in \[0, 1\)"),
        ({"weigh_down": "x"}, "weigh_down must"),
    ],
)
def test_bad_values(arguments, message):
    with pytest.raises(ValueError, match=message):
        pair_weight(np.float32([0.5]), **arguments)
