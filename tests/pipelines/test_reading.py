"""Reading samples one by one or several at once, by how long storage takes."""

import threading
import time

import numpy as np
import pytest
from softfeed.pipelines import reading
from softfeed.pipelines.reading import SampleReader
from softfeed.pipelines.sources import open_source

KINDS = ["folder", "encoded", "raw"]
ALL = np.arange(37)


@pytest.fixture
def new_reader(noise_sets, monkeypatch):
    """A reader of 37 samples that never keeps them."""
    monkeypatch.setattr(reading, "_IN_MEMORY", 0)

    def new(kind, slow_s):
        reader = SampleReader(open_source(noise_sets[kind]))
        reader.slow_s = slow_s
        return reader

    return new


def timed(monkeypatch, seconds):
    """Let reads take as long as `seconds()` says, in time that nobody waits for; the threads that they ran in."""
    clock, threads, read, lock = [0.0], [], reading.os.preadv, threading.Lock()

    def slow(*arguments):
        with lock:
            threads.append(threading.current_thread())
            clock[0] += seconds()
        return read(*arguments)

    monkeypatch.setattr(reading.os, "preadv", slow)
    monkeypatch.setattr(reading, "perf_counter", lambda: clock[0])
    return threads


@pytest.mark.parametrize("kind", KINDS)
def test_several_at_once_give_what_one_by_one_gives(new_reader, kind):
    rows = np.tile(ALL[::-1], 5)  # more than read with the same open shards, and each several times
    slow, quick = (new_reader(kind, slow_s).read(rows) for slow_s in (-1.0, float("inf")))
    assert slow[1] == quick[1] == {}
    for one, other in zip(slow[0], quick[0], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", KINDS)
def test_storage_that_is_slow_is_asked_for_several(new_reader, monkeypatch, kind):
    """None of eight reads comes back before all of them have begun."""
    reader, together, read = new_reader(kind, -1.0), threading.Barrier(8), reading.os.preadv

    def waits(*arguments):
        together.wait(10)
        return read(*arguments)

    monkeypatch.setattr(reading.os, "preadv", waits)
    assert reader.read(ALL[:32])[1] == {}
    assert reader.reading is None


@pytest.mark.parametrize("kind", KINDS)
def test_samples_in_memory_are_read_by_one_thread(new_reader, monkeypatch, kind):
    threads = timed(monkeypatch, lambda: 40e-6)
    reader = new_reader(kind, reading._SLOW_S)
    for _ in range(20):
        reader.read(ALL)
    assert set(threads) == {threading.main_thread()}


def test_it_finds_out_when_storage_becomes_slow_or_quick_again(new_reader, monkeypatch):
    """One read in ten waits for something else all the while, such as a core."""
    usual, count = [40e-6], [0]

    def seconds():
        count[0] += 1
        return 0.01 if count[0] % 10 == 0 else usual[0]

    threads = timed(monkeypatch, seconds)
    reader = new_reader("encoded", reading._SLOW_S)

    def batches(number):
        for _ in range(number):
            threads.clear()
            reader.read(ALL)
        return set(threads) == {threading.main_thread()}

    assert batches(10)
    usual[0] = 1e-3
    batches(5)
    assert reader._usual_s > reading._SLOW_S
    usual[0] = 0.0
    batches(40)
    assert reader._usual_s < reading._SLOW_S
    assert batches(1)


@pytest.mark.parametrize("kind", KINDS)
def test_slow_storage_is_found_out_within_the_first_batch(new_reader, monkeypatch, kind):
    threads = timed(monkeypatch, lambda: 1e-3)
    reader = new_reader(kind, reading._SLOW_S)
    reader.read(ALL)
    assert set(threads[:8]) == {threading.main_thread()}
    assert set(threads[8:]) != {threading.main_thread()}
    assert reader.another()._usual_s == reader._usual_s


def test_samples_that_fail_do_not_hide_that_storage_is_slow(new_reader, monkeypatch):
    def seconds():
        count[0] += 1
        if count[0] % 5 == 0:
            raise OSError(5, "Input/output error")
        return 1e-3

    count = [0]
    timed(monkeypatch, seconds)
    reader = new_reader("folder", reading._SLOW_S)
    assert len(reader.read(ALL)[1]) == 7
    assert reader._usual_s > reading._SLOW_S


def test_opening_shards_counts_and_is_done_at_once(new_reader, monkeypatch):
    reader, read = new_reader("encoded", reading._SLOW_S), reading.os.open
    shards = len(reader._source.files)
    assert shards > 1
    clock, together = [0.0], threading.Barrier(shards)

    def slow(*arguments):
        clock[0] += 1e-3
        together.wait(10)
        return read(*arguments)

    monkeypatch.setattr(reading, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(reading.os, "open", slow)
    reader._usual_s = 1.0
    assert reader.read(ALL)[1] == {}
    assert reader._usual_s < 1.0
    reader.close()
    reader._usual_s = None
    together = threading.Barrier(1)
    assert reader.read(ALL)[1] == {}
    assert reader._usual_s > reading._SLOW_S


def test_more_shards_than_may_be_open(new_reader, monkeypatch):
    expected = new_reader("encoded", 1.0).read(ALL)[0]
    monkeypatch.setattr(reading, "_OPEN_FILES", 1)
    for slow_s in (-1.0, float("inf")):
        reader = new_reader("encoded", slow_s)
        for _ in range(2):
            for one, other in zip(reader.read(ALL)[0], expected, strict=True):
                np.testing.assert_array_equal(one, other)
            reader.read(ALL[:1])
            assert len(reader._open) == 1


def test_storage_that_gives_a_part_at_a_time(new_reader, monkeypatch):
    kinds, read = ("folder", "encoded"), reading.os.preadv
    expected = {kind: new_reader(kind, 1.0).read(ALL)[0] for kind in kinds}
    monkeypatch.setattr(reading.os, "preadv", lambda file, views, offset: read(file, [views[0][:1000]], offset))
    for kind in kinds:
        images, failures = new_reader(kind, 1.0).read(ALL)
        assert failures == {}
        for image, whole in zip(images, expected[kind], strict=True):
            np.testing.assert_array_equal(image, whole)


def test_a_file_that_is_cut_while_it_is_read(new_reader, monkeypatch):
    monkeypatch.setattr(reading.os, "preadv", lambda file, views, offset: 100 if offset == 0 else 0)
    failures = new_reader("folder", 1.0).read(ALL[:1])[1]
    assert "the file ended after 100 of " in str(failures[0])


def test_what_fails_comes_in_order_and_names_the_sample(new_reader, noise_sets, monkeypatch):
    source, fill, bad = open_source(noise_sets["encoded"]), SampleReader._fill, list(range(0, 37, 3))

    def fails(reader, index, *rest):
        if index in bad:
            time.sleep(0.001 * (37 - index))  # the last one first
            raise OSError(5, "Input/output error")
        fill(reader, index, *rest)

    monkeypatch.setattr(SampleReader, "_fill", fails)
    for slow_s in (float("inf"), -1.0):
        failures = new_reader("encoded", slow_s).read(ALL)[1]
        assert list(failures) == bad
        for row, error in failures.items():
            assert str(error) == f"cannot read {source.describe(row)}: Input/output error"


def test_a_defect_in_a_thread_is_raised(new_reader, monkeypatch):
    def broken(*_):
        raise MemoryError("no more")

    monkeypatch.setattr(reading.os, "preadv", broken)
    reader = new_reader("folder", -1.0)
    with pytest.raises(MemoryError, match="no more"):
        reader.read(ALL)


def test_it_says_what_it_waits_for(new_reader, monkeypatch):
    """Of several reads under way, the one that began first."""
    reader, begun, go_on, read = new_reader("encoded", -1.0), threading.Barrier(9), threading.Event(), reading.os.preadv

    def hangs(*arguments):
        if not go_on.is_set():
            begun.wait(10)
            go_on.wait(10)
        return read(*arguments)

    monkeypatch.setattr(reading.os, "preadv", hangs)
    thread = threading.Thread(target=reader.read, args=(ALL[5:13],))
    thread.start()
    begun.wait(10)
    assert reader.reading in range(5, 13)
    go_on.set()
    thread.join(10)
    assert reader.reading is None


@pytest.mark.parametrize("slow_s", [float("inf"), -1.0])
def test_nothing_to_read(new_reader, slow_s):
    assert len(new_reader("folder", slow_s).read(ALL[:0])[0]) == 0
