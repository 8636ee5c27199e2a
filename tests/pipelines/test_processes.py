"""Loaders in other processes, in threads that hang, and at the end of everything: no hang, no leak."""

import gc
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from pathlib import Path

import pytest
import torch
from softfeed.pipelines import AdditiveNoise, Loader, Mollify, Recipe, SoftCrop, SoftShift, presets
from softfeed.pipelines.runner import GraphRunner
from softfeed.pipelines.shards import decoding
from torch.utils.data import DataLoader, IterableDataset

from .conftest import in_fork, reader_threads

CROP, SHIFT = Recipe(crop=SoftCrop()), Recipe(crop=SoftShift())
FINISHED = Recipe(crop=SoftCrop(), noise=AdditiveNoise(), mollify=Mollify())  # by threads, after the graph


def python(code, *arguments, timeout=120):
    """Run code in a fresh interpreter; what it printed."""
    script = "import sys, os, torch\nfrom softfeed.pipelines import *\n" + textwrap.dedent(code)
    command = [sys.executable, "-c", script, *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True, start_new_session=True) as process:
        try:
            said, error = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # its children as well, which hold the pipes
            raise
    assert process.returncode == 0, error[-3000:]
    assert not error
    return said


@pytest.mark.filterwarnings("ignore:.*use of fork\\(\\) may lead to deadlocks:DeprecationWarning")
@pytest.mark.parametrize("recipe", [CROP, FINISHED], ids=["crop", "finished"])
@pytest.mark.parametrize("moment", ["before", "middle", "after"])
def test_a_loader_goes_on_in_a_forked_child(noise_set, make_loader, moment, recipe):
    loader = make_loader(noise_set, recipe)
    expected = [batch.images.sum().item() for batch in loader]
    if moment == "before":
        loader = make_loader(noise_set, recipe)
    loader.set_epoch(0)
    batches = iter(loader)
    if moment == "middle":
        next(batches)

    def child():
        loader.set_epoch(0)
        return [batch.images.sum().item() for batch in loader]

    assert in_fork(child) == str(expected)
    rest = [batch.images.sum().item() for batch in batches]
    assert rest == expected[moment == "middle" :], "the parent's own pass did not go on"


@pytest.mark.filterwarnings("ignore:.*use of fork\\(\\) may lead to deadlocks:DeprecationWarning")
def test_an_iterator_of_the_parent_is_refused_in_a_forked_child(noise_sets, make_loader):
    batches = iter(make_loader(noise_sets["raw"], SHIFT, 2, prefetch=1))
    next(batches)

    def child():
        with pytest.raises(RuntimeError, match=r"an iterator must be used in the process that made it, \d+, got \d+"):
            list(batches)
        return "refused"

    assert in_fork(child) == "refused"
    assert len(list(batches)) == 17


@pytest.mark.filterwarnings("ignore:.*use of fork\\(\\) may lead to deadlocks:DeprecationWarning")
@pytest.mark.parametrize("anew", [False, True], ids=["at once", "after a pass of its own"])
def test_an_iterator_whose_reading_is_done_is_refused_in_a_forked_child(noise_sets, make_loader, anew):
    """Nothing is left to wait for from the thread, only from the graph."""
    loader, others = make_loader(noise_sets["raw"], SHIFT, prefetch=2), reader_threads()
    batches = iter(loader)
    for _ in range(3):
        next(batches)
    for reader in reader_threads() - others:
        reader.join(60)
        assert not reader.is_alive()

    def child():
        if anew:
            assert len(list(loader)) == 4
        with pytest.raises(RuntimeError, match=r"an iterator must be used in the process that made it, \d+, got \d+"):
            list(batches)
        return "refused"

    assert in_fork(child) == "refused"
    assert len(list(batches)) == 1


@pytest.mark.filterwarnings("ignore:.*use of fork\\(\\) may lead to deadlocks:DeprecationWarning")
def test_an_iterator_that_waits_for_the_reader_is_refused_in_a_forked_child(noise_sets, make_loader, monkeypatch):
    """Its thread is not there to fill the empty queue."""
    loader = make_loader(noise_sets["encoded"], CROP, prefetch=1, timeout=None)
    release, preadv, calls = threading.Event(), os.preadv, []

    def slow(*arguments):
        calls.append(arguments)
        if len(calls) > 8:
            release.wait(60)
        return preadv(*arguments)

    monkeypatch.setattr(os, "preadv", slow)
    batches = iter(loader)
    next(batches)

    def child():
        with pytest.raises(RuntimeError, match=r"an iterator must be used in the process that made it, \d+, got \d+"):
            next(batches)
        return "refused"

    assert in_fork(child) == "refused"
    release.set()
    assert len(list(batches)) == 3


