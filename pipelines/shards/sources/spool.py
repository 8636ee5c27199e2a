"""Extents: where the bytes of images lie in files. A Parquet column is spooled to one flat file to have some.

A global shuffle draws every shard from all over the source. Image files can be read in any order; a row of a Parquet
file cannot, without decompressing its whole row group. So each Parquet file is read once, from front to back, and its
images are appended to a flat file beside the shards, which goes away when the conversion is done.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ... import atomic

_ROWS = 256  # per Arrow batch; the images of one batch are all that is in memory


class Extents(NamedTuple):
    """Bytes `offset[i]` to `offset[i] + size[i]` of `files[file[i]]` are image i; arrays int64 (num_samples,).

    If there is an `unwrap`, it makes the image of those bytes, or raises ValueError if they are damaged. With
    `own_files` every image is a file, and one that cannot be read is no more than one bad image.
    """

    files: Sequence[str]
    file: NDArray[np.int64]
    offset: NDArray[np.int64]
    size: NDArray[np.int64]
    unwrap: Callable[[bytes], bytes] | None = None
    own_files: bool = False


class FileStamp(NamedTuple):
    """Name inside the source, size in bytes and modification time in ns: what tells that a file was not changed."""

    name: str
    size: int
    modified_ns: int


def stamp_of(path: str | os.PathLike[str], root: Path) -> FileStamp:
    """Stamp of a file below `root`, or of `root` itself."""
    status = os.stat(path)  # noqa: PTH116 - a Path for each of millions of files would cost seconds
    name = os.fspath(path)[len(os.fspath(root)) :].lstrip("/") or root.name
    return FileStamp(name, status.st_size, status.st_mtime_ns)


def spool_column(source: Path, column: str, spool: Path) -> Path:
    """Copy the binary values of one Parquet column into a flat file, unless that was done before.

    Args:
        source: Parquet file.
        column: name of a column of type binary, or of such a field of a struct ("img.bytes").
        spool: file to write; its offsets go beside it with the suffix ".npy", written last.

    Returns:
        path of the offsets: int64 (rows + 1,); a missing value has no bytes.
    """
    offsets_file = spool.with_suffix(".npy")
    if offsets_file.exists():
        return offsets_file
    sizes: list[NDArray[np.int64]] = [np.zeros(1, np.int64)]
    temporary = spool.with_name(spool.name + ".tmp")
    with pq.ParquetFile(source, pre_buffer=False) as parquet, temporary.open("wb") as file:
        for batch in parquet.iter_batches(batch_size=_ROWS, columns=[column], use_threads=False):
            content, offsets = _binary(batch.column(0))
            file.write(content)
            sizes.append(np.diff(offsets))
        file.flush()
        atomic.flush(file.fileno())
    atomic.rename(temporary, spool)
    offsets = np.cumsum(np.concatenate(sizes))
    temporary = offsets_file.with_name(offsets_file.name + ".tmp")
    with temporary.open("wb") as file:
        np.save(file, offsets)
        file.flush()
        atomic.flush(file.fileno())
    atomic.rename(temporary, offsets_file)
    return offsets_file


def _binary(column: pa.Array) -> tuple[memoryview, NDArray[np.int64]]:
    """Binary values of a column, or of the only field read of a struct: one run of bytes, and offsets (rows + 1,)."""
    values = column.flatten()[0] if pa.types.is_struct(column.type) else column
    values = values.cast(pa.large_binary()).fill_null(b"")
    _, offset_buffer, data = values.buffers()
    offsets = np.frombuffer(offset_buffer, np.int64)[values.offset : values.offset + len(values) + 1]
    return memoryview(data or b"")[offsets[0] : offsets[-1]], offsets
