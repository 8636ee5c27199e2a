"""The manifest of a shard set: what `dataset.json` and `samples.npy` say about the shards beside them.

A shard set is one folder of shards in one container format, their DALI indexes, the table `samples.npy` (one row per
sample, in the order of the shards) and `dataset.json`, which is written last: a folder without it is not a shard set.
A RecordIO set has one index, `shards.idx`, and its original names in `names.txt`.

`dataset.json` ends with the CRC-32 of its own content, so that a change of what nothing else in the set tells, such
as the name of a class, is found by `softfeed verify`.
"""

import io
import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from .. import atomic
from .containers.container import Container
from .containers.formats import CONTAINERS

MANIFEST_FILE = "dataset.json"
SAMPLES_FILE = "samples.npy"
PARTIAL_FOLDER = ".partial"  # exists while a conversion is under way
INDEX_FILE = "shards.idx"
NAMES_FILE = "names.txt"
FORMAT_VERSION = 1

SAMPLE_DTYPE = np.dtype(
    [
        ("shard", "<i4"),  # position in the manifest's list of shards
        ("offset", "<i8"),  # of the image's bytes in the shard
        ("size", "<i8"),  # of the image in bytes
        ("label", "<i4"),
        ("height", "<i4"),  # in pixels, as DALI decodes it: EXIF orientation applied
        ("width", "<i4"),
        ("name_offset", "<i8"),  # of the sample's original name in the shard, or in the file of names; UTF-8
        ("name_size", "<i4"),
    ]
)
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # of a file in the set: nothing that leads out of it
_TOO_LARGE = 1 << 53  # for a size or a count; sums of a few thousand of them still fit an int64
_Entry = TypeVar("_Entry", "Shard", "SetFile")


@dataclass(frozen=True)
class Shard:
    """One shard and its index: file names inside the set's folder, sizes in bytes, CRC-32 checksums.

    Where the set has one index for all shards, `index` is None and its size and checksum are 0.
    """

    file: str
    index: str | None
    samples: int
    bytes: int
    crc32: int
    index_bytes: int
    index_crc32: int


@dataclass(frozen=True)
class SetFile:
    """A file of the whole set: its name, size in bytes and CRC-32 checksum."""

    file: str
    bytes: int
    crc32: int


@dataclass(frozen=True)
class Manifest:
    """Content of `dataset.json`.

    Attributes:
        encoding: "original" (image files as they came), "rewritten" (image files, some or all of them encoded anew) or
            "raw" (uint8 RGB pixels, height x width x 3).
        raw_shape: (height, width, 3) of every image of a raw set, else None.
        classes: class names; a label is a position in this tuple.
        num_samples: samples in the set.
        largest: greatest height and greatest width of all images in pixels, not necessarily of one image.
        samples: the table of samples.
        shards: every shard, in order.
        created: how the set was made: source, source_format, seed, options.
        softfeed: version that wrote the set.
        format: container format, "webdataset", "tfrecord" or "recordio".
        index: DALI's index of all shards, for a format that has one for the set, else None.
        names: original names, one per line, for a format that cannot hold them, else None.
        multipart: (row, parts) of the images that are stored in several parts; see `container.Placed`.
        lists: files that list images: those that were left out, and odd ones.
    """

    encoding: str
    raw_shape: tuple[int, int, int] | None
    classes: tuple[str, ...]
    num_samples: int
    largest: tuple[int, int]
    samples: SetFile
    shards: tuple[Shard, ...]
    created: Mapping[str, Any]
    softfeed: str = field(default_factory=lambda: version("softfeed"))
    format: str = "webdataset"
    index: SetFile | None = None
    names: SetFile | None = None
    multipart: tuple[tuple[int, int], ...] = ()
    lists: tuple[SetFile, ...] = ()

    @property
    def container(self) -> Container:
        """The container format."""
        return CONTAINERS[self.format]


def samples_header(count: int) -> bytes:
    """First bytes of `samples.npy` for `count` samples; the rows follow."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": np.lib.format.dtype_to_descr(SAMPLE_DTYPE), "fortran_order": False, "shape": (count,)}
    )
    return header.getvalue()


def samples_bytes(table: NDArray[Any]) -> bytes:
    """Content of `samples.npy`: a NumPy file of the table, dtype `SAMPLE_DTYPE`, shape (num_samples,)."""
    return samples_header(len(table)) + table.tobytes()


def write_samples(folder: Path, table: NDArray[Any]) -> SetFile:
    """Write the table of samples, dtype `SAMPLE_DTYPE`, shape (num_samples,), and return its entry."""
    return write_set_file(folder, SAMPLES_FILE, samples_bytes(table))


def write_set_file(folder: Path, name: str, content: bytes) -> SetFile:
    """Write a file of the whole set and return its entry."""
    summary = atomic.write_bytes(folder / name, content)
    return SetFile(name, summary.bytes, summary.crc32)


def write(folder: Path, manifest: Manifest) -> None:
    """Write `dataset.json`; call it last, since this makes `folder` a shard set."""
    atomic.write_bytes(folder / MANIFEST_FILE, to_json(manifest).encode())


def to_json(manifest: Manifest) -> str:
    """Text of `dataset.json`, the same for the same manifest; its last entry is the CRC-32 of the rest."""
    content = asdict(manifest)
    content["largest"] = dict(zip(("height", "width"), manifest.largest, strict=True))
    for name in ("index", "names", "multipart", "lists"):
        if not content[name]:
            del content[name]  # most sets have none
    head = {"format": content.pop("format"), "format_version": FORMAT_VERSION, "softfeed": content.pop("softfeed")}
    content = head | content
    return _dump(content | {"crc32": zlib.crc32(_dump(content).encode("utf-8", "surrogatepass"))})


def own_checksum(text: str) -> int | None:
    """Checksum that the text of `dataset.json` ends with; None if it has none."""
    checksum = json.loads(text).get("crc32")
    return checksum if type(checksum) is int else None


def _dump(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def from_json(text: str) -> Manifest:
    """Manifest from the text of `dataset.json`. Comparing its own checksum is left to `softfeed verify`.

    Raises:
        ValueError: if the text is no JSON, of another format or version, or lacks an entry or has one of a wrong type
            or out of range.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{MANIFEST_FILE} must be JSON, got {error}; convert again") from None
    if not isinstance(content, dict) or content.get("format") not in list(CONTAINERS):
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        known = " or ".join(map(repr, CONTAINERS))
        raise ValueError(f"format in {MANIFEST_FILE} must be {known}, got {found!r}; convert again")
    if content.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"format_version in {MANIFEST_FILE} must be {FORMAT_VERSION}, got {content.get('format_version')!r}; "
            "convert again with this softfeed, or open the set with the version that wrote it"
        )
    try:
        return _manifest_of(content)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{MANIFEST_FILE} must hold a whole manifest, got {error!r}; convert again") from None


