"""RecordIO shards, as MXNet's im2rec writes them, without MXNet.

A record is `uint32 0xced7230a | uint32 part << 29 | length | payload | zeros up to 4 bytes`, little endian. Where the
payload has that magic number at a multiple of 4 bytes, the record is split there: the magic is left out, and begins
the next part instead. `part` is 0 for a whole record, else 1, 2 and 3 for the first, middle and last part. The payload
is a header (flag, label as float32, two numbers) and the image.

DALI takes one index for all files of a set, whose offsets go on from file to file in their order. The format has no
place for original names; they are in a file of their own.
"""

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

from ...atomic import FileSummary
from .container import (
    USUAL,
    Columns,
    Container,
    Content,
    Entry,
    Field,
    FileReader,
    Place,
    Placed,
    Problem,
    Read,
    ShardFile,
    StoredSample,
    name_bytes,
)

_MAGIC = struct.pack("<I", 0xCED7230A)
_LENGTH_BITS = 29
_HEAD = 8  # bytes before a part
_HEADER = struct.Struct("<IfQQ")
_WHOLE, _FIRST, _MIDDLE, _LAST = range(4)
_GREATEST_LABEL = 1 << 24  # float32 tells all whole numbers up to this apart
_MOST_BYTES = 1 << 30  # of a record in several parts, which is put together in memory
_MOST_LABELS = 4096


class ShardWriter:
    """Writes one file record by record.

    Args:
        file: where it goes.
    """

    def __init__(self, file: ShardFile) -> None:
        self._file = file

    def add(self, sample: StoredSample) -> Placed:
        """Append a record, split where its payload has the magic number.

        Raises:
            ValueError: if the label or the image is too large for the format.
        """
        if sample.label > _GREATEST_LABEL:
            raise ValueError(f"label must be at most {_GREATEST_LABEL} for RecordIO, got {sample.label}")
        payload = _HEADER.pack(0, sample.label, sample.key, 0) + sample.image
        if len(payload) >= 1 << _LENGTH_BITS:
            raise ValueError(
                f"image must be below 512 MiB for RecordIO, got {len(sample.image)} bytes in {sample.name}"
            )
        start = self._file.offset
        parts = _split(payload)
        for number, part in enumerate(parts):
            kind = _WHOLE if len(parts) == 1 else _FIRST if not number else _MIDDLE
            kind = _LAST if number and number == len(parts) - 1 else kind
            self._file.write(_MAGIC, struct.pack("<I", kind << _LENGTH_BITS | len(part)), part)
        self._file.write(bytes(-self._file.offset % 4))
        image = Place(start + _HEAD + _HEADER.size, len(sample.image))
        return Placed(image, Place(0, len(name_bytes(sample.name))), len(parts))

    def finish(self) -> FileSummary:
        """Flush to the disk."""
        return self._file.finish()

    def index_text(self) -> str:
        """Empty: there is one index for the whole set."""
        return ""

    def close(self) -> None:
        """Close the file, finished or not."""
        self._file.close()


def _split(payload: bytes) -> list[bytes]:
    """Parts of a payload, between which the magic number was."""
    parts, start = [], 0
    found = payload.find(_MAGIC)
    while found >= 0:
        if found % 4 == 0:
            parts.append(payload[start:found])
            start = found + 4
        found = payload.find(_MAGIC, found + (4 if found % 4 == 0 else 1))
    return [*parts, payload[start:]]


def set_index(offsets: Iterable[int]) -> str:
    """DALI's and MXNet's index: number and offset of every record, the offsets in all files one after the other."""
    return "".join(f"{number}\t{offset}\n" for number, offset in enumerate(offsets))


def scan(path: Path) -> Iterator[Entry | Problem]:
    """Records of a file by their lengths, several parts of one put together; payloads are not looked at."""
    with FileReader(path) as read:
        offset = 0
        for number in range(read.size):
            if offset == read.size:
                return
            try:
                parts, end, payload_end = _follow(read, offset)
            except ValueError as error:
                yield Problem(offset, str(error), is_end=True)
                return
            payload = Field("payload", offset + _HEAD, payload_end - offset - _HEAD)
            yield Entry(offset, end - offset, str(number), (payload,), parts)
            offset = end


def _follow(read: FileReader, offset: int) -> tuple[int, int, int]:
    """Parts of the record at an offset, where its padding ends, and where its payload does."""
    for parts in range(1, read.size):
        kind, length = _part(read(offset, _HEAD))
        if kind not in ((_WHOLE, _FIRST) if parts == 1 else (_MIDDLE, _LAST)):
            raise ValueError(f"part {parts} of a record must continue it, got one of kind {kind}")
        end = offset + _HEAD + length
        padded = end + -end % 4
        if padded > read.size:
            raise ValueError(f"record of {length} bytes reaches beyond the end of the file, which was cut short")
        if kind in (_WHOLE, _LAST):
            return parts, padded, end
        if length % 4:
            raise ValueError(f"parts but the last must be multiples of 4 bytes, got {length}")
        offset = end
    raise ValueError("record must end, got parts to the end of the file")


