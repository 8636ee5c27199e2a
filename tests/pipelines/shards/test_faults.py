"""Faults injected for real: disks that fill up, and kills at random moments."""

import errno
import resource
import subprocess
import sys

import pytest
from softfeed.pipelines import atomic
from softfeed.pipelines.shards.containers.container import ShardFile
from softfeed.pipelines.shards.containers.formats import CONTAINERS
from softfeed.pipelines.shards.convert import convert
from softfeed.pipelines.shards.layout import ShardOptions
from softfeed.pipelines.shards.shard_set import load

_COMMAND = [sys.executable, "-m", "softfeed.train.cli", "convert"]
_OPTIONS = ShardOptions(shard_samples=5)


@pytest.fixture
def whole(tmp_path, parquet_file, encoded, content):
    """A Parquet source, and the bytes of its set of five shards of about 70 KB."""
    path = parquet_file(images=[encoded(seed, size=(70, 60)) for seed in range(23)], labels=[0, 1] * 11 + [0])
    convert(path, tmp_path / "whole", _OPTIONS, workers=1)
    return path, content(tmp_path / "whole")


def _check_unfinished(dest, expected, content):
    """Nothing at `dest` is taken for a set, and whatever has its final name is whole."""
    with pytest.raises(FileNotFoundError, match="must be complete, got an unfinished conversion in"):
        load(dest)
    final = {
        name: data for name, data in content(dest).items() if not name.startswith(".partial") and ".tmp" not in name
    }
    assert final == {name: expected[name] for name in final}


class _FullDisk:
    """A disk that has room for so many writes."""

    def __init__(self, monkeypatch, room):
        self.writes = 0
        self._room = room
        for owner, name in ((ShardFile, "write"), (atomic, "flush")):
            monkeypatch.setattr(owner, name, self._limited(getattr(owner, name)))

    def _limited(self, function):
        def limited(*arguments):
            self.writes += 1
            if self.writes > self._room:
                raise OSError(errno.ENOSPC, "No space left on device")
            return function(*arguments)

        return limited


def test_a_disk_that_fills_up_at_any_moment(tmp_path, whole, content, monkeypatch):
    source, expected = whole
    with monkeypatch.context() as patch:
        disk = _FullDisk(patch, 1 << 30)
        convert(source, tmp_path / "count", _OPTIONS, workers=1)
    assert disk.writes > 50
    for room in range(0, disk.writes, 9):
        dest = tmp_path / f"set-{room}"
        with monkeypatch.context() as patch:
            _FullDisk(patch, room)
            with pytest.raises(OSError, match="No space left on device"):
                convert(source, dest, _OPTIONS, workers=1)
        _check_unfinished(dest, expected, content)
        convert(source, dest, _OPTIONS, workers=1)
        assert content(dest) == expected


@pytest.mark.parametrize("workers", [1, 2])
def test_files_that_may_not_grow(tmp_path, whole, content, workers):
    """The system refuses to write beyond 40 KB of a file, in the middle of the first shard."""
    source, expected = whole
    dest = tmp_path / "set"
    command = [*_COMMAND, source, dest, "--shard-size=5", f"--workers={workers}"]
    limited = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000)),
    )
    assert (limited.returncode, limited.stdout) == (2, "")
    assert limited.stderr.splitlines()[-1] == "softfeed: error: [Errno 27] File too large"
    _check_unfinished(dest, expected, content)
    assert convert(source, dest, _OPTIONS, workers=1).written == 23
    assert content(dest) == expected


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 400 KB, in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", folder]
    try:
        refused = subprocess.run(mount, capture_output=True, text=True, check=False).stderr
    except FileNotFoundError:
        refused = "no mount command"
    if refused:
        pytest.skip(f"mounting a small file system needs root: {refused.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_disk_that_is_full(small_disk, whole, content):
    source, expected = whole
    dest = small_disk / "set"
    with pytest.raises(OSError, match="No space left on device"):
        convert(source, dest, _OPTIONS, workers=1)
    _check_unfinished(dest, expected, content)
    subprocess.run(["mount", "-o", "remount,size=4m", small_disk], check=True)  # as if something were deleted
    convert(source, dest, _OPTIONS, workers=1)
    assert content(dest) == expected


_KILLER = """
import os, random, signal, sys, time
from softfeed.pipelines.shards.convert import convert
from softfeed.pipelines.shards.layout import ShardOptions

source, root, container = sys.argv[1:]
rng, kills, sets = random.Random(0), 0, 0
while kills < 50:
    child = os.fork()
    if not child:
        convert(source, f"{root}/{sets}", ShardOptions(shard_samples=5, format=container), workers=1)
        os._exit(0)
    time.sleep(rng.uniform(0, 0.5))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        kills += 1
    elif status:
        sys.exit(f"a conversion failed with status {status}")
    sets += os.path.exists(f"{root}/{sets}/dataset.json")
print(kills, sets)
"""


@pytest.mark.slow
@pytest.mark.parametrize("container", CONTAINERS)
def test_fifty_random_kills(tmp_path, whole, content, container):
    """Each at a random moment of a run, each followed by a run that goes on, until the set is finished."""
    source, _ = whole
    options = ShardOptions(shard_samples=5, format=container)
    convert(source, tmp_path / "expected", options, workers=1)
    root = tmp_path / "sets"
    root.mkdir()
    command = [sys.executable, "-c", _KILLER, source, root, container]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    kills, sets = map(int, run.stdout.split())
    assert kills == 50
    last = root / str(sets)
    if last.exists():
        convert(source, last, options, workers=1)
    folders = sorted(root.iterdir())
    assert folders
    for folder in folders:
        found = {name: data for name, data in content(folder).items() if not name.startswith(".partial")}
        assert found == content(tmp_path / "expected")
