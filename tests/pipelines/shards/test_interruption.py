"""Conversions that are killed, and what the next run makes of what they leave."""

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from softfeed.pipelines.shards import job, manifest
from softfeed.pipelines.shards.convert import convert
from softfeed.pipelines.shards.job import Item, read_bytes
from softfeed.pipelines.shards.layout import ShardOptions
from softfeed.pipelines.shards.shard_set import load
from softfeed.pipelines.shards.workers import ordered_results, worker_processes

_PROGRAM = """
import os, signal, sys, time
from softfeed.pipelines import atomic
from softfeed.pipelines.shards.convert import convert
from softfeed.pipelines.shards.layout import ShardOptions

if __name__ == "__main__":
    source, dest, workers, kill_at = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    flush, flushes = atomic.flush, 0

    def flush_or_die(descriptor):
        global flushes
        flushes += 1
        if flushes == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        flush(descriptor)

    def wait_for_the_kill(stage, done, *_):
        if not kill_at and done >= 4:
            time.sleep(600)

    atomic.flush = flush_or_die
    container = sys.argv[5] if len(sys.argv) > 5 else "webdataset"
    convert(source, dest, ShardOptions(shard_samples=2, format=container), workers=workers, progress=wait_for_the_kill)
"""


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(_PROGRAM)
    return path


def _start(program, *arguments):
    return subprocess.Popen([sys.executable, program, *map(str, arguments)], start_new_session=True)


def _wait_until(condition, *, deadline_s=60):
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def _processes_of_session(session):
    """Ids of the processes that `_start` started and that are still running."""
    running = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            state, _, _, found = path.read_text().rpartition(")")[2].split()[:4]
            if int(found) == session and state != "Z":
                running.append(int(path.parent.name))
    return running


def _check_unfinished(dest, whole, content):
    """`dest` is not taken for a set, and whatever has its final name is whole."""
    with pytest.raises(FileNotFoundError, match="must be complete, got an unfinished conversion in"):
        load(dest)
    left = {name: data for name, data in content(dest).items() if not name.startswith(".partial")}
    final = {name: data for name, data in left.items() if not name.endswith(".tmp")}
    assert final == {name: whole[name] for name in final}


@pytest.fixture
def whole(tmp_path, image_folder, content):
    """A set of 24 shards that nothing interrupted."""
    source = image_folder(classes=4, each=12, size=(300, 300))
    convert(source, tmp_path / "whole", ShardOptions(shard_samples=2), workers=1)
    return source, content(tmp_path / "whole")


# Number of the flush to die in. Of a fresh run, 1 is the plan, then come shard, index and record of each of 24 shards,
# then samples.npy and dataset.json; a later run begins behind the shards that are finished. RecordIO has no index per
# shard, but one for the set and the names before samples.npy.
@pytest.mark.parametrize(
    ("container", "moments"),
    [
        ("webdataset", (2, 4, random.Random(0).randrange(5, 50))),
        ("webdataset", (75,)),
        ("tfrecord", (2, 4, 70)),
        ("recordio", (2, 5, 40)),
        ("recordio", (50, 3, 3)),  # the index, the names, and the manifest
    ],
)
def test_killed_conversions_are_finished_to_the_same_bytes(tmp_path, program, whole, content, container, moments):
    source, expected = whole
    options = ShardOptions(shard_samples=2, format=container)
    if container != "webdataset":
        convert(source, tmp_path / "uninterrupted", options, workers=1)
        expected = content(tmp_path / "uninterrupted")
    dest = tmp_path / "set"
    for moment in moments:
        process = _start(program, source, dest, 1, moment, container)
        assert process.wait() == -signal.SIGKILL
        _check_unfinished(dest, expected, content)
    outcome = convert(source, dest, options, workers=1)
    assert outcome.written < 48  # what was finished was not done again
    assert content(dest) == expected


def test_workers_die_with_a_killed_conversion(tmp_path, program, whole, content):
    source, expected = whole
    dest = tmp_path / "set"
    process = _start(program, source, dest, 2, 0)
    _wait_until(lambda: len(list((dest / ".partial").glob("shard-*.json"))) >= 2)  # finished, and noted
    process.kill()
    assert process.wait() == -signal.SIGKILL
    _wait_until(lambda: not _processes_of_session(process.pid), deadline_s=10)
    _check_unfinished(dest, expected, content)
    assert convert(source, dest, ShardOptions(shard_samples=2), workers=1).written < 48
    assert content(dest) == expected


