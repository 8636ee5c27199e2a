"""Conversion of labelled images to a shard set: shuffled, checked, parallel, and safe to interrupt."""

import math
import os
import time
from concurrent.futures import Executor
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path

from .assembly import assemble
from .decoding import drop_readers
from .destination import claimed, release, resume
from .job import BadImage, ShardRecord, write_shard
from .layout import ShardOptions, fitting, plan, shard_jobs
from .manifest import Manifest
from .oddities import OddImage
from .progress import Progress
from .sources.opening import Source, open_source
from .workers import default_workers, ordered_results, worker_processes

_NAMED = 3  # bad images that an error message names


@dataclass(frozen=True)
class Conversion:
    """Outcome of a conversion.

    Attributes:
        manifest: what `dataset.json` now says.
        bytes: size of all shards and indexes.
        bad: images that were left out.
        odd: images that decoders may not agree on; see `oddities`.
        written: images that this run went through; fewer than all if it resumed an earlier one.
        elapsed_s: wall time.
    """

    folder: Path
    manifest: Manifest
    bytes: int
    bad: tuple[BadImage, ...]
    odd: tuple[OddImage, ...]
    written: int
    elapsed_s: float


def convert(
    source: Source | str | os.PathLike[str],
    dest: str | os.PathLike[str],
    options: ShardOptions | None = None,
    *,
    workers: int | None = None,
    executor: Executor | None = None,
    overwrite: bool = False,
    max_bad: int | None = None,
    progress: Progress | None = None,
) -> Conversion:
    """Convert labelled images to a shard set.

    The bytes do not depend on the number of workers nor on interruptions: a conversion that was killed leaves a
    folder that no loader takes for a set, and the same call finishes it. Images that do not decode are left out, listed
    in `bad.json` with the reason, and counted against `max_bad`; those that decoders may not agree on are listed in
    `odd.json`. A Parquet source needs room for its images twice
    while it runs.

    Several workers are fresh processes, which import the program: a script must call this below
    `if __name__ == "__main__":`, or with `workers=1`.

    Args:
        source: what `open_source` returns, or a path for it.
        dest: folder of the set: new, empty, or one that was converted to before.
        options: what the set looks like; None for the defaults.
        workers: processes, positive; None for one per core, fewer for a small source. With an `executor`, how many
            workers it has.
        executor: where to do the work instead, one job per shard; it is not shut down. Its workers must see the source
            and `dest` under the same absolute paths as this process.
        overwrite: replace a finished set, or an unfinished one of other images or options.
        max_bad: bad images to tolerate, 0 or more; None for 0.1 % of all, rounded up.
        progress: called after every shard.

    Raises:
        ValueError: for an option out of range, too many bad images, or raw images of several sizes.
        OSError: if the source cannot be read, `dest` is taken or cannot be written, or a worker dies
            (ChildProcessError).
    """
    begin = time.perf_counter()
    options = options or ShardOptions()
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be positive, got {workers}")
    if max_bad is not None and max_bad < 0:
        raise ValueError(f"max_bad must be 0 or more, got {max_bad}")
    source = open_source(source) if isinstance(source, (str, os.PathLike)) else source
    options = fitting(source, options)
    dest = Path(dest)
    total = len(source.labels)
    workers = workers or default_workers(total)
    watch = _Watch(total, math.ceil(total / 1000) if max_bad is None else max_bad, progress)
    pool = worker_processes(workers) if executor is None else nullcontext(executor)
    with claimed(dest, source=source.root, overwrite=overwrite) as work, pool as chosen:
        planned = plan(source, options)
        resume(work, planned, overwrite=overwrite)
        extents = source.extents(work.absolute(), chosen, watch.files_read)
        jobs = shard_jobs(source, extents, options, dest.absolute())
        watch.begin()
        with closing(ordered_results(chosen, write_shard, jobs, ahead=4 * workers)) as results:
            records = [watch.count(record) for record in results]
        _require_all(dest, records)
        if plan(source, options) != planned:
            raise OSError(
                f"source must stay as it is while it is converted, got other files in {source.root} than at the start; "
                "convert it again"
            )
        made = assemble(source, options, dest, records)
        release(work)
    drop_readers()
    return Conversion(
        folder=dest,
        manifest=made,
        bytes=sum(shard.bytes + shard.index_bytes for shard in made.shards) + (made.index.bytes if made.index else 0),
        bad=tuple(image for record in records for image in record.bad),
        odd=tuple(image for record in records for image in record.odd),
        written=sum(record.images for record in records if record.is_new),
        elapsed_s=time.perf_counter() - begin,
    )


def _require_all(dest: Path, records: list[ShardRecord]) -> None:
    """Raise unless this process sees the shards that the workers say they have written."""
    for record in records:
        path = dest / record.shard.file
        if not path.is_file() or path.stat().st_size != record.shard.bytes:
            raise FileNotFoundError(
                f"workers must write to the same {dest.absolute()} as this process, got none of {record.shard.bytes} "
                f"bytes in {path.name}; name a folder that all of them share"
            )


class _Watch:
    """Counts what is done, shows it, and stops the conversion when too many images are bad."""

    def __init__(self, total: int, max_bad: int, progress: Progress | None) -> None:
        self._total = total
        self._max_bad = max_bad
        self._progress = progress
        self._done = 0
        self._bad: list[BadImage] = []
        self._written = 0

    def files_read(self, done: int, total: int) -> None:
        """Note that `done` of `total` files are read."""
        if self._progress:
            self._progress("reading", done, total, 0, 0)

    def begin(self) -> None:
        """Note that the first shard is begun."""
        if self._progress:
            self._progress("converting", 0, self._total, 0, 0)

    def count(self, record: ShardRecord) -> ShardRecord:
        """Note a finished shard and hand it on."""
        self._done += record.images
        self._bad += record.bad
        self._written += record.shard.bytes if record.is_new else 0
        if self._progress:
            self._progress("converting", self._done, self._total, len(self._bad), self._written)
        if len(self._bad) > self._max_bad:
            named = "; ".join(f"{image.name}: {image.reason}" for image in self._bad[:_NAMED])
            named += "; ..." if len(self._bad) > _NAMED else ""
            raise ValueError(
                f"bad images must be at most {self._max_bad} (--max-bad), got {len(self._bad)} "
                f"in the first {self._done} ({named}); repair or remove them, or allow more"
            )
        return record
