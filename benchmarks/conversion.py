"""Conversion: speed against the webdataset package's ShardWriter, what a second worker adds, memory, opening a set.

`python -m softfeed.benchmarks.conversion IMAGE_FOLDER` writes the same files in turn with the ShardWriter and with
softfeed, original bytes and headers only (`--no-check`), and with full checks, by one and by two worker processes that
are warm, since starting one takes seconds that a large data set does not notice. Softfeed flushes every shard to the
disk before it gives it its name; the ShardWriter is timed as it is and with the same flush.

Then it converts a source of 200,000 small images for the peak memory of a worker, and opens a set of 1.28 million
samples in 1,300 shards, made of a real table of samples and of shards that are holes of the right size.
"""

from __future__ import annotations

import argparse
import io
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..pipelines.shards import manifest
from ..pipelines.shards.convert import convert
from ..pipelines.shards.layout import ShardOptions
from ..pipelines.shards.manifest import SAMPLE_DTYPE, Manifest, Shard
from ..pipelines.shards.shard_set import load
from ..pipelines.shards.sources.folder import scan_image_folder
from ..pipelines.shards.sources.spool import Extents, FileStamp
from .machine import machine
from .measurement import Batches, Whole, measure
from .program import Program, finish, in_one_line
from .progress import Progress
from .rates import Rate, Ratio, cpu_ratio, ratio
from .result import Result

_WRITER, _FLUSHED = "webdataset ShardWriter", "webdataset ShardWriter, flushed"
_PLAIN, _PLAIN_TWO = "softfeed --no-check, 1 worker", "softfeed --no-check, 2 workers"
_CHECKED, _CHECKED_TWO = "softfeed, 1 worker", "softfeed, 2 workers"
_RATIOS = ((_PLAIN, _WRITER), (_PLAIN, _FLUSHED), (_PLAIN_TWO, _PLAIN), (_CHECKED_TWO, _CHECKED))


def _shard_writer(source: Path, dest: Path, shard_samples: int, *, flushed: bool) -> Batches:
    """Images and labels of a folder by the package's own writer, in one process."""
    from webdataset.writer import ShardWriter

    def flush(name: str) -> None:
        with Path(name).open("rb") as file:
            os.fsync(file.fileno())

    def write() -> Iterable[int]:
        shutil.rmtree(dest, ignore_errors=True)
        dest.mkdir(parents=True)
        paths, labels, _ = scan_image_folder(source)
        pattern = str(dest / "shard-%06d.tar")
        post = flush if flushed else None
        with ShardWriter(pattern, maxcount=shard_samples, maxsize=1 << 40, post=post, verbose=0) as writer:
            for number, (path, label) in enumerate(zip(paths, labels.tolist(), strict=True)):
                writer.write({"__key__": f"{number:08d}", "jpg": Path(path).read_bytes(), "cls": label})
        yield len(paths)

    return write


def _softfeed(source: Path, dest: Path, options: ShardOptions, executor: Executor, workers: int) -> Batches:
    def write() -> Iterable[int]:
        shutil.rmtree(dest, ignore_errors=True)
        yield convert(source, dest, options, executor=executor, workers=workers).written

    return write


def _warm(workers: int, stack: ExitStack) -> Executor:
    """A pool whose processes have imported what they need."""
    pool = stack.enter_context(ProcessPoolExecutor(workers, get_context("spawn")))
    ids: set[int] = set()
    while len(ids) < workers:
        ids.update(pool.map(_process_id, range(4 * workers)))
    return pool


def _process_id(_: int) -> int:
    time.sleep(0.05)
    return os.getpid()


def _repeated(source: Path, copies: int, folder: Path) -> Path:
    """A folder of links to every image, several times over."""
    paths, _, _ = scan_image_folder(source)
    for path in map(Path, paths):
        (folder / path.parent.name).mkdir(parents=True, exist_ok=True)
        for copy in range(copies):
            (folder / path.parent.name / f"{copy:03d}-{path.name}").symlink_to(path.resolve())
    return folder


class _SmallImages:
    """A source of a few small photographs, over and over: bytes in one file, and labels in turn."""

    format = "synthetic"
    classes = tuple(f"{number:04d}" for number in range(1000))

    def __init__(self, photographs: Path, root: Path, total: int) -> None:
        self.root = root
        self.labels = np.arange(total, dtype=np.int64) % len(self.classes)
        paths, _, _ = scan_image_folder(photographs)
        images = [_small_jpeg(path) for path in paths[:200]]
        root.write_bytes(b"".join(images))
        self._sizes = np.array([len(image) for image in images], np.int64)

    def stamps(self) -> list[FileStamp]:
        return [FileStamp(self.root.name, self.root.stat().st_size, 0)]

    def names(self, rows: Sequence[int]) -> list[str]:
        return [f"{self.classes[row % 1000]}/image-{row:08d}.jpg" for row in rows]

    def extents(self, work: Path, executor: Executor | None, report: Callable[[int, int], None]) -> Extents:
        which = np.arange(len(self.labels)) % len(self._sizes)
        offsets = np.cumsum(self._sizes) - self._sizes
        return Extents([str(self.root)], np.zeros(len(which), np.int64), offsets[which], self._sizes[which])


def _small_jpeg(path: str) -> bytes:
    file = io.BytesIO()
    with Image.open(path) as image:
        image.convert("RGB").resize((64, 64)).save(file, "JPEG", quality=90)
    return file.getvalue()