def _interrupted(source, dest, monkeypatch):
    """Convert, but fail after the shards, as a full disk would."""

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(manifest, "write", fail)
        with pytest.raises(OSError, match="No space left"):
            convert(source, dest, ShardOptions(shard_samples=2), workers=1)
    with pytest.raises(FileNotFoundError, match="unfinished conversion"):
        load(dest)


def test_finished_shards_are_not_written_again(tmp_path, image_folder, monkeypatch):
    source, dest = image_folder(), tmp_path / "set"
    _interrupted(source, dest, monkeypatch)
    times = {path: path.stat().st_mtime_ns for path in dest.glob("shard-*")}
    assert convert(source, dest, ShardOptions(shard_samples=2), workers=1).written == 0
    assert {path: path.stat().st_mtime_ns for path in dest.glob("shard-*")} == times


def test_a_finished_shard_that_was_cut_is_written_again(tmp_path, image_folder, monkeypatch, content):
    source, dest = image_folder(), tmp_path / "set"
    _interrupted(source, dest, monkeypatch)
    (dest / "shard-000002.tar").write_bytes(b"cut")
    (dest / "shard-000003.idx").unlink()
    (dest / ".partial" / "shard-000004.json").write_text('{"shard": ')
    assert convert(source, dest, ShardOptions(shard_samples=2), workers=1).written == 6
    convert(source, tmp_path / "whole", ShardOptions(shard_samples=2), workers=1)
    assert content(dest) == content(tmp_path / "whole")


@pytest.mark.parametrize("change", ["content", "name", "added"])
def test_changed_images_start_anew(tmp_path, image_folder, encoded, monkeypatch, content, change):
    source, dest = image_folder(), tmp_path / "set"
    _interrupted(source, dest, monkeypatch)
    options = ShardOptions(shard_samples=2)
    path = source / "class1" / "001.png"
    if change == "content":
        path.write_bytes(path.read_bytes()[:-1] + b"x")  # the same size, another time
    elif change == "name":
        path.rename(path.with_name("0015.png"))
    elif change == "added":
        (source / "class1" / "9.png").write_bytes(encoded(99))
    outcome = convert(source, dest, options, workers=1, max_bad=1)
    assert outcome.written == (13 if change == "added" else 12)
    convert(source, tmp_path / "whole", options, workers=1, max_bad=1)
    assert content(dest) == content(tmp_path / "whole")


@pytest.mark.parametrize("change", ["content", "time", "gone"])
def test_a_source_that_changes_meanwhile_is_noticed(tmp_path, image_folder, encoded, content, change):
    """The image was read for the first shard already, so that nothing else can notice."""
    source, dest = image_folder(), tmp_path / "set"
    options = ShardOptions(shard_samples=2, shuffle=False)
    path = source / "class0" / "000.png"

    def meddle(stage, done, *_):
        if (stage, done) == ("converting", 6):
            if change == "content":
                path.write_bytes(encoded(99, size=(9, 9)))
            elif change == "time":
                os.utime(path, ns=(1, 1))
            else:
                path.unlink()

    error = FileNotFoundError if change == "gone" else OSError
    with pytest.raises(error, match="000.png" if change == "gone" else r"source must stay as it is .*; convert it aga"):
        convert(source, dest, options, workers=1, progress=meddle)
    with pytest.raises(FileNotFoundError, match="unfinished conversion"):
        load(dest)
    assert convert(source, dest, options, workers=1).written == (11 if change == "gone" else 12)
    convert(source, tmp_path / "whole", options, workers=1)
    assert content(dest) == content(tmp_path / "whole")


def test_a_spooled_parquet_file_is_not_read_again(tmp_path, parquet_file, encoded, monkeypatch, content):
    path = parquet_file(images=[encoded(seed) for seed in range(8)], labels=[0] * 8)
    _interrupted(path, tmp_path / "set", monkeypatch)
    spool = tmp_path / "set" / ".partial" / "spool-00000.bin"
    modified = spool.stat().st_mtime_ns
    _interrupted(path, tmp_path / "set", monkeypatch)
    assert spool.stat().st_mtime_ns == modified
    convert(path, tmp_path / "set", ShardOptions(shard_samples=2), workers=1)
    convert(path, tmp_path / "whole", ShardOptions(shard_samples=2), workers=1)
    assert content(tmp_path / "set") == content(tmp_path / "whole")


