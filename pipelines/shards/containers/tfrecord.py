"""TFRecord shards: `tf.train.Example` messages with the feature names of ImageNet's TFRecords, without TensorFlow.

A record is `uint64 length | uint32 masked CRC-32C of it | message | uint32 masked CRC-32C of the message`, little
endian. DALI's index has a line "OFFSET SIZE" per record, the size with those 16 bytes.

    image/encoded        bytes: the image file, or its pixels if image/format is "raw"
    image/format         bytes: "JPEG", "PNG", ...
    image/height, width  int64: pixels, EXIF orientation applied
    image/class/label    int64: position of the class, from 0 on
    image/class/text     bytes: name of the class
    image/filename       bytes: original name
"""

import struct
from collections.abc import Callable, Iterator
from functools import cache
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
    name_text,
    usual,
)
from .protobuf import Feature, bytes_feature, example, int64_feature, message_head

_HEAD = 12  # bytes before the message
_FRAME = 16  # bytes around it
_FORMATS = {"jpg": "JPEG", "jp2": "JPEG2000", "rgb": "raw"}
_IMAGES = ("image/encoded", "image")
_LABELS = ("image/class/label", "label")
_CLASS_NAMES = ("image/class/text",)
_NAMES = ("image/filename", "filename", "file_name")
_LONGEST_TEXT = 1 << 16  # bytes of a name


@cache
def _extend() -> Callable[[int, bytes], int]:
    """What goes on with a CRC-32C; looked for here, so that all other formats do without the package."""
    try:
        from google_crc32c import extend
    except ModuleNotFoundError as error:
        if error.name != "google_crc32c":
            raise
        raise ModuleNotFoundError(
            "TFRecord shards must find the package google-crc32c, got none; pip install google-crc32c",
            name="google_crc32c",
        ) from None
    return extend


def masked_crc(*pieces: bytes) -> bytes:
    """CRC-32C of some bytes, rotated and shifted as TFRecord stores it; shape (4,) bytes.

    Raises:
        ModuleNotFoundError: if the package google-crc32c is not installed.
    """
    crc, extend = 0, _extend()
    for piece in pieces:
        crc = extend(crc, piece)
    rotated = (crc >> 15 | crc << 17) & 0xFFFFFFFF
    return struct.pack("<I", (rotated + 0xA282EAD8) & 0xFFFFFFFF)


class ShardWriter:
    """Writes one file record by record and remembers its index.

    Args:
        file: where it goes.
    """

    def __init__(self, file: ShardFile) -> None:
        self._file = file
        self._index: list[str] = []

    def add(self, sample: StoredSample) -> Placed:
        """Append a record; its features are in the order of their names, as protobuf itself sorts a map."""
        name = name_bytes(sample.name)
        before = int64_feature("image/class/label", sample.label)
        before += bytes_feature("image/class/text", name_bytes(sample.class_name))
        image_head = bytes_feature("image/encoded", size=len(sample.image))
        name_feature = bytes_feature("image/filename", name)
        after = name_feature
        after += bytes_feature("image/format", _FORMATS.get(sample.extension, sample.extension.upper()).encode())
        after += int64_feature("image/height", sample.height) + int64_feature("image/width", sample.width)
        head = message_head(len(before) + len(image_head) + len(sample.image) + len(after)) + before + image_head
        return self._write(head, sample.image, after, Place(len(name_feature) - len(name), len(name)))

    def _write(self, head: bytes, image: bytes, tail: bytes, name: Place) -> Placed:
        """Append a record of three pieces; `name` is relative to the last."""
        start = self._file.offset
        length = struct.pack("<Q", len(head) + len(image) + len(tail))
        self._file.write(length, masked_crc(length), head, image, tail, masked_crc(head, image, tail))
        self._index.append(f"{start} {self._file.offset - start}\n")
        image_offset = start + _HEAD + len(head)
        return Placed(Place(image_offset, len(image)), Place(image_offset + len(image) + name.offset, name.size))

    def finish(self) -> FileSummary:
        """Flush to the disk."""
        return self._file.finish()

    def index_text(self) -> str:
        """DALI's TFRecord index: offset and size of every whole record."""
        return "".join(self._index)

    def close(self) -> None:
        """Close the file, finished or not."""
        self._file.close()


