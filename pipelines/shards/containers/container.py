"""What the container formats have in common: writing samples to a shard, and what a strict scan of a file finds.

A container is what `webdataset`, `tfrecord` and `recordio` describe of their format in one `Container` each. Nothing
else in the converter depends on how a format lays out its bytes.
"""

import os
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from ... import atomic
from ...atomic import FileSummary


class StoredSample(NamedTuple):
    """What a shard stores of a sample.

    Attributes:
        key: position in the source's shuffled order, unique in the set.
        image: content of the image file, or uint8 RGB pixels row by row.
        extension: usual one of the image's format without the dot; "rgb" for pixels.
        label: position of the class, 0 or more.
        class_name: name of the class.
        name: original name of the sample.
        height: in pixels, EXIF orientation applied.
        width: in pixels.
    """

    key: int
    image: bytes
    extension: str
    label: int
    class_name: str
    name: str
    height: int
    width: int


class Place(NamedTuple):
    """Bytes `offset` to `offset + size` of a file."""

    offset: int
    size: int


def name_bytes(name: str) -> bytes:
    """Bytes of an original name as shards hold them: UTF-8, or what it was on the disk if that was none."""
    return name.encode("utf-8", "surrogateescape")


def name_text(data: bytes) -> str:
    """The original name that `name_bytes` was given."""
    return data.decode("utf-8", "surrogateescape")


class Placed(NamedTuple):
    """Where a shard holds a sample.

    Attributes:
        image: place of the image's first byte, and the size of the image; see `parts`.
        name: place of the original name, or (0, size) in a format that keeps names outside its shards.
        parts: 1 if the image's bytes are contiguous; more if the format split them (RecordIO only), with 4 bytes of
            its own before each further part.
    """

    image: Place
    name: Place
    parts: int = 1


class Problem(NamedTuple):
    """Something in a file that its format forbids.

    Attributes:
        offset: in the file, of the record or member that is wrong.
        reason: in a few words.
        is_end: what follows cannot be told from here on, so the scan ends.
    """

    offset: int
    reason: str
    is_end: bool = False


class Field(NamedTuple):
    """A named run of bytes in a file, such as a member of a tar."""

    name: str
    offset: int
    size: int


class Entry(NamedTuple):
    """A whole record, or the consecutive tar members of one sample.

    Attributes:
        offset: of its first byte, headers included.
        size: headers and padding included; entries of a faultless file follow one another without a gap.
        key: what names it in the file: the members' common stem, else its number.
        fields: the members of a tar by their extensions, or the "payload" of a record.
        parts: of the payload, as in `Placed`.
    """

    offset: int
    size: int
    key: str
    fields: tuple[Field, ...]
    parts: int = 1


class Columns(NamedTuple):
    """What image and label are called in sets of other programs; None for the usual names of the format."""

    image: str | None = None
    label: str | None = None


class Content(NamedTuple):
    """What an entry says of its sample.

    Attributes:
        image: place of the image's bytes; where the format split them, of all parts with what lies between.
        label: 0 or more.
        class_name: None where the format has none.
        name: original name; None where the format has none.
        key: number that softfeed gave the sample; None where the format has none, or another program wrote the set.
        member: name of the image in a tar; empty for records.
    """

    image: Place
    label: int
    class_name: str | None = None
    name: str | None = None
    key: int | None = None
    member: str = ""


USUAL = Columns()

Read = Callable[[int, int], bytes]
"""Bytes of a file: `read(offset, size)`; fewer where it ends."""


class ShardFile:
    """A new file that knows its length and checksum.

    Args:
        path: file to write; an existing one is replaced.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self.offset = 0
        self._crc32 = 0

    def write(self, *pieces: bytes) -> None:
        """Append some bytes."""
        for data in pieces:
            self._file.write(data)
            self._crc32 = zlib.crc32(data, self._crc32)
            self.offset += len(data)

    def finish(self) -> FileSummary:
        """Flush to the disk and close."""
        self._file.flush()
        atomic.flush(self._file.fileno())
        self._file.close()
        return FileSummary(self.offset, self._crc32)

    def close(self) -> None:
        """Close the file as it is."""
        self._file.close()


class ShardWriter(Protocol):
    """Writes one shard sample by sample."""

    def add(self, sample: StoredSample) -> Placed:
        """Append a sample.

        Raises:
            ValueError: if the format cannot hold it.
        """
        ...

    def finish(self) -> FileSummary:
        """End the shard and flush it to the disk."""
        ...

    def index_text(self) -> str:
        """DALI's index of this shard; empty if the format has one for the whole set."""
        ...

    def close(self) -> None:
        """Close the file, finished or not."""
        ...


class Container(NamedTuple):
    """A container format.

    Attributes:
        name: as options and manifests call it.
        suffix: of its files, with the dot.
        first_offset: smallest offset of an image in a shard.
        alignment: what that offset is a multiple of.
        open_writer: makes the writer of a file.
        scan: entries and problems of a file, in their order. It believes nothing and stops at what is not the format;
            its memory is bounded whatever the file says.
        contents: the sample that one entry holds, read through `read`; none for a record about the set, several for a
            tar whose stems have dots. Raises ValueError if an entry is neither.
        unwrap: image in the bytes of a whole entry, checksums verified. Raises ValueError if they are damaged. None if
            images lie bare in the file.
        is_indexed_by_shard: every shard has a DALI index and holds the original names; if False there is one index for
            the set, and names are in a file of their own.
    """

    name: str
    suffix: str
    first_offset: int
    alignment: int
    open_writer: Callable[[ShardFile], ShardWriter]
    scan: Callable[[Path], Iterator[Entry | Problem]]
    contents: Callable[[Entry, Read, Columns], list[Content]]
    unwrap: Callable[[bytes, Columns], bytes] | None
    is_indexed_by_shard: bool = True


class FileReader:
    """Reads a file here and there; use it as a context manager.

    Args:
        path: file to read.
        within: the part of it that is read as if it were the file; None for all.
    """

    def __init__(self, path: Path, within: Place | None = None) -> None:
        self._file: BinaryIO = path.open("rb")
        size = os.fstat(self._file.fileno()).st_size
        self._start, self.size = within or (0, size)

    def __enter__(self) -> "FileReader":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __call__(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset` on; fewer where the file ends."""
        self._file.seek(self._start + offset)
        return self._file.read(min(size, max(self.size - offset, 0)))


def usual(names: Sequence[str], wanted: str | None, present: Collection[str]) -> str | None:
    """First of the usual names that is present, or the one that was asked for if it is."""
    return next((name for name in ([wanted] if wanted is not None else names) if name in present), None)