@pytest.mark.filterwarnings("ignore:.*use of fork\\(\\) may lead to deadlocks:DeprecationWarning")
def test_what_another_thread_has_locked_is_free_in_a_forked_child(noise_folder, make_loader, tmp_path):
    data = shutil.copytree(noise_folder, tmp_path / "data")
    (data / "class0" / "broken.jpg").write_bytes(b"no image")
    loader = make_loader(data, FINISHED, on_error="skip")
    locks = [loader._threads._starting, loader._errors._lock, decoding._stderr_lock]

    def child():
        return [batch.images.sum().item() for batch in loader]

    for lock in locks:
        lock.acquire()
    try:
        played = in_fork(child)
    finally:
        for lock in locks:
            lock.release()
    assert played == str([batch.images.sum().item() for batch in loader])
    assert len(loader.errors) == 1


@pytest.mark.filterwarnings("ignore:.*use of fork\\(\\) may lead to deadlocks:DeprecationWarning")
def test_what_another_thread_silenced_speaks_in_a_forked_child():
    silent, release = threading.Event(), threading.Event()

    def silence():
        with decoding._silence():
            silent.set()
            release.wait(60)

    def child():
        return os.fstat(2).st_ino, len(list(Path("/proc/self/fd").iterdir()))

    expected = in_fork(child)
    thread = threading.Thread(target=silence)
    thread.start()
    silent.wait(60)
    found = in_fork(child)
    release.set()
    thread.join()
    assert found == expected


@pytest.mark.filterwarnings("ignore:.*use of fork\\(\\) may lead to deadlocks:DeprecationWarning")
def test_a_child_plays_though_another_thread_was_in_the_middle_of_a_batch(noise_sets, make_loader, monkeypatch):
    loader = make_loader(noise_sets["raw"], SHIFT)
    expected = [batch.index.tolist() for batch in loader]
    loader.set_epoch(0)
    inside, release, collect = threading.Event(), threading.Event(), GraphRunner.collect

    def slow(runner):
        inside.set()
        release.wait(60)
        return collect(runner)

    monkeypatch.setattr(GraphRunner, "collect", slow)
    thread = threading.Thread(target=lambda: list(loader))
    thread.start()
    inside.wait(60)

    def child():
        release.set()
        loader.set_epoch(0)
        return [batch.index.tolist() for batch in loader]

    played = in_fork(child)
    release.set()
    thread.join()
    assert played == str(expected)


class Endless(IterableDataset):
    """Somebody's data set around a loader, or around one that each worker makes."""

    def __init__(self, make):
        self.make = make

    def __iter__(self):
        return iter(self.make())


@pytest.mark.filterwarnings("ignore:.*use of fork\\(\\) may lead to deadlocks:DeprecationWarning")
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("shared", [True, False])
def test_workers_of_a_data_loader_do_not_all_play_the_same(noise_sets, make_loader, workers, shared):
    loader = make_loader(noise_sets["raw"], SHIFT)
    expected = [batch.index.tolist() for batch in loader]
    make = (lambda: loader) if shared else (lambda: make_loader(noise_sets["raw"], SHIFT))
    loader.set_epoch(0)
    batches = DataLoader(
        Endless(make), batch_size=None, num_workers=workers, multiprocessing_context="fork", timeout=60
    )
    if workers == 1:
        assert [batch.index.tolist() for batch in batches] == expected
    else:
        with pytest.raises((RuntimeError, ValueError), match="2 workers of a DataLoader, which would"):
            list(batches)


@pytest.mark.parametrize("given", [{}, {"rank": 0, "world_size": 1}])
def test_a_loader_made_before_the_process_group_does_not_play_all_on_each_rank(noise_sets, monkeypatch, given):
    monkeypatch.setenv("WORLD_SIZE", "2")
    if given:
        assert Loader(noise_sets["raw"], SHIFT, 8, 32, device="cpu", **given).world_size == 1
    else:
        with pytest.raises(ValueError, match=r"rank must be known .* got WORLD_SIZE=2 .*init_process_group first, or"):
            Loader(noise_sets["raw"], SHIFT, 8, 32, device="cpu")