@pytest.mark.parametrize("raw", [False, True])
def test_two_workers_write_the_same_bytes_as_one(tmp_path, parquet_file, encoded, content, raw):
    for split in (0, 1):
        images = [encoded(seed + 100 * split) for seed in range(20)]
        images[3] = images[3][:-100]
        path = parquet_file(f"train-0000{split}-of-00002.parquet", images=images, labels=[split] * 20)
    for workers in (1, 2):
        options = ShardOptions(raw=raw, shard_samples=3)
        outcome = convert(path.parent, tmp_path / f"{workers}", options, workers=workers, max_bad=2)
        assert len(outcome.bad) == 2
    assert content(tmp_path / "1") == content(tmp_path / "2")


def test_a_worker_that_dies_is_reported(tmp_path):
    with pytest.raises(ChildProcessError, match=r"one that died .*; try again with fewer than 2 workers"):
        with worker_processes(2) as executor:
            list(ordered_results(executor, os._exit, [1], ahead=2))


def test_a_script_that_does_not_guard_its_call_is_told_to(tmp_path, image_folder):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nfrom softfeed.pipelines.shards.convert import convert\nconvert(*sys.argv[1:], workers=2)\n"
    )
    arguments = [sys.executable, script, image_folder(), tmp_path / "set"]
    run = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=120)
    assert run.stderr.splitlines()[-1].endswith(
        "got one that died (importing the program); "
        'call this below `if __name__ == "__main__":` in the program, or with workers=1'
    )


def test_an_image_that_shrinks_meanwhile_is_an_error(image_folder):
    path = image_folder() / "class0" / "000.png"
    size = path.stat().st_size
    with pytest.raises(OSError, match=rf"000.png must stay as it is .*, got {size} of {size + 1} bytes"):
        read_bytes(Item(str(path), 0, size + 1, 0, "000.png"))


def test_unfinished_conversion_with_other_options_is_kept(image_folder, program, tmp_path):
    """A typo in an option must not cost the hours of an earlier, unfinished run."""
    source, dest = image_folder(), tmp_path / "set"
    assert _start(program, source, dest, 1, 8).wait(timeout=120) == -signal.SIGKILL
    shards = {path.name: path.read_bytes() for path in dest.glob("*.tar")}
    assert shards
    with pytest.raises(FileExistsError, match=r"got \d+ shard\(s\) of another in .*--overwrite"):
        convert(source, dest, ShardOptions(shard_samples=2, seed=5))
    assert {path.name: path.read_bytes() for path in dest.glob("*.tar")} == shards
    assert convert(source, dest, ShardOptions(shard_samples=2, seed=5), overwrite=True).written > 0


def test_unfinished_conversion_of_another_folder_is_kept(image_folder, program, tmp_path):
    source, dest = image_folder(), tmp_path / "set"
    other = tmp_path / "other"
    shutil.copytree(source, other)
    (other / "class0" if (other / "class0").is_dir() else next(other.iterdir())).joinpath("extra.png").write_bytes(
        next(source.rglob("*.png")).read_bytes()
    )
    assert _start(program, source, dest, 1, 8).wait(timeout=120) == -signal.SIGKILL
    with pytest.raises(FileExistsError, match=r"got \d+ shard\(s\) of another in"):
        convert(other, dest, ShardOptions(shard_samples=2))
    assert convert(source, dest, ShardOptions(shard_samples=2)).manifest.num_samples == 12


def test_two_attempts_at_a_shard_do_not_meet(tmp_path, image_folder, monkeypatch, content):
    """As an executor of others may have them: it believes a worker dead, and that one goes on."""
    source = image_folder()
    convert(source, tmp_path / "expected", workers=1)
    add, begun = job._add_all, []

    def add_all(shard_job, writer):
        added = add(shard_job, writer)
        begun.append(sorted(path.name for path in (tmp_path / "set" / ".partial").glob("*.tmp")))
        if len(begun) == 1:
            job.write_shard(shard_job)
        return added

    monkeypatch.setattr(job, "_add_all", add_all)
    convert(source, tmp_path / "set", workers=1)
    assert [len(names) for names in begun] == [1, 2]
    assert content(tmp_path / "set") == content(tmp_path / "expected")


def test_what_a_killed_attempt_left_is_removed(tmp_path, image_folder, monkeypatch):
    source, dest = image_folder(), tmp_path / "set"

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("softfeed.pipelines.shards.convert.assemble", stop)
        with pytest.raises(KeyboardInterrupt):
            convert(source, dest, workers=1)
    assert not list((dest / ".partial").glob("*.tmp"))
    (dest / ".partial" / "shard-000000-1234.tmp").write_bytes(b"x")

    def look(*_):
        assert not list((dest / ".partial").glob("*.tmp"))

    assert convert(source, dest, workers=1, progress=look).written == 0
