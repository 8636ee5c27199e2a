"""Files that are either whole or absent, whatever kills the process that writes them."""

import os
import zlib
from pathlib import Path
from typing import NamedTuple


class FileSummary(NamedTuple):
    """Size in bytes and CRC-32 of a written file."""

    bytes: int
    crc32: int


def write_file(path: Path, data: bytes, temporary: Path | None = None) -> FileSummary:
    """Write `data` under a temporary name, flush it to the disk, and rename it to `path`.

    Args:
        path: file to write; its folder must exist. An existing file is replaced in one step.
        data: whole content.
        temporary: name to write it under, on the same disk; None for that of the file with ".tmp" behind it.

    Raises:
        OSError: if the disk refuses; `path` is then as it was before.
    """
    temporary = temporary or path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(data)
        flush(file.fileno())
    rename(temporary, path)
    return FileSummary(len(data), zlib.crc32(data))


def rename(temporary: Path, path: Path) -> None:
    """Give a flushed temporary file its final name and make the name itself durable."""
    temporary.replace(path)
    flush_folder(path.parent)


def flush(descriptor: int) -> None:
    """Wait until the content of an open file is on the disk."""
    os.fsync(descriptor)


def flush_folder(folder: Path) -> None:
    """Wait until renames inside `folder` are on the disk; without it a power cut can undo them."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
