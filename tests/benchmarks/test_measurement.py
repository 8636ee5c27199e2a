"""Timing: what is counted, by a clock and a processor that do what the test says, and in real processes."""

import io
import itertools
import operator
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from softfeed.benchmarks import measurement
from softfeed.benchmarks.measurement import Here, Progress, Rate, Whole, cpu_ratio, cpu_seconds, measure, ratio
from softfeed.benchmarks.processes import ContenderError, OwnProcess, in_fresh_process

from .conftest import rate


def quiet():
    return Progress(io.StringIO())


def sleeper(count, seconds):
    def epoch():
        for _ in range(3):
            time.sleep(seconds)
            yield count

    return epoch


def test_a_turn_counts_whole_batches_over_several_epochs():
    turn = Here(sleeper(10, 0.001)).play(0.3)
    assert turn.wall_s >= 0.3
    assert turn.images % 10 == 0
    # each batch takes at least 1 ms; 3 to an epoch, so this went over several
    assert 30 < turn.images <= 10 * turn.wall_s / 0.001


def test_sleeping_costs_no_cpu_and_computing_does():
    def compute():
        end = time.process_time() + 0.02
        while time.process_time() < end:
            pass
        yield 1

    asleep, busy = Here(sleeper(1, 0.02)).play(0.2), Here(compute).play(0.2)
    assert asleep.cpu_s < 0.5 * asleep.images * 0.02
    # psutil counts in ticks of 10 ms
    assert busy.cpu_s == pytest.approx(busy.images * 0.02, rel=0.3, abs=0.03)


def test_cpu_seconds_of_children_count():
    before = cpu_seconds()
    code = "import time\nwhile time.process_time() < 0.5: pass\nprint('done', flush=True)\ninput()"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "done\n"
    alive = cpu_seconds() - before
    child.communicate("\n")
    assert alive >= 0.45
    assert cpu_seconds() - before >= 0.45  # also when it is gone


def test_contenders_take_turns_and_the_cache_is_treated_before_each():
    order = []

    class Recorder:
        def __init__(self, name):
            self.name = name

        def play(self, seconds):
            order.append(self.name)
            return Here(sleeper(1, 0)).play(0.001)

    contenders = {name: Recorder(name) for name in "abcde"}

    def run():
        order.clear()
        rates = measure(contenders, seconds=1, repeats=5, progress=quiet(), before=lambda: order.append("drop"))
        assert {name: len(rate.images_per_s) for name, rate in rates.items()} == dict.fromkeys("abcde", 5)
        return order[:]

    warm_up, turns = run()[:5], run()[5:]
    assert "".join(warm_up) == "abcde"
    assert turns[::2] == ["drop"] * 25
    repeats = ["".join(turns[begin + 1 : begin + 10 : 2]) for begin in range(0, 50, 10)]
    assert {"".join(sorted(repeat)) for repeat in repeats} == {"abcde"}
    assert len(set(repeats)) == 5, "the order stays the same, so that each is always behind the same one"
    assert run()[5:] == turns


@pytest.mark.parametrize("starved", [False, True])
def test_what_a_contender_left_under_way_is_done_before_the_next_turn(monkeypatch, starved):
    """It computes, or waits for a core all the time, as others have them."""
    busy_until, begun = [0.0], []

    def at_work():
        return min(time.perf_counter(), busy_until[0])

    monkeypatch.setattr(measurement, "cpu_seconds", lambda: 0.0 if starved else at_work())
    monkeypatch.setattr(measurement, "_waits_for_cores", lambda: {"1": at_work()} if starved else {})

    def leaves_work():
        busy_until[0] = time.perf_counter() + 0.5
        yield 1

    def next_one():
        begun.append(time.perf_counter() - busy_until[0])
        yield 1

    measure({"a": Whole(leaves_work), "b": Whole(next_one)}, seconds=0.01, repeats=2, progress=quiet())
    assert len(begun) == 3
    assert min(begun) > 0


def test_waiting_for_a_core_is_seen():
    if not Path("/proc/self/schedstat").exists():
        pytest.skip("the kernel does not count what threads wait for cores")
    code = "import os, sys\nos.sched_setaffinity(0, {int(sys.argv[1])})\nwhile True: pass"
    core = str(min(os.sched_getaffinity(0)))
    burning = [subprocess.Popen([sys.executable, "-c", code, core]) for _ in range(2)]  # of which one has to wait
    try:
        waited, end = 0.0, time.monotonic() + 30
        while waited < 0.2:
            assert time.monotonic() < end
            time.sleep(0.01)
            waits = measurement._waits_for_cores()
            waited = sum(waits[str(process.pid)] for process in burning)
    finally:
        for process in burning:
            process.kill()
            process.wait()
    assert not {str(process.pid) for process in burning} & measurement._waits_for_cores().keys()


