"""Rows of a batch in threads: each once, in order, with nothing left running."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from softfeed.pipelines.threads import RowThreads, at_once

from .conftest import in_fork


@pytest.fixture(params=[1, 2, 5])
def threads(request):
    pool = RowThreads(request.param)
    yield pool
    pool.close()


@pytest.mark.parametrize("rows", [0, 1, 2, 64])
def test_results_are_in_the_order_of_the_rows(threads, rows):
    def work(row, name):
        time.sleep(0.001 * (row % 3))  # later rows are done first
        return name, row

    names = [str(row) for row in range(rows)]
    for _ in range(2):
        assert threads.each(work, range(rows), names) == list(zip(names, range(rows), strict=True))


def test_as_many_threads_work_as_were_asked_for(threads):
    count = threads._others + 1
    together = threading.Barrier(count, timeout=10)  # passed only by `count` rows that are at work at a time
    assert len(threads.each(lambda row: together.wait(), range(count))) == count


@pytest.mark.parametrize("bad", [0, 1, 63])
def test_an_error_is_raised_when_nothing_works_any_more(threads, bad):
    working = []

    def work(row):
        working.append(row)
        try:
            time.sleep(0.002)
            if row == bad:
                raise KeyError(row)
        finally:
            working.remove(row)

    with pytest.raises(KeyError, match=str(bad)):
        threads.each(work, range(64))
    assert working == []
    assert threads.each(lambda row: row, range(3)) == [0, 1, 2]  # and it is still of use


def test_columns_of_different_lengths_are_refused(threads):
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        threads.each(print, range(3), range(2))


@pytest.mark.filterwarnings("ignore:.*use of fork\\(\\) may lead to deadlocks:DeprecationWarning")
def test_a_forked_process_starts_threads_of_its_own(threads):
    expected = list(range(8))
    assert threads.each(lambda row: row, range(8)) == expected
    assert in_fork(lambda: threads.each(lambda row: row, range(8))) == str(expected)


def test_rows_are_worked_on_where_no_thread_starts(threads, monkeypatch):
    """The first starts, the second does not; that is what an exiting interpreter and a limit on threads look like."""
    started = []

    def submit(pool, work):
        if started:
            raise RuntimeError("can't start new thread")
        started.append(work)
        return really_submit(pool, work)

    really_submit = ThreadPoolExecutor.submit
    monkeypatch.setattr(ThreadPoolExecutor, "submit", submit)
    for _ in range(2):
        assert threads.each(lambda row: time.sleep(0.001) or row, range(20)) == list(range(20))


def test_threads_end_when_closed_and_start_again(threads):
    before = set(threading.enumerate())
    threads.each(time.sleep, [0.001] * 8)
    threads.close()
    assert not set(threading.enumerate()) - before
    assert threads.each(lambda row: row, range(2)) == [0, 1]


@pytest.mark.parametrize("count", [1, 3, 100])
@pytest.mark.parametrize("rows", [0, 1, 40])
def test_new_threads_do_each_row_once(count, rows):
    done, names = [], set()

    def work(row, twice):
        time.sleep(0.001)
        names.add(threading.current_thread())
        done.append((row, twice))

    at_once(work, [(row, 2 * row) for row in range(rows)], count)
    assert sorted(done) == [(row, 2 * row) for row in range(rows)]
    assert len(names) <= min(count, max(rows, 1))
    if count > 1 and rows == 40:
        assert len(names) > 1


def test_new_threads_that_nobody_waits_for_at_the_end_of_the_process():
    found, together = [], threading.Barrier(3, timeout=10)  # so that each takes one row
    at_once(lambda row: found.append(threading.current_thread()) or together.wait(), [(0,), (1,), (2,)], 3)
    others = [thread for thread in found if thread is not threading.current_thread()]
    assert len(others) == 2
    assert all(thread.daemon for thread in others)
    assert not any(thread.is_alive() for thread in others)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("kind", [KeyError, KeyboardInterrupt])
def test_after_an_error_no_other_row_begins_and_those_under_way_end(count, kind):
    begun, working, failing = [], [], threading.Event()

    def work(row):
        begun.append(row)
        working.append(row)
        if row > 5:
            failing.wait(10)  # however late the thread of row 5 gets a core
        time.sleep(0.05)
        working.remove(row)
        if row == 5:
            failing.set()
            raise kind(row)

    with pytest.raises(kind, match="5"):
        at_once(work, [(row,) for row in range(64)], count)
    assert working == []
    assert len(begun) <= 6 + 2 * count


def test_rows_are_done_where_no_thread_can_start(monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    done = []
    at_once(done.append, [(row,) for row in range(9)], 4)
    assert done == list(range(9))