def _manifest_of(content: dict[str, Any]) -> Manifest:
    raw_shape, largest = content["raw_shape"], _typed(content, "largest", dict)
    manifest = Manifest(
        encoding=_typed(content, "encoding", str),
        raw_shape=None if raw_shape is None else _raw_shape(_typed(content, "raw_shape", list)),
        classes=tuple(_strings(content, "classes")),
        num_samples=_typed(content, "num_samples", int),
        largest=(_typed(largest, "height", int), _typed(largest, "width", int)),
        samples=_entry(SetFile, content["samples"]),
        shards=tuple(_entry(Shard, shard) for shard in _typed(content, "shards", list)),
        created=_typed(content, "created", dict),
        softfeed=_typed(content, "softfeed", str),
        format=_typed(content, "format", str),
        index=_entry(SetFile, content["index"]) if "index" in content else None,
        names=_entry(SetFile, content["names"]) if "names" in content else None,
        multipart=_multipart(_typed(content, "multipart", list)) if "multipart" in content else (),
        lists=tuple(_entry(SetFile, file) for file in _typed(content, "lists", list)) if "lists" in content else (),
    )
    if manifest.encoding not in ("original", "rewritten", "raw") or (manifest.encoding == "raw") == (raw_shape is None):
        raise ValueError(f"encoding {manifest.encoding!r} with raw_shape {raw_shape}")
    if manifest.num_samples < 1:
        raise ValueError("no sample")
    by_shard = manifest.container.is_indexed_by_shard
    if any((shard.index is None) == by_shard for shard in manifest.shards) or (manifest.index is None) != by_shard:
        raise ValueError(f"indexes that are not those of {manifest.format}")
    if (manifest.names is None) != by_shard:
        raise ValueError(f"names that are not those of {manifest.format}")
    names = [file.file for file in (manifest.samples, manifest.index, manifest.names, *manifest.lists) if file]
    names += [name for shard in manifest.shards for name in (shard.file, shard.index) if name is not None]
    if len(set(names)) < len(names):
        raise ValueError(f"the file {max(names, key=names.count)} listed twice")
    return manifest


def _typed(content: dict[str, Any], key: str, kind: type) -> Any:
    """Entry `key` if it is of type `kind`, and not below 0 if it is a number."""
    value = content[key]
    if not isinstance(value, kind) or isinstance(value, bool) or (kind is int and not 0 <= value < _TOO_LARGE):
        raise ValueError(f"{key} {value!r} where {'0 or more' if kind is int else kind.__name__} belongs")
    return value


def _strings(content: dict[str, Any], key: str) -> list[str]:
    for value in _typed(content, key, list):
        if not isinstance(value, str):
            raise ValueError(f"{value!r} in {key} where str belongs")
    return content[key]


def _raw_shape(sizes: list[Any]) -> tuple[int, int, int]:
    height, width, channels = sizes
    if not all(type(size) is int and size > 0 for size in sizes) or channels != 3:
        raise ValueError(f"raw_shape {sizes} where [height, width, 3] belongs")
    return height, width, channels


def _multipart(pairs: list[Any]) -> tuple[tuple[int, int], ...]:
    for pair in pairs:
        if not (
            isinstance(pair, list) and list(map(type, pair)) == [int, int] and 0 <= min(pair) <= max(pair) < 1 << 40
        ):
            raise ValueError(f"{pair!r} in multipart where [row, parts] belongs")
    return tuple((row, parts) for row, parts in pairs)


def _entry(kind: type[_Entry], content: Any) -> _Entry:
    """Entry of a file: all that its class names and nothing else; names must be plain ones."""
    entry = kind(**content)
    for attribute in fields(kind):
        if vars(entry)[attribute.name] is None and attribute.type == str | None:
            continue
        expected = str if attribute.type == str | None else attribute.type
        value = _typed(vars(entry), attribute.name, expected)  # pyright: ignore[reportArgumentType]
        if expected is str and not _PLAIN_NAME.fullmatch(value):
            raise ValueError(f"the file name {value!r} where a plain one belongs")
    return entry
