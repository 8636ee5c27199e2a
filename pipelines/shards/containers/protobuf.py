"""`tf.train.Example` in protobuf's wire format, as far as image data sets use it: written, and parsed where it lies.

An Example holds Features, a map from names to Feature; a Feature holds a list of bytes, of floats or of int64. All of
these are length-delimited fields: a tag (field number and wire type), a length, and the value.
"""

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from .container import Place, Read

_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5
_BYTES, _INT64 = 1, 3  # fields of a Feature; 2 are floats
_MOST_FIELDS = 4096  # in one message; a data set of images has a dozen, and nonsense must not cost minutes
_MOST_VALUES = 16  # of a list that are taken
_LONGEST_NAME = 1024  # bytes of a feature's name


class Feature(NamedTuple):
    """Values of a feature, the first few: where byte strings lie, or integers; both empty for floats."""

    places: tuple[Place, ...] = ()
    integers: tuple[int, ...] = ()


def bytes_feature(name: str, value: bytes = b"", *, size: int | None = None) -> bytes:
    """Entry of the map for one byte string. With `size`, without its value, which must follow and have that size."""
    listed = _head(1, len(value) if size is None else size)
    return _entry(name, _BYTES, listed + value, 0 if size is None else size)


def int64_feature(name: str, value: int) -> bytes:
    """Entry of the map for one integer, 0 or more."""
    packed = _varint(value)
    return _entry(name, _INT64, _head(1, len(packed)) + packed, 0)


def message_head(size: int) -> bytes:
    """What an Example begins with whose entries have `size` bytes together."""
    return _head(1, size)


def _entry(name: str, kind: int, content: bytes, more: int) -> bytes:
    feature = _head(kind, len(content) + more) + content
    key = name.encode()
    key_and_value = _head(1, len(key)) + key + _head(2, len(feature) + more) + feature
    return _head(1, len(key_and_value) + more) + key_and_value


def _head(number: int, size: int) -> bytes:
    return bytes([number << 3 | _DELIMITED]) + _varint(size)


def _varint(value: int) -> bytes:
    digits = bytearray()
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    digits.append(value)
    return bytes(digits)


def example(read: Read, start: int, end: int) -> dict[str, Feature]:
    """Features of the Example in bytes `start` to `end`, by name; reads little more than their names and lengths.

    Raises:
        ValueError: if the bytes are no such message, or have absurdly many features.
    """
    features: dict[str, Feature] = {}
    for number, part in _delimited(read, start, end):
        if number != 1:
            continue
        for entry_number, entry in _delimited(read, part.offset, part.offset + part.size):
            if entry_number == 1:
                name, feature = _named(read, entry)
                features[name] = feature
                if len(features) > _MOST_FIELDS:
                    raise ValueError(f"record must have at most {_MOST_FIELDS} features")
    if not features:
        raise ValueError("record must be a tf.train.Example with features, got none")
    return features


def _named(read: Read, entry: Place) -> tuple[str, Feature]:
    fields = dict(_delimited(read, entry.offset, entry.offset + entry.size))
    key, value = fields.get(1, Place(entry.offset, 0)), fields.get(2)
    if key.size > _LONGEST_NAME:
        raise ValueError(f"name of a feature must be at most {_LONGEST_NAME} bytes, got {key.size}")
    try:
        name = read(*key).decode()
    except UnicodeDecodeError:
        raise ValueError("name of a feature must be UTF-8, got other bytes") from None
    return name, Feature() if value is None else _feature(read, value)


def _feature(read: Read, place: Place) -> Feature:
    places: tuple[Place, ...] = ()
    integers: tuple[int, ...] = ()
    for kind, values in _delimited(read, place.offset, place.offset + place.size):
        end = values.offset + values.size
        if kind == _BYTES:
            strings = (value for _, value in _delimited(read, values.offset, end))
            places += tuple(islice(strings, _MOST_VALUES - len(places)))
            integers = ()
        elif kind == _INT64:
            integers += tuple(islice(_integers(read, values.offset, end), _MOST_VALUES - len(integers)))
            places = ()
    return Feature(places, integers)


def _integers(read: Read, start: int, end: int) -> Iterator[int]:
    """Values of an Int64List, packed or not."""
    for _, value in _fields(read, start, end):
        if not isinstance(value, Place):
            yield _signed(value)
            continue
        position = value.offset
        while position < value.offset + value.size:
            number, position = _read_varint(read(position, min(10, value.offset + value.size - position)), 0, position)
            yield _signed(number)


def _signed(number: int) -> int:
    number &= (1 << 64) - 1
    return number - (1 << 64) if number >> 63 else number


def _delimited(read: Read, start: int, end: int) -> Iterator[tuple[int, Place]]:
    return ((number, value) for number, value in _fields(read, start, end) if isinstance(value, Place))


def _fields(read: Read, start: int, end: int) -> Iterator[tuple[int, Place | int]]:
    """Field numbers of a message with the place of each value, or the value of a varint."""
    for _ in range(_MOST_FIELDS):
        if start == end:
            return
        head = read(start, min(20, end - start))
        tag, position = _read_varint(head, 0, start)
        kind, at = tag & 7, position - start
        if kind == _VARINT:
            value, start = _read_varint(head, at, start)
            yield tag >> 3, value
            continue
        if kind == _DELIMITED:
            size, position = _read_varint(head, at, start)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"record must be a tf.train.Example, got wire type {kind} at {start}")
        if size > end - position:
            raise ValueError(f"record must be a tf.train.Example, got {size} bytes where {end - position} are left")
        if kind == _DELIMITED:
            yield tag >> 3, Place(position, size)
        start = position + size
    if start != end:
        raise ValueError(f"record must have at most {_MOST_FIELDS} fields in a message")


def _read_varint(head: bytes, at: int, start: int) -> tuple[int, int]:
    """Number at `head[at]`, and where the next byte lies in the file; `head[0]` lies at `start`."""
    value = 0
    for shift, byte in enumerate(head[at : at + 10]):
        value |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            return value, start + at + shift + 1
    raise ValueError(f"record must be a tf.train.Example, got no number at {start + at}")