def _part(head: bytes) -> tuple[int, int]:
    """Kind and length of a part, by its first 8 bytes."""
    if len(head) < _HEAD:
        raise ValueError("ends in the middle of a record's head; the file was cut short")
    if head[:4] != _MAGIC:
        raise ValueError(f"record must begin with 0a 23 d7 ce, got {head[:4].hex(' ')}")
    word = int.from_bytes(head[4:], "little")
    kind, length = word >> _LENGTH_BITS, word & (1 << _LENGTH_BITS) - 1
    if kind > _LAST:
        raise ValueError(f"kind of a record's part must be 0 to 3, got {kind}")
    return kind, length


def contents(entry: Entry, read: Read, columns: Columns) -> list[Content]:
    """The sample of a record; none if it holds no image, as the records that InsightFace puts before its own.

    Args:
        entry: from `scan`.
        read: of the same file.
        columns: `label` is the position of the class in a record with several labels, decimal; `image` is unused.

    Raises:
        ValueError: if the header does not fit the record, or does not hold one class.
    """
    payload = entry.fields[0]
    if entry.parts == 1:
        head = read(payload.offset, min(payload.size, _HEADER.size + 4 * _MOST_LABELS))
        first, label = _header(head, payload.size, columns)
        place = Place(payload.offset + first, payload.size - first)
        return [] if first == payload.size else [Content(place, label, key=_key(head))]
    if entry.size > _MOST_BYTES:
        raise ValueError(f"record in {entry.parts} parts must be at most {_MOST_BYTES} bytes, got {entry.size}")
    whole, cuts = _joined(read(entry.offset, entry.size))
    first, label = _header(whole, len(whole), columns)
    start = first
    for cut in cuts:  # the image begins later in the file if the header itself is split
        start += 4 if cut <= start else 0
    place = Place(payload.offset + start, payload.size - start)
    return [] if first == len(whole) else [Content(place, label, key=_key(whole))]


def unwrap(record: bytes, columns: Columns = USUAL) -> bytes:
    """Image in a whole record; padding may be left out.

    Raises:
        ValueError: if it is no record with an image.
    """
    whole, _ = _joined(record)
    first, _ = _header(whole, len(whole), columns)
    return whole[first:]


def _joined(record: bytes) -> tuple[bytes, list[int]]:
    """Payload of a record, and where in the file, from the start of the payload, 4 bytes are left out of it."""
    pieces: list[bytes] = []
    cuts = []
    offset, kind = 0, _FIRST
    while kind not in (_WHOLE, _LAST):
        kind, length = _part(record[offset : offset + _HEAD])
        if offset:
            pieces.append(_MAGIC)
            cuts.append(offset - _HEAD + 4)
        offset += _HEAD + length
        if offset > len(record):
            raise ValueError(f"record must have a part of {length} bytes, got {len(record) - offset + length}")
        pieces.append(record[offset - length : offset])
    return b"".join(pieces), cuts


def _header(payload: bytes, size: int, columns: Columns) -> tuple[int, int]:
    """Where the image begins in a payload of `size` bytes, and the label; -1 where nothing follows the header.

    Args:
        payload: at least as much of it as the header may take.
        size: of the whole payload.
        columns: see `contents`.
    """
    if size < _HEADER.size:
        raise ValueError(f"record must have a header of {_HEADER.size} bytes, got {size} bytes altogether")
    flag, label, _, _ = _HEADER.unpack_from(payload)
    first = _HEADER.size + 4 * flag
    if flag > _MOST_LABELS or first > size:
        raise ValueError(f"record must hold its labels, at most {_MOST_LABELS}, got {flag} in {size} bytes")
    if first == size:
        return first, -1
    labels = struct.unpack_from(f"<{flag}f", payload, _HEADER.size) if flag else (label,)
    if len(labels) > 1 and columns.label is None:
        raise ValueError(f"record must have one label, got {len(labels)}; name its position with --label-column 0")
    if not (columns.label or "0").isdecimal():
        raise ValueError(f"label_column must be the position of a label in RecordIO, got {columns.label!r}")
    position = int(columns.label or 0)
    if position >= len(labels):
        raise ValueError(f"record must have a label at position {position}, got {len(labels)} labels")
    if not labels[position].is_integer():
        raise ValueError(f"label must be a whole number, got {labels[position]:g}")
    return first, int(labels[position])


def _key(payload: bytes) -> int:
    return _HEADER.unpack_from(payload)[2]


CONTAINER = Container(
    name="recordio",
    suffix=".rec",
    first_offset=_HEAD + _HEADER.size,
    alignment=4,
    open_writer=ShardWriter,
    scan=scan,
    contents=contents,
    unwrap=unwrap,
    is_indexed_by_shard=False,
)
