"""Tar archives, written as plain USTAR and scanned without extracting anything."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .container import FileReader, Place, Problem

BLOCK = 512  # bytes of a header, and what members are padded to
RECORD = 20 * BLOCK  # tar files end at a multiple of this, as GNU tar and tarfile write them
_OWNER = b"0000644\0" + b"0000000\0" * 2  # mode, user, group
_TAIL = (b"0" + bytes(100) + b"ustar\0" + b"00" + bytes(64) + b"0000000\0" * 2).ljust(356, b"\0")  # type, then nothing
_CONSTANT_SUM = sum(_OWNER) + sum(b"0" * 11) + sum(b" " * 8) + sum(_TAIL)  # the checksum counts itself as blanks
_CHECKSUM = slice(148, 156)
_LONGEST_NAME = 1 << 16  # bytes of a GNU long name
_LONGEST_PAX = 1 << 20  # bytes of a PAX header
_CHUNK = 1 << 20  # bytes at a time of what should be zeros
_REGULAR = (b"0", b"\0", b"7")
_DIRECTORY = b"5"
_TYPES = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a character device",
    b"4": "a block device",
    b"6": "a pipe",
    b"S": "a sparse file",
    b"M": "the rest of a file in another archive",
}
_PAX_RECORD = re.compile(rb"(\d{1,7}) ([^=]+)=", re.DOTALL)


class TarMember(NamedTuple):
    """A regular file in a tar: its name, where its headers begin, and where its content lies."""

    name: str
    header: int
    offset: int
    size: int

    @property
    def end(self) -> int:
        """First byte behind its padding."""
        return self.offset + _padded(self.size)


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
    encoded, digits = name.encode(), b"%011o" % size
    checksum = _CONSTANT_SUM + sum(encoded) + sum(digits)
    return b"%b%b%b\x0000000000000\0%06o\0 %b" % (encoded.ljust(100, b"\0"), _OWNER, digits, checksum, _TAIL)


def tar_members(path: Path, within: TarMember | None = None) -> Iterator[TarMember | Problem]:
    """Regular files of an uncompressed tar in their order, names of any length included, and what is wrong with it.

    Directories are passed over. Links, devices and names that lead out of a folder are problems; so is a file that ends
    in the middle or goes on behind its end. Believes no length before it fits the file, and reads no content.

    Args:
        path: the archive.
        within: a tar inside the archive to scan instead; offsets are always those in `path`.
    """
    place = Place(within.offset, within.size) if within else Place(0, path.stat().st_size)
    with FileReader(path, place) as read:
        for found in _Scan(read).members():
            if isinstance(found, Problem):
                yield found._replace(offset=place.offset + found.offset)
            else:
                yield found._replace(header=place.offset + found.header, offset=place.offset + found.offset)


class _Scan:
    """One pass over a tar; `_name` and `_size` are what long-name headers say of the next member."""

    def __init__(self, read: FileReader) -> None:
        self._read = read
        self._offset = 0
        self._start: int | None = None
        self._name: bytes | None = None
        self._size: int | None = None

    def members(self) -> Iterator[TarMember | Problem]:
        while True:
            header = self._read(self._offset, BLOCK)
            if len(header) == BLOCK and not any(header):
                yield from self._end()
                return
            try:
                found = self._member(header)
            except ValueError as error:
                yield Problem(self._offset, str(error), is_end=True)
                return
            if found is not None:
                yield found

    def _member(self, header: bytes) -> TarMember | Problem | None:
        """What the header says; moves behind the member. Raises ValueError where the archive cannot be followed."""
        size = _checked_size(header, self._read.size)
        kind = header[156:157]
        if kind in (b"L", b"K", b"x", b"X", b"g"):
            self._start = self._offset if self._start is None else self._start
            self._note(kind, size)
            return None
        start = self._offset if self._start is None else self._start
        offset = self._offset + BLOCK
        size = self._size if self._size is not None else size
        name = os.fsdecode(self._name if self._name is not None else _short_name(header))
        if kind not in _REGULAR and kind != _DIRECTORY:
            # links and devices have no content, whatever their size says
            size = size if kind not in b"12346" else 0
        member = TarMember(name, start, offset, size)
        if offset + size > self._read.size:
            raise ValueError(f"{name!r} of {size} bytes reaches beyond the end of the file, which was cut short")
        self._offset, self._start, self._name, self._size = member.end, None, None, None
        if kind == _DIRECTORY or (kind in _REGULAR and name.endswith("/")):
            return None
        if kind not in _REGULAR:
            return Problem(start, f"{name!r} is {_TYPES.get(kind, f'of the unknown type {kind!r}')}, not a file")
        if name.startswith("/") or ".." in name.split("/"):
            return Problem(start, f"{name!r} leads out of the folder that it would be extracted to")
        return member

    def _note(self, kind: bytes, size: int) -> None:
        """Take a long name, or the header of a member in PAX format; global headers and long link names go unused."""
        limit = _LONGEST_PAX if kind in b"xXg" else _LONGEST_NAME
        if size > limit:
            raise ValueError(f"header of type {kind.decode()} must be at most {limit} bytes, got {size}")
        data = self._read(self._offset + BLOCK, size)
        if len(data) < size:
            raise ValueError("ends in the middle of a header; the file was cut short")
        if kind == b"L":
            self._name = data.partition(b"\0")[0]
        elif kind in b"xX":
            fields = _pax_fields(data)
            if any(name.startswith(b"GNU.sparse") for name in fields):
                raise ValueError("sparse files are not supported")
            self._name = fields.get(b"path", self._name)
            if b"size" in fields:
                self._size = _decimal(fields[b"size"])
        self._offset += BLOCK + _padded(size)

    def _end(self) -> Iterator[Problem]:
        """Problems from the first block of zeros on, which must be two blocks and the last thing in the file."""
        offset = self._offset
        if self._start is not None:
            yield Problem(self._start, "a long name without a member", is_end=True)
        if self._read.size - offset < 2 * BLOCK:
            yield Problem(offset, "ends within its end marker; the file was cut short", is_end=True)
        while chunk := self._read(offset, _CHUNK):
            if any(chunk):
                offset += len(chunk) - len(chunk.lstrip(b"\0"))
                yield Problem(offset, "goes on behind its end; it may be several archives in one file", is_end=True)
                return
            offset += len(chunk)


def _checked_size(header: bytes, room: int) -> int:
    """Size of the member that a header announces.

    Raises:
        ValueError: if it is no header, or of a member larger than the file.
    """
    if not header:
        raise ValueError("ends without its end marker; the file was cut short")
    if len(header) < BLOCK:
        raise ValueError("ends in the middle of a header; the file was cut short")
    blank = sum(header) - sum(header[_CHECKSUM]) + 8 * ord(" ")
    if _number(header[_CHECKSUM]) != blank:
        raise ValueError("must be a tar header, got other bytes or a wrong checksum")
    size = _number(header[124:136])
    if size is None or size > room:
        raise ValueError(f"member must fit the file of {room} bytes, got a size of {size}")
    return size


def _number(field: bytes) -> int | None:
    """Octal number, or base 256 as GNU tar writes large ones; None if it is neither."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    return int(digits or b"0", 8) if re.fullmatch(rb"[0-7]*", digits) else None


def _short_name(header: bytes) -> bytes:
    name, prefix = (field.partition(b"\0")[0] for field in (header[:100], header[345:500]))
    return prefix + b"/" + name if header[257:263] == b"ustar\0" and prefix else name


def _pax_fields(data: bytes) -> dict[bytes, bytes]:
    """Records `LENGTH NAME=VALUE` with a line break; the length counts the whole record."""
    fields, position = {}, 0
    while position < len(data):
        match = _PAX_RECORD.match(data, position)
        end = position + int(match[1]) if match else 0
        if match is None or not match.end() < end <= len(data) or data[end - 1 : end] != b"\n":
            raise ValueError("must have a PAX header of records 'LENGTH NAME=VALUE', got others")
        fields[match[2]] = data[match.end() : end - 1]
        position = end
    return fields


def _decimal(digits: bytes) -> int:
    if not re.fullmatch(rb"\d{1,19}", digits):
        raise ValueError(f"size in a PAX header must be a number, got {digits[:20]!r}")
    return int(digits)


def _padded(size: int) -> int:
    return size + -size % BLOCK
