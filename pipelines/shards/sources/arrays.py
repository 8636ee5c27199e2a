"""Images that come as arrays of pixels: written once, as PPM or PGM files one after another, to have extents.

A PPM file is a header of a few bytes and then the pixels. So this copies memory, decodes like any other image, and is
lossless. Raw shard sets take the pixels from it; others keep it as PNG.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ... import atomic
from .spool import Extents, FileStamp, stamp_of

_BLOCK_BYTES = 16 << 20  # of pixels in memory at a time
_MANY_CLASSES = 1_000_000  # a label above is none of a class


class ArrayPart(NamedTuple):
    """One array of images.

    Attributes:
        name: of the file or of the array in it; samples are named after it, with their row.
        rows: images.
        shape: (height, width, channels); 1 or 3 channels.
        blocks: yields uint8 (n, height, width, channels), all rows in their order. It can be pickled, so that another
            process may read the array.
    """

    name: str
    rows: int
    shape: tuple[int, int, int]
    blocks: Callable[[], Iterator[NDArray[np.uint8]]]


class ArraySource:
    """Labelled arrays of pixels.

    Args:
        root: what the user named.
        format: one of `SOURCE_FORMATS`.
        parts: the arrays, at least one.
        labels: class of every image, in the order of the parts.
        classes: class names; None for the numbers up to the greatest label.
        files: what the arrays and labels were read from.
        selection: which of the arrays and labels in these files were taken.

    Raises:
        ValueError: if there is no image, a label is none of a class, or there are more or fewer than images.
    """

    def __init__(
        self,
        root: Path,
        format: str,
        parts: Sequence[ArrayPart],
        labels: NDArray[np.int64],
        classes: tuple[str, ...] | None,
        *,
        files: Sequence[Path],
        selection: str,
    ) -> None:
        self.root = root
        self.format = format
        self.labels = labels
        self._parts = tuple(parts)
        self._first_rows = np.concatenate([[0], np.cumsum([part.rows for part in parts])])
        self._files = tuple(files)
        self._selection = selection
        if len(labels) != self._first_rows[-1]:
            raise ValueError(f"labels must be as many as images, {self._first_rows[-1]}, got {len(labels)} in {root}")
        if not len(labels):
            raise ValueError(f"source must hold images, got none in {root}")
        most = len(classes) if classes else _MANY_CLASSES
        if labels.min() < 0 or labels.max() >= most:
            wrong = labels.min() if labels.min() < 0 else labels.max()
            raise ValueError(f"labels must be in [0, {most}), got {wrong} in {root}")
        self.classes = classes or tuple(str(number) for number in range(int(labels.max()) + 1))

    @property
    def raw_shape(self) -> tuple[int, int, int] | None:
        """(height, width, 3) of all images; None if they are of several sizes."""
        sizes = {part.shape[:2] for part in self._parts}
        return (*sizes.pop(), 3) if len(sizes) == 1 else None

    def stamps(self) -> list[FileStamp]:
        """See `Source`; what was taken from the files counts too."""
        return [FileStamp(self._selection, 0, 0), *(stamp_of(file, self.root) for file in self._files)]

    def names(self, rows: Sequence[int]) -> list[str]:
        """Array and row in it, "data_batch_1/17"."""
        parts = np.searchsorted(self._first_rows, rows, side="right") - 1
        return [
            f"{self._parts[part].name}/{row - self._first_rows[part]}" for part, row in zip(parts, rows, strict=True)
        ]

    def extents(self, work: Path, executor: Executor | None, report: Callable[[int, int], None]) -> Extents:
        """Writes every array below `work`, as PPM files one after another.

        Raises:
            OSError: if they do not fit the disk.
        """
        spools = [work / f"spool-{number:05d}.bin" for number in range(len(self._parts))]
        self._require_room(work, spools)
        for done, _ in enumerate((executor.map if executor else map)(spool_part, self._parts, spools), 1):
            report(done, len(spools))
        rows = np.diff(self._first_rows)
        sizes = np.array([_record_size(part) for part in self._parts], np.int64)
        part = np.repeat(np.arange(len(spools)), rows)
        offsets = (np.arange(len(part)) - self._first_rows[part]) * sizes[part]
        return Extents([os.fspath(spool) for spool in spools], part, offsets, sizes[part])

    def _require_room(self, work: Path, spools: Sequence[Path]) -> None:
        """Raise if the arrays that are still to be written do not fit; compressed ones grow to any size."""
        size = sum(
            part.rows * _record_size(part)
            for part, spool in zip(self._parts, spools, strict=True)
            if not spool.exists()
        )
        free = shutil.disk_usage(work).free
        if size > free:
            raise OSError(f"disk must have {size} bytes free for the pixels of {self.root}, got {free} at {work}")


def spool_part(part: ArrayPart, spool: Path) -> None:
    """Write the images of one array as PPM or PGM files one after another, unless that was done before.

    Raises:
        ValueError: if the array has more or fewer rows than it was said to have.
    """
    if spool.exists():
        return
    header = np.frombuffer(_header(part), np.uint8)
    temporary = spool.with_name(spool.name + ".tmp")
    rows = 0
    with temporary.open("wb") as file:
        for block in part.blocks():
            records = np.empty((len(block), _record_size(part)), np.uint8)
            records[:, : len(header)] = header
            records[:, len(header) :] = block.reshape(len(block), -1)
            file.write(records.data)
            rows += len(block)
        if rows != part.rows:
            raise ValueError(f"array must have {part.rows} rows, got {rows} in {part.name}")
        file.flush()
        atomic.flush(file.fileno())
    atomic.rename(temporary, spool)


def rows_per_block(shape: tuple[int, int, int]) -> int:
    """Images of a shape to hold in memory at a time."""
    return max(1, _BLOCK_BYTES // max(1, int(np.prod(shape))))


def _header(part: ArrayPart) -> bytes:
    height, width, channels = part.shape
    return b"P%d\n%d %d\n255\n" % (6 if channels == 3 else 5, width, height)


def _record_size(part: ArrayPart) -> int:
    return len(_header(part)) + int(np.prod(part.shape))