LEAVING = """
    import threading

    def in_thread(function):
        "Call a function in a thread that lives on for a while."
        called, release = threading.Event(), threading.Event()

        def work():
            function()
            called.set()
            release.wait(3)

        threading.Thread(target=work, daemon=True).start()
        called.wait(60)

    loader = Loader(sys.argv[1], Recipe(crop=SoftCrop()), 4, 32, device="cpu", num_threads=2)
    batches = iter(loader)
    next(batches)
    {ending}
    print("left")
"""


@pytest.mark.parametrize(
    "ending",
    [
        "pass",
        "del loader, batches",
        "loader.close()",
        "child = os.fork(); os.waitpid(child, 0) if child else None",
        "child = os.fork(); os.waitpid(child, 0) if child else loader.close()",
        "child = os.fork(); os.waitpid(child, 0) if child else print(len(list(loader)), flush=True)",
        "loader.dataset[0]; child = os.fork(); os.waitpid(child, 0) if child else None",
        "in_thread(lambda: loader.dataset[0]); child = os.fork(); os.waitpid(child, 0) if child else None",
        "in_thread(lambda: loader.dataset[0]); child = os.fork(); os.waitpid(child, 0) if child else os._exit(0)",
    ],
)
def test_an_interpreter_ends_with_a_live_iterator(noise_sets, ending):
    code = "import warnings\nwarnings.simplefilter('ignore')\n" + textwrap.dedent(LEAVING.format(ending=ending))
    assert "left" in python(code, noise_sets["folder"])


SPAWNED = """
    import torch.multiprocessing as processes

    def play(rank, data):
        loader = Loader(data, Recipe(crop=SoftCrop()), 4, 32, device="cpu", num_threads=2, rank=rank, world_size=2)
        print(len([batch for batch in loader]), flush=True)

    if __name__ == "__main__":
        loader = Loader(sys.argv[1], Recipe(crop=SoftCrop()), 4, 32, device="cpu", num_threads=2)
        next(iter(loader))
        processes.spawn(play, (sys.argv[1],), nprocs=2)
"""


