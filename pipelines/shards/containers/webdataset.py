"""WebDataset shards: a USTAR tar and its DALI index, written together; tars of other programs, scanned strictly.

The keys are our own eight-digit numbers, so dots, spaces and long names of the source cannot reach a tar header
or the index, where DALI would misread them. The same samples give the same bytes.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ...atomic import FileSummary
from ..sources.folder import EXTENSIONS
from .container import (
    Columns,
    Container,
    Content,
    Entry,
    Field,
    Place,
    Placed,
    Problem,
    Read,
    ShardFile,
    StoredSample,
    name_bytes,
    name_text,
)
from .tar import BLOCK, RECORD, TarMember, tar_header, tar_members

_LABELS = ("cls", "label", "json")  # members that may hold a label, by preference
_LONGEST_LABEL = 1 << 20  # bytes of a member that holds one
_LONGEST_NAME = 1 << 16
_MOST_MEMBERS = 1 << 16  # of one stem; stems with dots of their own put all samples of a tar under one
_OWN_KEY = re.compile(r"[0-9]{8,18}")


class Member(NamedTuple):
    """One file of a sample: extension without the dot, and content."""

    extension: str
    data: bytes


class ShardWriter:
    """Writes one tar member by member and remembers its index.

    Args:
        file: where it goes.
    """

    def __init__(self, file: ShardFile) -> None:
        self._file = file
        self._index: list[str] = []

    def add(self, sample: StoredSample) -> Placed:
        """Append the image, its label as ASCII digits and as little-endian int32, and its name."""
        members = (
            Member(sample.extension, sample.image),
            Member("cls", str(sample.label).encode()),
            Member("label", sample.label.to_bytes(4, "little")),
            Member("name", name_bytes(sample.name)),
        )
        places, fields, pieces = [], [], []
        offset = self._file.offset
        for extension, data in members:
            name, size = f"{sample.key:08d}.{extension}", len(data)
            offset += BLOCK
            pieces += [tar_header(name, size), data, bytes(-size % BLOCK)]
            places.append(Place(offset, size))
            fields.append(f"{extension} {offset} {size} {name}")
            offset += size + -size % BLOCK
        # The image is too large to be worth a copy, the rest too small to be worth a call each.
        self._file.write(pieces[0], pieces[1], b"".join(pieces[2:]))
        self._index.append(" ".join(fields))
        return Placed(places[0], places[-1])

    def finish(self) -> FileSummary:
        """End the tar and flush it to the disk."""
        self._file.write(bytes(2 * BLOCK))
        self._file.write(bytes(-self._file.offset % RECORD))
        return self._file.finish()

    def index_text(self) -> str:
        """DALI's WebDataset index, version 1.2: a line with the count, then one line per sample."""
        return "\n".join([f"v1.2 {len(self._index)}", *self._index]) + "\n"

    def close(self) -> None:
        """Close the file, finished or not."""
        self._file.close()


def scan(path: Path) -> Iterator[Entry | Problem]:
    """Samples of a tar as DALI and the webdataset package see them: consecutive members of one stem.

    A stem ends at the first dot of the file name. Files without an extension and hidden files belong to none. Memory
    holds the stems of the tar, to notice one that comes twice, and the members of one stem.
    """
    seen: set[str] = set()
    key, group = "", {}
    for member in tar_members(path):
        if isinstance(member, Problem):
            yield member
            continue
        stem, extension = split_name(member.name)
        if not extension:
            continue
        if group and stem != key:
            yield from _entries(key, group, seen)
            group = {}
        if len(group) == _MOST_MEMBERS:
            yield Problem(member.header, f"sample {stem!r} has more than {_MOST_MEMBERS} members", is_end=True)
            return
        if extension in group:
            yield Problem(member.header, f"sample {stem!r} has a second member .{extension}")
        key, group[extension] = stem, member
    if group:
        yield from _entries(key, group, seen)


def split_name(name: str) -> tuple[str, str]:
    """Stem and extension of a member; the extension is empty if it belongs to no sample."""
    folder, slash, file = name.rpartition("/")
    stem, _, extension = file.partition(".")
    return folder + slash + stem, extension if stem else ""


