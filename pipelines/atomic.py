"""Files that are either whole or absent, whatever kills the process that writes them."""

import os
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple

PARTIAL = ".tmp"  # behind the name of a file that is being written


class FileSummary(NamedTuple):
    """Size in bytes and CRC-32 of a written file."""

    bytes: int
    crc32: int


def write(path: Path, content: Callable[[BinaryIO], object], partial: Path | None = None) -> None:
    """Write a file under another name, flush it to the disk, and rename it: it is the old one or the new one, whole.

    Args:
        path: the file; its folder must exist.
        content: writes the content to an open binary file.
        partial: name to write it under, on the same disk; None for that of the file with `PARTIAL` behind it. What a
            killed process leaves there, the next attempt removes.

    Raises:
        OSError: if the disk refuses; `path` is then as it was before.
    """
    partial = partial or path.with_name(path.name + PARTIAL)
    partial.unlink(missing_ok=True)  # a link under this name would be written through, to somewhere else
    try:
        with partial.open("wb") as file:
            content(file)
            file.flush()
            flush(file.fileno())
        rename(partial, path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        # torch's writer hides the disk's own error, such as "no space left", behind a RuntimeError.
        cause = error.__context__ if isinstance(error, RuntimeError) else error
        if isinstance(cause, OSError) and cause.errno is not None:
            raise OSError(cause.errno, cause.strerror, str(path)) from error
        raise


def write_bytes(path: Path, data: bytes, partial: Path | None = None) -> FileSummary:
    """Do as `write` with a whole content; its size and checksum."""
    write(path, lambda file: file.write(data), partial)
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


def require_writable(folder: Path, *, name: str) -> None:
    """Raise unless a file can be written to `folder`, or to the nearest folder above it if it is still to be made.

    Found out by trying, with a file that has no name and leaves nothing: permissions alone do not tell of file
    systems that take nothing.

    Args:
        folder: where something will be written after a long time of work.
        name: of the option that the user gave, for the message.

    Raises:
        OSError: if it cannot be written, or a file stands in its place.
    """
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir():
        raise NotADirectoryError(f"{name} must lie in a folder, got the file {existing}; choose another --{name}")
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise OSError(
            f"{name} must be writable, got {existing}, which takes no file ({reason}); choose another --{name}"
        ) from error