def test_loaders_in_spawned_processes(noise_sets, tmp_path):
    script = tmp_path / "spawning.py"
    script.write_text("import sys\nfrom softfeed.pipelines import *\n" + textwrap.dedent(SPAWNED))
    command = [sys.executable, str(script), str(noise_sets["raw"])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.split() == ["4", "4"], done.stderr


def used():
    """Threads that Python knows, all threads, and open descriptors."""
    gc.collect()
    tasks, files = (len(list(Path("/proc/self", kind).iterdir())) for kind in ("task", "fd"))
    return {"python threads": threading.active_count(), "threads": tasks, "descriptors": files}


def test_nothing_is_left_of_loaders_that_are_left_anyhow(noise_set):
    """Broken out of, failed in, used side by side, closed or dropped: no thread and no descriptor stays."""

    def use():
        # not of `make_loader`, which keeps them
        training, validation = (
            Loader(noise_set, recipe, 8, 32, device="cpu", num_threads=2, index=True)
            for recipe in (FINISHED, presets.evaluation())
        )
        for _ in training:
            assert sum(len(batch.index) for batch in validation) == 37
            break
        with pytest.raises(ZeroDivisionError):
            [1 / 0 for _ in training]
        next(iter(validation))
        training.close()
        validation.close()

    use()
    before = used()
    for _ in range(5):
        use()
    after, end = used(), time.monotonic() + 5
    while any(after[name] > before[name] for name in before) and time.monotonic() < end:
        time.sleep(0.05)  # the kernel lists a thread for a moment after it was joined
        after = used()
    assert all(after[name] <= before[name] for name in before), (before, after)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of numpy, which cannot seek in a pipe
def test_a_read_that_hangs_is_named_and_left(noise_folder, make_loader, tmp_path):
    """A named pipe in the place of an image: whoever opens it waits for a writer for ever."""
    data = shutil.copytree(noise_folder, tmp_path / "data")
    loader = make_loader(data, CROP, 4, shuffle=False, timeout=3)  # of which the first batch needs some
    pipe = loader.source(9)
    Path(pipe).unlink()
    os.mkfifo(pipe)
    batches, played, others = iter(loader), [], reader_threads()
    start = time.monotonic()
    with pytest.raises(TimeoutError, match=r"a batch must come within 3 s of .*, got none while reading") as caught:
        played.extend(batches)
    assert time.monotonic() - start < 20
    assert f"while reading {pipe} (in reading.py:" in str(caught.value)
    assert "_file < reading.py:" in str(caught.value)
    assert "\n" not in str(caught.value)
    loader.close()  # does not wait for it
    (hung,) = reader_threads() - others
    os.close(os.open(pipe, os.O_RDWR | os.O_NONBLOCK))  # a writer, so that the thread wakes and ends
    hung.join(10)
    assert not hung.is_alive()


def test_reading_that_takes_long_and_goes_on_does_not_hang(noise_sets, make_loader, monkeypatch):
    """The whole of a small raw set is read for its first batch."""
    preadv, reads = os.preadv, []

    def slow(*arguments):
        reads.append(time.monotonic())
        time.sleep(0.3)
        return preadv(*arguments)

    monkeypatch.setattr(os, "preadv", slow)
    next(iter(make_loader(noise_sets["raw"], SHIFT, 4, timeout=1.5)))
    assert reads[-1] - reads[0] > 1.5, "it was too quick to tell"


def test_leaving_a_pass_whose_read_hangs(noise_sets, make_loader, monkeypatch):
    """Breaking out gives the read a little time, then goes on with descriptors of its own."""
    monkeypatch.setattr("softfeed.pipelines.playing._PATIENCE_S", 0.2)
    release, preadv, calls = threading.Event(), os.preadv, []
    loader = make_loader(noise_sets["encoded"], CROP, 4, shuffle=False, prefetch=2)
    expected = [batch.images for batch in loader]

    def hanging(*arguments):
        calls.append(arguments)
        if len(calls) == 20:
            release.wait(60)
        return preadv(*arguments)

    monkeypatch.setattr(os, "preadv", hanging)
    loader.set_epoch(0)
    batches, others = iter(loader), reader_threads()
    next(batches)
    (hung,) = reader_threads() - others
    start = time.monotonic()
    while len(calls) < 20:
        assert time.monotonic() - start < 60
        time.sleep(0.01)
    loader.set_epoch(0)
    start = time.monotonic()
    for batch, images in zip(loader, expected, strict=True):
        torch.testing.assert_close(batch.images, images, rtol=0, atol=0)
    assert time.monotonic() - start < 30
    for reader in reader_threads() - others - {hung}:
        reader.join(60)
    assert reader_threads() - others == {hung}
    release.set()


MEMORY = """
    import gc
    import numpy as np
    def resident():
        gc.collect()
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    loader = Loader(sys.argv[1], presets.by_name("soft-imagenet-ta"), 5, 96, device="cpu", num_threads=2)
    used = []
    for _ in range(10):
        for _ in range(10):
            for batch in loader:
                pass
        used.append(resident())
    print(np.median(used[6:]) / np.median(used[1:5]))
"""


def test_memory_after_ten_epochs_is_that_after_two(photo_folder):
    """Ten passes over ten images count as an epoch; the middle of several, as memory also comes and goes."""
    assert float(python(MEMORY, photo_folder)) < 1.02


LOCK = """
    import ctypes, threading

    def function(name, *arguments):
        found = getattr(ctypes.PyDLL(None), name)  # which keeps the lock while it is called
        found.restype, found.argtypes = ctypes.c_void_p, arguments
        return found

    interpreter = function("PyInterpreterState_Get")()
    first = function("PyInterpreterState_ThreadHead", ctypes.c_void_p)
    next_of = function("PyThreadState_Next", ctypes.c_void_p)
    sleep = function("usleep", ctypes.c_uint)

    def others():
        "Threads that hold the lock or wait for it, and that Python did not start."
        count, state = 0, first(interpreter)
        while state:
            count, state = count + 1, next_of(state)
        return count - threading.active_count()

    loader = Loader(sys.argv[1], Recipe(crop={crop}()), 4, 32, device="cpu", num_threads=2)
    for _ in loader:
        pass
    sys.setswitchinterval(100)  # from now on this thread keeps the lock until it waits for something
    for _ in range(3):
        batches, found = iter(loader), []
        for _ in range(4):  # of nine, so that the reader does not end meanwhile
            next(batches)
            sleep(30_000)  # others go on without the lock
            found.append(others())
        if any(found):
            print(found, flush=True)
            os._exit(0)
        del batches
    print("kept")
"""


@pytest.mark.parametrize(("kind", "crop"), [("encoded", "SoftShift"), ("raw", "SoftShift")])
def test_no_thread_of_a_graph_asks_for_the_interpreters_lock(noise_sets, kind, crop):
    """It would wait beside Python that computes; and until Python 3.12 a child forked just then hangs."""
    assert python(LOCK.format(crop=crop), noise_sets[kind]) == "kept\n"


LAST_THREAD = """
    import threading
    def train():
        main = threading.main_thread()
        main.join()
        loader = Loader(sys.argv[1], Recipe(crop=SoftCrop(), mollify=Mollify()), 5, 96, device="cpu", num_threads=2)
        print(sum(len(batch.images) for _ in range(2) for batch in loader))
    threading.Thread(target=train).start()
"""


def test_a_thread_that_outlives_the_main_one_plays_on(photo_folder):
    """The interpreter waits for it, and starts no more threads in the pools of the standard library."""
    assert python(LAST_THREAD, photo_folder) == "20\n"


def test_what_nobody_holds_any_more_is_freed_at_once(noise_sets):
    """Also without the garbage collector, which may come late, and in any thread."""
    before = set(threading.enumerate())
    gc.disable()
    try:
        loader = Loader(noise_sets["folder"], FINISHED, 4, 32, device="cpu", num_threads=2)
        for _ in loader:
            break
        batches, freed = iter(loader), weakref.ref(loader)
        next(batches)
        del loader
        assert freed() is not None
        next(batches)
        del batches, _
        assert freed() is None
        end = time.monotonic() + 10
        while set(threading.enumerate()) - before and time.monotonic() < end:
            time.sleep(0.01)
        assert not set(threading.enumerate()) - before
    finally:
        gc.enable()


COLLECTED = """
    import gc, threading, time
    import softfeed.pipelines.split, softfeed.pipelines.reading

    owner, name, thread = {where}
    method, dropped, collected = getattr(owner, name), threading.Event(), threading.Event()

    def collecting(*arguments):
        result = method(*arguments)
        if not threading.current_thread().name.startswith(thread):
            collected.wait(60)  # so that the other thread gets something to do
        elif dropped.wait(60):
            gc.collect()
            collected.set()
        return result

    gc.disable()
    loader = Loader(sys.argv[1], Recipe(crop=SoftCrop()), 4, 32, device="cpu", num_threads=2)
    expected = next(iter(loader)).images.sum()
    batches = iter(loader)
    next(batches)
    while not loader._player._runner._next.done():
        time.sleep(0.01)
    setattr(owner, name, collecting)
    next(batches)
    circle = [batches]
    circle.append(circle)
    {kept}
    del loader, batches, circle
    dropped.set()
    assert collected.wait(60)
    setattr(owner, name, method)
    circle = []
    circle.append(circle)
    del circle
    assert gc.collect() > 0  # it does nothing while another thread is at it
    if kept is not None:
        kept.set_epoch(0)
        assert torch.equal(next(iter(kept)).images.sum(), expected)
    else:
        end = time.monotonic() + 30
        while threading.active_count() > 1 and time.monotonic() < end:
            time.sleep(0.01)
        assert threading.active_count() == 1, threading.enumerate()
    print("left")
"""


@pytest.mark.parametrize("kept", ["kept = None", "kept = loader"], ids=["dropped", "kept"])
@pytest.mark.parametrize(
    "where",
    [
        "softfeed.pipelines.split.SplitRunner, '_finished', 'softfeed-ahead'",
        "softfeed.pipelines.split, 'resized_on_cpu', 'softfeed-rows'",
        "softfeed.pipelines.reading.SampleReader, 'read', 'softfeed-reader'",
    ],
    ids=["ahead", "rows", "reader"],
)
def test_a_pass_may_be_collected_in_a_thread_that_works_for_it(noise_sets, where, kept):
    """The thread would wait for itself, and no other thread could collect any more."""
    code = "import warnings\nwarnings.simplefilter('ignore')\n" + textwrap.dedent(
        COLLECTED.format(where=where, kept=kept)
    )
    assert "left" in python(code, noise_sets["folder"])