def _entries(key: str, group: dict[str, TarMember], seen: set[str]) -> Iterator[Entry | Problem]:
    members = list(group.values())
    start, end = members[0].header, members[-1].end
    if key in seen:
        yield Problem(start, f"members of sample {key!r} must be consecutive, got others between them")
    seen.add(key)
    fields = tuple(Field(extension, member.offset, member.size) for extension, member in group.items())
    yield Entry(start, end - start, key, fields)


def contents(entry: Entry, read: Read, columns: Columns) -> list[Content]:
    """The sample of an entry: one image and its label.

    The image is the member with an image's extension. The label is a `.cls` member of decimal digits, or else a
    `.label` of digits or 4 bytes, or else the "label" or "cls" of a `.json`. Stems with dots of their own make DALI
    take several samples for one; they are told apart here if each has an image and a label.

    Args:
        entry: from `scan`.
        read: of the same file.
        columns: extensions of image and label, if they are to be others.

    Raises:
        ValueError: if there is no image, more than one, or no label.
    """
    fields = {field.name: field for field in entry.fields}
    images = [name for name in fields if name.lower() == (columns.image or "").lower() or _is_image(name, columns)]
    if len(images) == 1:
        return [_content(entry.key, images[0], fields, read, columns)]
    if not images and (parts := _by_last_dot(entry)):
        return [content for part in parts for content in contents(part, read, columns)]
    held = ", ".join(f".{name}" for name in list(fields)[:8])
    rule = "one image" if columns.image is None else f"a member .{columns.image}"
    raise ValueError(f"sample {entry.key!r} must have {rule}, got {len(images) or 'none'} among its members ({held})")


def _is_image(name: str, columns: Columns) -> bool:
    return columns.image is None and (name.lower() in EXTENSIONS or name in ("rgb", "img", "gif"))


def _by_last_dot(entry: Entry) -> list[Entry]:
    """The entry as several, whose stems end at the last dot; none if that changes nothing."""
    groups: dict[str, list[Field]] = {}
    for field in entry.fields:
        stem, _, extension = field.name.rpartition(".")
        if not stem:
            return []
        groups.setdefault(f"{entry.key}.{stem}", []).append(field._replace(name=extension))
    return [Entry(fields[0].offset - BLOCK, 0, key, tuple(fields)) for key, fields in groups.items()]


def _content(key: str, image: str, fields: dict[str, Field], read: Read, columns: Columns) -> Content:
    name = next((name for name in ([columns.label] if columns.label else _LABELS) if name in fields), None)
    if name is None:
        rule = f".{columns.label}" if columns.label else " or ".join(f".{label}" for label in _LABELS)
        raise ValueError(f"sample {key!r} must have a label ({rule}), got none; name its member with --label-column")
    label = fields[name]
    if label.size > _LONGEST_LABEL:
        raise ValueError(f"label of sample {key!r} must be at most {_LONGEST_LABEL} bytes, got {label.size}")
    text = read(label.offset, label.size)
    try:
        number = _label_in_json(text) if name.endswith("json") else _label_of(text)
    except (ValueError, RecursionError):
        shown = f"{text[:20]!r}"
        raise ValueError(f"label of sample {key!r} must be a whole number in .{name}, got {shown}") from None
    original = None
    if "name" in fields and 0 < fields["name"].size <= _LONGEST_NAME:
        original = name_text(read(*fields["name"][1:]))
    number_of_sample = int(key) if _OWN_KEY.fullmatch(key) else None
    return Content(Place(*fields[image][1:]), number, None, original, number_of_sample, f"{key}.{image}")


def _label_of(text: bytes) -> int:
    if len(text) == 4 and not text.strip().isdigit():
        return int.from_bytes(text, "little")
    if not text.strip().isdigit() or len(text) > 20:
        raise ValueError
    return int(text)


def _label_in_json(text: bytes) -> int:
    content = json.loads(text)
    found = [content[key] for key in ("label", "cls") if key in content] if isinstance(content, dict) else [content]
    if not found or type(found[0]) is not int:
        raise ValueError
    return found[0]


CONTAINER = Container(
    name="webdataset",
    suffix=".tar",
    first_offset=BLOCK,
    alignment=BLOCK,
    open_writer=ShardWriter,
    scan=scan,
    contents=contents,
    unwrap=None,
)