def scan(path: Path) -> Iterator[Entry | Problem]:
    """Records of an uncompressed file, by their lengths, whose checksums must be right; messages are not looked at."""
    with FileReader(path) as read:
        offset = 0
        for number in range(read.size):
            if offset == read.size:
                return
            try:
                size = _record_size(read(offset, _HEAD), read.size - offset)
            except ValueError as error:
                yield Problem(offset, str(error), is_end=True)
                return
            yield Entry(offset, size, str(number), (Field("payload", offset + _HEAD, size - _FRAME),))
            offset += size


def _record_size(head: bytes, room: int) -> int:
    """Bytes of a whole record, by its first 12; at most `room` are left in the file."""
    if len(head) < _HEAD:
        raise ValueError("ends in the middle of a record's length; the file was cut short")
    if masked_crc(head[:8]) != head[8:]:
        packed = "; it is compressed" if head[:2] in (b"\x1f\x8b", b"\x78\x9c") else ""
        raise ValueError(f"must be a TFRecord, got a length with another checksum{packed}")
    size = int.from_bytes(head[:8], "little") + _FRAME
    if size > room:
        raise ValueError(f"record of {size} bytes reaches beyond the end of the file, which was cut short")
    return size


def contents(entry: Entry, read: Read, columns: Columns) -> list[Content]:
    """The sample of a record: one image and its label, with class and file name where they are given.

    The image is the feature "image/encoded" or "image", the label "image/class/label" or "label".

    Args:
        entry: from `scan`.
        read: of the same file.
        columns: names of the features of image and label, if they are to be others.

    Raises:
        ValueError: if the message is no `tf.train.Example`, or has no such features of one value each.
    """
    payload = entry.fields[0]
    features = example(read, payload.offset, payload.offset + payload.size)
    image = _image(features, columns)
    label = _feature(features, _LABELS, columns.label, "label").integers
    if len(label) != 1:
        raise ValueError(f"label of a record must be one int64, got {label or 'another type'}")
    class_name, name = (_text(features, names, read) for names in (_CLASS_NAMES, _NAMES))
    return [Content(image, label[0], class_name, name)]


def _image(features: dict[str, Feature], columns: Columns) -> Place:
    image = _feature(features, _IMAGES, columns.image, "image").places
    if len(image) != 1:
        raise ValueError(f"image of a record must be one bytes value, got {len(image) or 'another type'}")
    return image[0]


def _feature(features: dict[str, Feature], names: tuple[str, ...], wanted: str | None, role: str) -> Feature:
    name = usual(names, wanted, features)
    if name is None:
        held = ", ".join(sorted(features)[:8]) or "nothing"
        sought = repr(wanted) if wanted is not None else " or ".join(map(repr, names))
        raise ValueError(f"record must have the feature {sought}, got {held}; name another with --{role}-column")
    return features[name]


def _text(features: dict[str, Feature], names: tuple[str, ...], read: Read) -> str | None:
    name = usual(names, None, features)
    places = features[name].places if name else ()
    if len(places) != 1 or not 0 < places[0].size <= _LONGEST_TEXT:
        return None
    return name_text(read(*places[0]))


def unwrap(record: bytes, columns: Columns = USUAL) -> bytes:
    """Image in a whole record.

    Raises:
        ValueError: if a checksum is wrong or there is no image.
    """
    _record_size(record[:_HEAD], len(record))
    payload = record[_HEAD:-4]
    if masked_crc(payload) != record[-4:]:
        raise ValueError("record with another checksum than it says; damaged")
    image = _image(example(lambda offset, size: payload[offset : offset + size], 0, len(payload)), columns)
    return payload[image.offset : image.offset + image.size]


CONTAINER = Container(
    name="tfrecord",
    suffix=".tfrecord",
    first_offset=_HEAD,
    alignment=1,
    open_writer=ShardWriter,
    scan=scan,
    contents=contents,
    unwrap=unwrap,
)
