"""Contenders and functions in processes of their own."""

import itertools
import operator
import os
from functools import partial

import pytest
from softfeed.benchmarks.measurement import Here
from softfeed.benchmarks.processes import ContenderError, OwnProcess, in_fresh_process

# A fresh process cannot import this file, so what runs there comes from the standard library.
SEVENS = partial(Here, partial(itertools.repeat, 7, 3))
IMPOSSIBLE = partial(operator.truediv, 1, 0)


def test_a_contender_of_its_own_process():
    with OwnProcess(SEVENS) as process:
        turn = process.play(0.05)
        assert turn.images >= 7
        assert turn.images % 7 == 0
        assert process.play(0.05).images >= 7
    assert not process._process.is_alive()


@pytest.mark.parametrize(
    ("make", "message"),
    [(IMPOSSIBLE, "ZeroDivisionError: division by zero"), (partial(os._exit, 3), "process ended with status 3")],
)
def test_a_contender_that_cannot_be_made(make, message):
    with pytest.raises(ContenderError, match=message):
        OwnProcess(make)


def test_a_function_in_a_fresh_process():
    assert in_fresh_process(os.getpid) != os.getpid()
    with pytest.raises(ContenderError, match="ZeroDivisionError: division by zero"):
        in_fresh_process(operator.truediv, 1, 0)
