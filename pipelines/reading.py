"""Reading the bytes of samples, and finding out which cannot be read."""

from __future__ import annotations

import math
import os
from collections import OrderedDict
from collections.abc import Collection
from functools import partial
from time import perf_counter

import numpy as np

from .shards.containers import recordio
from .sources import Source
from .threads import at_once

Row = tuple[int, int]  # place in a batch, and sample

# Raw sets of up to this many bytes are read into memory once: a batch of CIFAR is then one copy instead of a system
# call per image, which is a quarter of what such an image costs altogether.
_IN_MEMORY = 1 << 30

_OPEN_FILES = 128  # shards kept open; far below the usual limit of 1,024 descriptors

# Storage that takes its time, such as a network's, is asked for several samples at once. Samples that lie in memory are
# read one by one, as threads would only get in each other's way.
_AT_ONCE = 16
_SLOW_S = 150e-6  # for a sample, where one in memory takes 10 to 40 us
_MEMORY = 8  # chunks that the time of a sample is averaged over
_FIRST, _CHUNK = 8, 64  # samples to judge storage by, at first and later


class ReadError(OSError):
    """A sample's bytes could not be read; the message names the file and the sample.

    Attributes:
        reason: What is wrong, without the place.
    """

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(f"cannot read {place}: {reason}")
        self.reason = reason