def _peak_memory(photographs: Path, folder: Path, total: int) -> dict[str, Any]:
    """Megabytes that the process and the largest of its two workers held at most; for a process of its own."""
    source = _SmallImages(photographs, folder / "images.bin", total)
    begin = time.perf_counter()
    convert(source, folder / "set", workers=2)
    elapsed_s = time.perf_counter() - begin
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        "samples": total,
        "images_per_s": total / elapsed_s,
        "process_mb": int(status["VmHWM"].split()[0]) / 1024,  # getrusage would count that of the starting program
        "worker_mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024,
    }


def _large_set(folder: Path, samples: int, shards: int) -> None:
    """A shard set whose table and manifest are real, and whose shards and indexes are holes of the right size."""
    table = np.zeros(samples, SAMPLE_DTYPE)
    table["shard"] = np.arange(samples) * shards // samples
    first = np.searchsorted(table["shard"], np.arange(shards))
    place = np.arange(samples) - first[table["shard"]]
    table["offset"], table["size"] = place * 114_176 + 512, 110_000
    table["name_offset"], table["name_size"] = table["offset"] + 112_640, 28
    table["label"] = np.arange(samples) % 1000
    table["height"], table["width"] = 375, 500
    entries = []
    for number, count in enumerate(np.bincount(table["shard"], minlength=shards).tolist()):
        name = f"shard-{number:06d}"
        entry = Shard(f"{name}.tar", f"{name}.idx", count, (count * 114_176 // 10_240 + 2) * 10_240, 0, count * 110, 0)
        entries.append(entry)
        for file, size in ((entry.file, entry.bytes), (f"{name}.idx", entry.index_bytes)):
            with (folder / file).open("wb") as hole:
                hole.truncate(size)
    made = Manifest(
        encoding="original",
        raw_shape=None,
        classes=_SmallImages.classes,
        num_samples=samples,
        largest=(375, 500),
        samples=manifest.write_samples(folder, table),
        shards=tuple(entries),
        created={},
    )
    manifest.write(folder, made)


def _opening(folder: Path, samples: int, shards: int, repeats: int) -> dict[str, Any]:
    _large_set(folder, samples, shards)
    seconds = []
    for _ in range(repeats + 1):  # the first fills the page cache
        begin = time.perf_counter()
        load(folder)
        seconds.append(time.perf_counter() - begin)
    return {"samples": samples, "shards": shards, "median_s": statistics.median(seconds[1:]), "all_s": seconds}


def _speed(source: Path, folder: Path, options: argparse.Namespace) -> dict[str, Rate]:
    """Rates by contender."""
    plain = ShardOptions(check=False, shard_samples=options.shard_size)
    checked = ShardOptions(shard_samples=options.shard_size)
    with ExitStack() as stack:
        pools = {workers: _warm(workers, stack) for workers in (1, 2)}

        def ours(shard_options: ShardOptions, workers: int) -> Whole:
            return Whole(_softfeed(source, folder / "ours", shard_options, pools[workers], workers))

        def theirs(*, flushed: bool) -> Whole:
            return Whole(_shard_writer(source, folder / "theirs", options.shard_size, flushed=flushed))

        contenders = {
            _WRITER: theirs(flushed=False),
            _FLUSHED: theirs(flushed=True),
            _PLAIN: ours(plain, 1),
            _PLAIN_TWO: ours(plain, 2),
            _CHECKED: ours(checked, 1),
            _CHECKED_TWO: ours(checked, 2),
        }
        return measure(contenders, seconds=0, repeats=options.repeats, progress=Progress())


def ratios(rates: dict[str, Rate]) -> list[Ratio]:
    """Of images per second, and against the ShardWriter also of images per CPU second."""
    of_time = [ratio(rates[name], rates[to]) for name, to in _RATIOS]
    return of_time + [cpu_ratio(rates[_PLAIN], rates[to]) for to in (_WRITER, _FLUSHED)]


def _program() -> Program:
    program = Program("conversion", __doc__)
    program.add_argument("folder", type=Path, help="image folder of photographs")
    program.add_argument("--copies", type=int, default=8, help="times that every image is written (default: 8)")
    program.add_argument("--shard-size", type=int, default=500, help="samples per shard (default: 500)")
    program.add_argument("--repeats", type=int, default=5, help="timed runs of each (default: 5)")
    program.add_argument("--synthetic", type=int, default=200_000, help="samples of the source for the memory test")
    program.add_argument("--scratch", type=Path, help="folder to write to (default: that for temporary files)")
    return program


@in_one_line
def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; returns the exit status."""
    options = _program().parsed(arguments)
    facts: dict[str, Any] = {"load_before": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        folders = {name: Path(scratch, name) for name in ("links", "sets", "memory", "large")}
        for folder in folders.values():
            folder.mkdir()
        source = _repeated(options.folder, options.copies, folders["links"])
        rates = _speed(source, folders["sets"], options)
        with ProcessPoolExecutor(1, get_context("spawn")) as alone:
            job = alone.submit(_peak_memory, options.folder.absolute(), folders["memory"], options.synthetic)
            facts["memory"] = job.result()
        facts["opening"] = _opening(folders["large"], 1_281_167, 1300, options.repeats)
    kept = {name: getattr(options, name) for name in ("copies", "shard_size", "repeats", "synthetic")}
    about = (options.command, kept, {}, machine("webdataset"))
    finish(Result("conversion", *about, list(rates.values()), ratios(rates), facts), options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