def test_what_never_rests_is_waited_for_once(monkeypatch):
    waits = []
    monkeypatch.setattr(measurement, "wait_until_idle", lambda: waits.append(1))
    measure({"a": Here(sleeper(1, 0.001)), "b": Here(sleeper(1, 0.001))}, seconds=0.01, repeats=3, progress=quiet())
    assert len(waits) == 1
    monkeypatch.undo()
    monkeypatch.setattr(measurement, "_PATIENCE_S", 0.3)
    monkeypatch.setattr(measurement, "cpu_seconds", time.perf_counter)
    assert measurement.wait_until_idle() is False


def test_a_contender_without_batches_is_refused():
    with pytest.raises(ValueError, match="at least one batch, got none"):
        Here(lambda: iter(())).play(0.1)


class Fails:
    """Plays well for some turns, the warm-up counted, and then no more."""

    def __init__(self, turns):
        self.left = turns

    def play(self, seconds):
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("out of memory")
        return Here(sleeper(1, 0)).play(0.001)


@pytest.mark.parametrize(
    ("turns", "kept"),
    [
        ({"a": 9, "b": 0, "c": 9}, {"a": 3, "c": 3}),  # cannot be made
        ({"a": 9, "b": 2, "c": 9}, {"a": 3, "c": 3}),  # fails in the middle
        ({"a": 3, "b": 2, "c": 2}, {"a": 1, "b": 1, "c": 1}),  # from some moment on everything fails
        ({"a": 2, "b": 1, "c": 1}, {"a": 1}),
    ],
)
def test_contenders_that_fail_leave_the_others_their_turns(turns, kept):
    failed = {}
    contenders = {name: Fails(count) for name, count in turns.items()}
    rates = measure(contenders, seconds=0.001, repeats=3, progress=quiet(), failed=failed)
    assert {name: len(rate.images_per_s) for name, rate in rates.items()} == kept
    assert {name: str(error) for name, error in failed.items()} == {
        name: "out of memory" for name, count in turns.items() if count < 4
    }
    with pytest.raises(RuntimeError, match="out of memory"):
        measure({name: Fails(count) for name, count in turns.items()}, seconds=0.001, repeats=3, progress=quiet())


def test_where_nothing_can_be_measured_the_first_error_is_raised():
    with pytest.raises(RuntimeError, match="out of memory"):
        measure({"a": Fails(1), "b": Fails(0)}, seconds=0.001, repeats=2, progress=quiet(), failed={})


def test_ratios_are_taken_within_a_repeat():
    # the machine became four times slower: the ratio did not change
    result = ratio(rate("a", 100, 25, 50), rate("b", 200, 50, 100))
    assert (result.name, result.median, result.low, result.high) == ("a / b", 0.5, 0.5, 0.5)


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


def test_images_per_cpu_second_are_compared_repeat_by_repeat():
    above, below = Rate("a", (1.0,) * 3, (0.001, 0.002, 0.004)), Rate("b", (9.0,) * 3, (0.003, 0.004, 0.004))
    found = cpu_ratio(above, below)
    assert (found.name, found.median, found.low) == ("a / b, per CPU second", 2, 1)
    assert found.high == pytest.approx(3)


def test_a_log_hears_what_is_done_now_and_then(monkeypatch):
    now = 0.0
    monkeypatch.setattr("softfeed.benchmarks.measurement.time.perf_counter", lambda: now)
    stream = io.StringIO()
    progress = Progress(stream)
    progress.stage("opening")
    for now in range(1, 13):
        progress.turn(f"turn {now}")
        if now == 7:
            progress.line("repeat")
    assert stream.getvalue().splitlines() == ["opening", "turn 5", "repeat", "turn 12"]


def test_cpu_time_of_little_work_is_told_in_microseconds():
    assert "0.020 ms CPU/image" in str(rate("a", 1, cpu_s=2e-5))
    assert "0.250 us CPU/image" in str(rate("a", 1, cpu_s=2.5e-7))
    assert "CPU" not in str(rate("a", 1, cpu_s=0.0))
