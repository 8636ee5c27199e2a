"""Rates and their ratios, by values that can be told in one's head."""

import pytest
from softfeed.benchmarks.rates import Rate, cpu_ratio, ratio

from .conftest import rate


def test_ratios_are_taken_within_a_repeat():
    # the machine became four times slower: the ratio did not change
    result = ratio(rate("a", 100, 25, 50), rate("b", 200, 50, 100))
    assert (result.name, result.median, result.low, result.high) == ("a / b", 0.5, 0.5, 0.5)


def test_images_per_cpu_second_are_compared_repeat_by_repeat():
    above, below = Rate("a", (1.0,) * 3, (0.001, 0.002, 0.004)), Rate("b", (9.0,) * 3, (0.003, 0.004, 0.004))
    found = cpu_ratio(above, below)
    assert (found.name, found.median, found.low) == ("a / b, per CPU second", 2, 1)
    assert found.high == pytest.approx(3)


def test_cpu_time_of_little_work_is_told_in_microseconds():
    assert "0.020 ms CPU/image" in str(rate("a", 1, cpu_s=2e-5))
    assert "0.250 us CPU/image" in str(rate("a", 1, cpu_s=2.5e-7))
    assert "CPU" not in str(rate("a", 1, cpu_s=0.0))
