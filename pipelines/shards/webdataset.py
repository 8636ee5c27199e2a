"""WebDataset shards: a USTAR tar and its DALI index, written together.

The keys are our own eight-digit numbers, so dots, spaces and long names of the source cannot reach a tar header
or the index, where DALI would misread them. The same samples give the same bytes.
"""

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from . import atomic
from .atomic import FileSummary

_BLOCK = 512  # bytes of a tar header, and what members are padded to
_RECORD = 20 * _BLOCK  # tar files end at a multiple of this, as GNU tar and tarfile write them
_OWNER = b"0000644\0" + b"0000000\0" * 2  # mode, user, group
_TAIL = b"0" + bytes(100) + b"ustar\0" + b"00" + bytes(64) + b"0000000\0" * 2  # type, no link, no names, no device
_CHECKSUM = slice(148, 156)


class Member(NamedTuple):
    """One file of a sample: extension without the dot, and content."""

    extension: str
    data: bytes


class Place(NamedTuple):
    """Where a member's content lies in its tar, in bytes."""

    offset: int
    size: int


def tar_header(name: str, size: int) -> bytes:
    """USTAR header of a regular file of mode 0644, owned by 0:0, modified at 0; shape (512,) bytes.

    Args:
        name: ASCII, at most 100 characters.
        size: content in bytes, below 8 GiB.

    Raises:
        ValueError: if the name or size does not fit a USTAR header.
    """
    if not (name.isascii() and 0 < len(name) <= 100):
        raise ValueError(f"name must be 1 to 100 ASCII characters, got {name!r}")
    if not 0 <= size < 8**11:
        raise ValueError(f"size must be below 8 GiB for a USTAR member, got {size}")
    size_and_time = b"%011o\0" % size + b"00000000000\0"
    head = name.encode().ljust(100, b"\0") + _OWNER + size_and_time
    header = bytearray((head + b" " * 8 + _TAIL).ljust(_BLOCK, b"\0"))  # the checksum counts itself as blanks
    header[_CHECKSUM] = b"%06o\0 " % sum(header)
    return bytes(header)


class ShardWriter:
    """Writes one tar member by member and remembers its index.

    Args:
        path: file to write; an existing one is replaced.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._offset = 0
        self._crc32 = 0
        self._index: list[str] = []

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, key: str, members: Sequence[Member]) -> list[Place]:
        """Append one sample and return where each member's content lies.

        Args:
            key: ASCII without dot, slash or blank; unique in the set.
            members: at least one, with different extensions.
        """
        places, fields = [], []
        for extension, data in members:
            name = f"{key}.{extension}"
            place = Place(self._offset + _BLOCK, len(data))
            self._write(tar_header(name, len(data)))
            self._write(data)
            self._write(bytes(-len(data) % _BLOCK))
            places.append(place)
            fields.append(f"{extension} {place.offset} {place.size} {name}")
        self._index.append(" ".join(fields))
        return places

    def finish(self) -> FileSummary:
        """End the tar and flush it to the disk."""
        self._write(bytes(2 * _BLOCK))
        self._write(bytes(-self._offset % _RECORD))
        self._file.flush()
        atomic.flush(self._file.fileno())
        self._file.close()
        return FileSummary(self._offset, self._crc32)

    def index_text(self) -> str:
        """DALI's WebDataset index, version 1.2: a line with the count, then one line per sample."""
        return "\n".join([f"v1.2 {len(self._index)}", *self._index]) + "\n"

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._crc32 = zlib.crc32(data, self._crc32)
        self._offset += len(data)
