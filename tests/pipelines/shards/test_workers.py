"""Where the work is done: worker processes, executors of the caller, a Dask cluster."""

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import util
from pathlib import Path

import pytest
from softfeed.pipelines.shards.convert import convert
from softfeed.pipelines.shards.layout import ShardOptions
from softfeed.pipelines.shards.workers import ordered_results, worker_processes

_OPTIONS = ShardOptions(shard_samples=5)


class _Here(Executor):
    """An executor of somebody's own, which does everything at once, right here."""

    def __init__(self):
        self.submitted = 0

    def submit(self, fn, /, *args, **kwargs):
        self.submitted += 1
        future = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except ValueError as error:
            future.set_exception(error)
        return future


@pytest.fixture
def source(parquet_file, encoded):
    """24 images in two Parquet files, one of them damaged."""
    for part in (0, 1):
        images = [encoded(seed + 100 * part) for seed in range(12)]
        images[3] = images[3][:-100] if part else images[3]
        path = parquet_file(f"train-0000{part}-of-00002.parquet", images=images, labels=[part] * 12)
    return path.parent


def _same_as_one_worker(tmp_path, source, content, executor, **settings):
    convert(source, tmp_path / "one", _OPTIONS, workers=1, max_bad=1)
    outcome = convert(source, tmp_path / "other", _OPTIONS, executor=executor, max_bad=1, **settings)
    assert len(outcome.bad) == 1
    assert content(tmp_path / "other") == content(tmp_path / "one")


def test_threads_write_the_same_bytes(tmp_path, source, content):
    with ThreadPoolExecutor(3) as executor:
        _same_as_one_worker(tmp_path, source, content, executor, workers=3)
        assert executor.submit(int, "7").result() == 7  # it was not shut down


def test_processes_write_the_same_bytes(tmp_path, source, content):
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as executor:
        _same_as_one_worker(tmp_path, source, content, executor)


def test_any_executor_will_do(tmp_path, source, content):
    executor = _Here()
    _same_as_one_worker(tmp_path, source, content, executor)
    assert executor.submitted == 2 + 5  # Parquet files, shards


class _Elsewhere(_Here):
    """Workers that have another disk under the same path."""

    def __init__(self, disk):
        super().__init__()
        self._disk = disk

    def submit(self, fn, /, job):
        (self._disk / ".partial").mkdir(parents=True, exist_ok=True)
        return super().submit(fn, replace(job, folder=self._disk))


def test_workers_that_write_elsewhere_are_noticed(tmp_path, image_folder):
    with pytest.raises(FileNotFoundError, match=r"workers must write to the same .*set as this process, got"):
        convert(image_folder(), tmp_path / "set", _OPTIONS, executor=_Elsewhere(tmp_path / "theirs"))
    assert not (tmp_path / "set" / "dataset.json").exists()


def test_an_error_ends_the_work_that_was_handed_out():
    begun = []

    def work(number):
        begun.append(number)
        time.sleep(0.05)
        if number == 1:
            raise ValueError("bad luck")
        return number

    with ThreadPoolExecutor(1) as executor:
        with pytest.raises(ValueError, match="bad luck"):
            list(ordered_results(executor, work, range(100), ahead=50))
        at_the_end = len(begun)
        executor.submit(int).result()
        assert len(begun) == at_the_end < 50  # of those handed out


def _children(pid):
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return path.read_text().split() if path.exists() else []


def _is_worker(pid):
    try:
        return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return False


def test_ctrl_c_while_a_worker_is_started_waits_until_it_is(monkeypatch, capfd):
    """Another thread may take the signal, so that the starting thread's mask does not keep it away."""
    launch = util.spawnv_passfds

    def launch_and_interrupt(*args):
        process = launch(*args)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)  # the new process waits to be told what to import
        return process

    over = threading.Event()
    taker = threading.Thread(target=over.wait)
    taker.start()
    try:
        with worker_processes(2) as executor:
            monkeypatch.setattr(util, "spawnv_passfds", launch_and_interrupt)
            with pytest.raises(KeyboardInterrupt):
                executor.submit(int, "7")
    finally:
        over.set()
        taker.join()
    assert capfd.readouterr().err == ""  # the worker began, and ended without a word
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("after_s", [0.0, 0.7])
def test_ctrl_c_while_workers_start_is_one_line(tmp_path, image_folder, after_s):
    """The workers import for seconds, and get the signal too, as a terminal sends it to all of the foreground group."""
    source = image_folder(classes=2, each=40)
    for image in [path for path in source.rglob("*") if path.is_file()]:
        for number in range(100):  # so that it is not over before the signal comes
            image.with_name(f"{number}-{image.name}").hardlink_to(image)
    command = [sys.executable, "-m", "softfeed.train.cli", "convert", source, tmp_path / "set", "--workers=2"]
    process = subprocess.Popen(
        [*command, "--shard-size=4"], start_new_session=True, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    end = time.monotonic() + 60
    while sum(map(_is_worker, _children(process.pid))) < 2:
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(after_s)
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert output == ""
    # workers may be there before anything is counted
    counted = r" while \w+, at least [\d,]+ of [\d,]+ \w+ done; the same command again goes on"
    assert re.fullmatch(f"softfeed: error: interrupted({counted})?", errors.splitlines()[-1])
    assert "Traceback" not in errors
    assert process.returncode == 130
