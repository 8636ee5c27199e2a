"""Looking at files of a set that is not trusted: links are not followed, pipes not opened, sizes bounded."""

import stat
from pathlib import Path

import numpy as np

from ..manifest import MANIFEST_FILE

_SLACK = 1 << 20  # bytes by which a file may be too long and still be read


class FileTrouble(ValueError):
    """A file of the set that is missing, no file, or not to be read; the text says what must be and what is."""


def file_size(path: Path, limit: int | None) -> int:
    """Size of a file of the set in bytes. Links are not followed, and what is no file is not opened.

    Args:
        path: the file.
        limit: the size that it should have. One much larger is not to be read.

    Raises:
        FileTrouble: if it is missing, a link, no file, or much larger.
    """
    try:
        status = path.lstat()
    except FileNotFoundError:
        raise FileTrouble("file must exist, got none") from None
    if not stat.S_ISREG(status.st_mode):
        kind = "a link" if stat.S_ISLNK(status.st_mode) else "no file"
        raise FileTrouble(f"must be a file in the set's folder, got {kind}")
    if limit is not None and status.st_size > 2 * limit + _SLACK:
        raise FileTrouble(f"file must be {limit} bytes as {MANIFEST_FILE} says, got {status.st_size}; it was not read")
    return status.st_size


def file_bytes(path: Path, limit: int) -> bytes:
    """Content of a file of the set, at most a little over twice `limit` bytes.

    Raises:
        FileTrouble: as `file_size`, or if it cannot be read.
    """
    try:
        size = file_size(path, limit)
        with path.open("rb") as file:
            return file.read(size)
    except OSError as error:
        raise FileTrouble(f"file must be readable, got {error.strerror}") from None


def first_difference(found: bytes, expected: bytes) -> int:
    """Position of the first byte in which two byte strings differ; the length of the shorter if there is none."""
    common = min(len(found), len(expected))
    unequal = np.frombuffer(found, np.uint8, common) != np.frombuffer(expected, np.uint8, common)
    return int(unequal.argmax()) if unequal.any() else common
