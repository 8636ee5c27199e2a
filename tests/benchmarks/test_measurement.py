"""Timing: what is counted, and whose turn it is."""

import io
import time

import pytest
from softfeed.benchmarks import cpu_time, measurement
from softfeed.benchmarks.measurement import Here, Turn, Whole, measure
from softfeed.benchmarks.progress import Progress


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


def test_what_others_are_compared_with_has_turns_all_over_a_repeat_that_count_as_one():
    order, lengths = [], iter(range(1, 1000))

    class Counting:
        def __init__(self, name):
            self.name = name

        def play(self, seconds):
            order.append(self.name)
            return Turn(10, next(lengths), 2.0, waited_s=0.5, others_s=0.25)

    contenders = {name: Counting(name) for name in "abcdefghij"}
    rates = measure(contenders, seconds=1, repeats=3, progress=quiet(), often=("a", "d"))
    turns = "".join(order[10:])
    assert len(turns) == 3 * (8 + 2 * 4)
    for begin in range(0, len(turns), 16):
        repeat = turns[begin : begin + 16]
        assert sorted(repeat) == sorted("bcefghij" + "ad" * 4)
        assert [set(repeat[first : first + 2]) for first in (0, 4, 8, 12)] == [{"a", "d"}] * 4
    own = [11 + turn for turn, name in enumerate(turns[:16]) if name == "a"]
    assert rates["a"].images_per_s[0] == pytest.approx(40 / sum(own))
    assert rates["a"].cpu_s_per_image[0] == pytest.approx(8 / 40)
    assert rates["a"].waiting[0] == pytest.approx(2 / sum(own))
    assert rates["a"].others[0] == pytest.approx(1 / sum(own))
    assert len(rates["b"].images_per_s) == len(rates["a"].images_per_s) == 3


@pytest.mark.parametrize("starved", [False, True])
def test_what_a_contender_left_under_way_is_done_before_the_next_turn(monkeypatch, starved):
    """It computes, or waits for a core all the time, as others have them."""
    busy_until, begun = [0.0], []

    def at_work():
        return min(time.perf_counter(), busy_until[0])

    monkeypatch.setattr(cpu_time, "cpu_seconds", lambda: 0.0 if starved else at_work())
    monkeypatch.setattr(cpu_time, "waits_for_cores", lambda: {"1": at_work()} if starved else {})

    def leaves_work():
        busy_until[0] = time.perf_counter() + 0.5
        yield 1

    def next_one():
        begun.append(time.perf_counter() - busy_until[0])
        yield 1

    measure({"a": Whole(leaves_work), "b": Whole(next_one)}, seconds=0.01, repeats=2, progress=quiet())
    assert len(begun) == 3
    assert min(begun) > 0


def test_what_never_rests_is_waited_for_once(monkeypatch):
    waits = []
    monkeypatch.setattr(measurement, "wait_until_idle", lambda: waits.append(1))
    measure({"a": Here(sleeper(1, 0.001)), "b": Here(sleeper(1, 0.001))}, seconds=0.01, repeats=3, progress=quiet())
    assert len(waits) == 1


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