class SampleReader:
    """Reads the bytes of samples, by position in the file: any order costs the same.

    Shards that are changed in place while they are read are found out, by their size and time of change.

    Args:
        source: The data set.
        stamps: Size and time of change of each shard when the data set was opened; None for now.

    Attributes:
        count: Samples that have been read; of those that several threads read at once, some may not be counted.
        slow_s: Seconds for a sample above which storage is slow, and several samples are asked for at once.
    """

    def __init__(self, source: Source, stamps: list[tuple[int, int] | None] | None = None) -> None:
        self.slow_s, self.count = _SLOW_S, 0
        self._source = source
        self._under_way: dict[int, None] = {}  # samples that are being read, the first one first
        self._usual_s: float | None = None  # that it takes to read a sample
        self._open: OrderedDict[int, int] = OrderedDict()
        self._checked: set[int] = set()  # files, in the call of `read` under way
        if stamps is None:
            stamps = [] if source.shard_set is None else [_stamp_of(path) for path in source.files]
        self._stamps = stamps
        self._pixels: np.ndarray | None = None
        self._broken: dict[int, ReadError] = {}
        self._fits = source.raw_shape is not None and len(source) * math.prod(source.raw_shape) <= _IN_MEMORY

    @property
    def reading(self) -> int | None:
        """The sample that is being read, of several the one that it takes longest; or None."""
        return next(iter([*self._under_way]), None)

    def another(self) -> SampleReader:
        """A reader of the same data set, as it was when this one was made."""
        other = SampleReader(self._source, self._stamps)
        other.slow_s, other._usual_s = self.slow_s, self._usual_s
        return other

    def read(self, indices: np.ndarray) -> tuple[list[np.ndarray] | np.ndarray, dict[int, ReadError]]:
        """Bytes of some samples, int64 (N,).

        Returns:
            Encoded images: a list of uint8 arrays of shape (bytes,). Raw images: uint8 (N, height, width, 3). And for
            each row that could not be read, why: a file that is missing, unreadable, shorter than the data set says, or
            another than it was.
        """
        if not self._fits:
            return self._read(indices)
        if self._pixels is None:
            images, broken = self._read(np.arange(len(self._source)))
            self._pixels, self._broken = np.asarray(images), broken
        failures = {}
        if self._broken:
            failures = {row: self._broken[i] for row, i in enumerate(indices.tolist()) if i in self._broken}
        return self._pixels[indices], failures

    def read_one(self, index: int) -> np.ndarray:
        """Bytes of a sample, uint8 (bytes,); of a raw image its pixels, uint8 (height, width, 3).

        Raises:
            ReadError: if it could not be read.
        """
        images, failures = self._read(np.array([index]))
        if failures:
            raise failures[0]
        return images[0]

    def _read(self, indices: np.ndarray) -> tuple[list[np.ndarray] | np.ndarray, dict[int, ReadError]]:
        source, failures = self._source, {}
        self._checked.clear()
        if source.shard_set is None:
            images = [np.empty(0, np.uint8)] * len(indices)
        elif source.raw_shape is None:
            images = [np.empty(size, np.uint8) for size in source.size[indices].tolist()]
        else:
            images = np.empty((len(indices), *source.raw_shape), np.uint8)
        rows, done = list(enumerate(indices.tolist())), 0
        while done < len(rows):
            chunk = rows[done : done + (_FIRST if self._usual_s is None else _CHUNK)]
            done += len(chunk)
            failures |= self._read_chunk(chunk, images)
        return images, dict(sorted(failures.items()))

    def _read_chunk(self, chunk: list[Row], images: list[np.ndarray] | np.ndarray) -> dict[int, ReadError]:
        """Read some rows, note how long they took, and tell which could not be read."""
        failures: dict[int, ReadError] = {}
        seconds: dict[int, float] = {}
        threads = _AT_ONCE if (self._usual_s or 0.0) > self.slow_s else 1
        if self._source.shard_set is not None:
            files: dict[int, list[Row]] = {}
            for row, index in chunk:
                files.setdefault(int(self._source.file[index]), []).append((row, index))
            self._make_room(files)
            new = [item for item in files.items() if item[0] not in self._open or item[0] not in self._checked]
            at_once(partial(self._open_shard, seconds, failures), new, threads)

        def read(row: int, index: int) -> None:
            begin = perf_counter()
            self._under_way[index] = None
            try:
                if self._source.shard_set is None:
                    images[row] = self._file(index)
                else:
                    self._fill(index, images[row])
                seconds[row] = seconds.get(row, 0.0) + perf_counter() - begin
            except (OSError, ValueError) as error:
                failures[row] = self._error(index, error)
            self.count += 1
            self._under_way.pop(index, None)  # a small data set may be in a batch twice

        at_once(read, [(row, index) for row, index in chunk if row not in failures], threads)
        self._note([seconds[row] for row, _ in chunk if row not in failures])
        return failures

    def _make_room(self, files: Collection[int]) -> None:
        """Close shards that were not used for longest, so that these can be open."""
        for file in files:
            if file in self._open:
                self._open.move_to_end(file)
        missing = sum(file not in self._open for file in files)
        while self._open and len(self._open) + missing > max(_OPEN_FILES, len(files)):
            os.close(self._open.popitem(last=False)[1])

    def _open_shard(
        self, seconds: dict[int, float], failures: dict[int, ReadError], file: int, rows: list[Row]
    ) -> None:
        """Have a shard open, and note how long its rows waited for that, or why they failed."""
        begin, (_, first) = perf_counter(), rows[0]
        self._under_way[first] = None
        try:
            self._check(file)
            seconds.update(dict.fromkeys((row for row, _ in rows), perf_counter() - begin))
        except (OSError, ValueError) as error:
            failures.update({row: self._error(index, error) for row, index in rows})
        self._under_way.pop(first, None)

    def _note(self, seconds: list[float]) -> None:
        """Note how long samples took to read."""
        if seconds:
            # the quick ones tell what storage takes; others also waited for a core
            now = float(np.quantile(seconds, 0.25))
            self._usual_s = now if self._usual_s is None else self._usual_s + (now - self._usual_s) / _MEMORY

    def _error(self, index: int, error: OSError | ValueError) -> ReadError:
        """What a sample's error becomes."""
        return ReadError(self._source.describe(index), getattr(error, "strerror", None) or str(error))

    def _file(self, index: int) -> np.ndarray:
        """A file that is an image."""
        # the system's calls: np.fromfile, which goes through a file object of Python's, takes longer
        descriptor = os.open(self._source.files[int(self._source.file[index])], os.O_RDONLY | os.O_CLOEXEC)
        try:
            image = np.empty(os.fstat(descriptor).st_size, np.uint8)
            count = _read_all(descriptor, image, 0)
        finally:
            os.close(descriptor)
        if not len(image):
            raise ValueError("the file is empty; remove it")
        if count < len(image):
            raise ValueError(f"the file ended after {count} of {len(image)} bytes; it was cut meanwhile")
        return image

    def _fill(self, index: int, image: np.ndarray) -> None:
        """Fill an array with the bytes of an image in an open shard."""
        source = self._source
        descriptor = self._open[int(source.file[index])]
        if source.multipart and (parts := source.multipart.get(index)):
            # RecordIO holds the image in several parts, which begin with the record's own words
            head = recordio.CONTAINER.first_offset
            record = os.pread(descriptor, head + image.nbytes + 4 * (parts - 1), int(source.offset[index]) - head)
            image.reshape(-1)[...] = np.frombuffer(recordio.unwrap(record), np.uint8)
            return
        count = _read_all(descriptor, image, int(source.offset[index]))
        if count != image.nbytes:
            raise ValueError(f"the file ends after {count} of {image.nbytes} bytes; convert it again or copy it anew")

    def close(self) -> None:
        """Close the files and forget what was read."""
        self._pixels = None
        while self._open:
            os.close(self._open.popitem()[1])

    def __del__(self) -> None:
        # of a reader whose thread hung when the loader was closed: only the thread can tell when it is done
        self.close()

    def _check(self, file: int) -> None:
        """Open a shard if need be, and see that it is the one that the data set was opened with.

        Raises:
            OSError, ValueError: if it cannot be opened, or is another.
        """
        if file not in self._open:
            self._open[file] = os.open(self._source.files[file], os.O_RDONLY | os.O_CLOEXEC)
        now, stamp = os.fstat(self._open[file]), self._stamps[file]
        if stamp is not None and stamp != (now.st_size, now.st_mtime_ns):
            os.close(self._open.pop(file))
            raise ValueError(
                f"the file was cut, replaced or written to since the data set was opened (it had {stamp[0]} bytes "
                f"and has {now.st_size}); open the data set anew, or copy it back"
            )
        self._checked.add(file)


def _read_all(descriptor: int, image: np.ndarray, offset: int) -> int:
    """Fill an array of uint8 from a file; returns how many bytes there were. Some storage gives a part at a time."""
    if not image.size:
        return 0
    left, done = image.data.cast("B"), 0
    while done < len(left) and (count := os.preadv(descriptor, [left[done:]], offset + done)):
        done += count
    return done


def _stamp_of(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - of each of many thousand shards
    except OSError:
        return None  # opening it will say so
    return found.st_size, found.st_mtime_ns
