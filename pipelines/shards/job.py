"""What one worker does: read the images of one shard, check them, and write the shard with its index."""

import errno
import json
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import atomic
from ..atomic import FileSummary
from .containers.container import ShardFile, ShardWriter, StoredSample
from .containers.formats import CONTAINERS
from .decoding import Decoded, Undecodable, kept_reader
from .encoding import Encoding, StoredImage, decoded_by_pillow
from .manifest import PARTIAL_FOLDER, SAMPLE_DTYPE, Shard
from .oddities import OddImage, oddities

_WINDOW = 64  # images in memory at a time
_WINDOW_BYTES = 1 << 26
_MOST_BYTES = 1 << 28  # of an image file; a file or record that claims more is not read into memory


class Item(NamedTuple):
    """One sample to convert: where its bytes lie, its label, its original name, the name of its class.

    `unwrap`, if there is one, makes the image of those bytes, and `own_file` says that the file holds nothing else;
    see `Extents`.
    """

    file: str
    offset: int
    size: int
    label: int
    name: str
    class_name: str = ""
    unwrap: Callable[[bytes], bytes] | None = None
    own_file: bool = False


class BadImage(NamedTuple):
    """An image that was left out, and why."""

    name: str
    label: int
    reason: str


@dataclass(frozen=True)
class ShardJob:
    """One shard to write.

    Attributes:
        folder: the shard set.
        number: of the shard.
        first_key: position of the first item in the whole set.
        items: samples in their order.
        encoding: how images are stored.
        check: decode every image whole; if False only its header is read.
        container: name of the format of the shard.
    """

    folder: Path
    number: int
    first_key: int
    items: Sequence[Item]
    encoding: Encoding
    check: bool
    container: str = "webdataset"


@dataclass(frozen=True)
class ShardRecord:
    """A finished shard.

    Attributes:
        shard: its entry for the manifest.
        rows: its part of the table of samples, dtype `SAMPLE_DTYPE`, shape (shard.samples,).
        bad: images that were left out.
        odd: images that decoders may not agree on.
        multipart: (row, parts) of images in several parts, the row within this shard.
        names: original names of its samples, if the shard itself cannot hold them, else empty.
        is_new: written by this run, not found from an earlier one.
    """

    shard: Shard
    rows: NDArray[Any]
    bad: tuple[BadImage, ...]
    odd: tuple[OddImage, ...] = ()
    multipart: tuple[tuple[int, int], ...] = ()
    names: tuple[str, ...] = ()
    is_new: bool = True

    @property
    def images(self) -> int:
        """Images of the source that went into it, bad ones included."""
        return len(self.rows) + len(self.bad)


def write_shard(job: ShardJob) -> ShardRecord:
    """Write one shard, its index and its record, each whole or absent, unless an earlier run did.

    Raises:
        ValueError: if a raw image has another size than `raw_shape`.
        OSError: if an image cannot be read or the disk is full.
    """
    if finished := finished_shard(job.folder, job.number):
        return finished
    container = CONTAINERS[job.container]
    work = job.folder / PARTIAL_FOLDER
    path = job.folder / f"shard-{job.number:06d}{container.suffix}"
    # A name of its own for each attempt: an executor may begin a second one while the first is still at work.
    temporary = work / f"{path.stem}-{uuid.uuid4().hex}.tmp"
    index, index_summary = None, FileSummary(0, 0)
    try:
        with closing(container.open_writer(ShardFile(temporary))) as writer:
            added = _add_all(job, writer)
            summary = writer.finish()
        atomic.rename(temporary, path)
        if container.is_indexed_by_shard:
            index = path.with_suffix(".idx")
            index_summary = atomic.write_bytes(index, writer.index_text().encode(), temporary)
    finally:
        temporary.unlink(missing_ok=True)
    shard = Shard(
        file=path.name,
        index=index and index.name,
        samples=len(added.rows),
        bytes=summary.bytes,
        crc32=summary.crc32,
        index_bytes=index_summary.bytes,
        index_crc32=index_summary.crc32,
    )
    record = ShardRecord(
        shard,
        np.array(added.rows, dtype=SAMPLE_DTYPE),
        tuple(added.bad),
        tuple(added.odd),
        tuple(added.multipart),
        () if container.is_indexed_by_shard else tuple(added.names),
    )
    _save(work, job.number, record, temporary)
    return record


class _Added(NamedTuple):
    """Lists to fill: rows of the table of samples, and the rest of a `ShardRecord`."""

    rows: list[tuple[int, ...]]
    bad: list[BadImage]
    odd: list[OddImage]
    multipart: list[tuple[int, int]]
    names: list[str]


def _add_all(job: ShardJob, writer: ShardWriter) -> _Added:
    """Write every good image of a job."""
    added = _Added([], [], [], [], [])
    for key, item, image, decoded in _decoded(job):
        odd: list[str] = []
        if isinstance(decoded, Decoded):
            odd = oddities(image, item.name)
        elif job.encoding.normalize and (rescued := decoded_by_pillow(image)):
            odd, decoded = [*oddities(image, item.name), decoded.reason], rescued
        if isinstance(decoded, Undecodable):
            added.bad.append(BadImage(item.name, item.label, decoded.reason))
            continue
        stored = job.encoding.store(image, decoded, odd, item.name)
        if odd:
            added.odd.append(OddImage(item.name, item.label, "; ".join(odd), stored.rewritten))
        _add(added, writer, job.number, key, item, stored)
    return added


def _add(added: _Added, writer: ShardWriter, number: int, key: int, item: Item, stored: StoredImage) -> None:
    content, extension, height, width, _ = stored
    placed = writer.add(StoredSample(key, content, extension, item.label, item.class_name, item.name, height, width))
    if placed.parts > 1:
        added.multipart.append((len(added.rows), placed.parts))
    added.rows.append((number, *placed.image, item.label, height, width, *placed.name))
    added.names.append(item.name)


def _decoded(job: ShardJob) -> Iterator[tuple[int, Item, bytes, Decoded | Undecodable]]:
    """Key, item, file content and decoded image of every item."""
    decoder = kept_reader(check=job.check, keep_pixels=job.encoding.needs_pixels)
    for window in _windows(job.items):
        images = [read_image(item) for _, item in window]
        found = decoder.stream([image for image in images if isinstance(image, bytes)])
        for (position, item), image in zip(window, images, strict=True):
            key = job.first_key + position
            yield (key, item, image, next(found)) if isinstance(image, bytes) else (key, item, b"", image)


def _windows(items: Sequence[Item]) -> Iterator[list[tuple[int, Item]]]:
    """Items with their positions, few enough at a time to have their images in memory."""
    window: list[tuple[int, Item]] = []
    size = 0
    for position, item in enumerate(items):
        if window and (len(window) == _WINDOW or size + item.size > _WINDOW_BYTES):
            yield window
            window, size = [], 0
        window.append((position, item))
        size += item.size
    if window:
        yield window


def read_image(item: Item) -> bytes | Undecodable:
    """The image of an item as a file, or why its container is damaged there; or why it is no image of a data set.

    Raises:
        OSError: as `read_bytes`, but for an image in a file of its own that is there and cannot be read.
    """
    if item.size > _MOST_BYTES:
        return Undecodable(f"{item.size:,} bytes, more than {_MOST_BYTES:,}")
    try:
        data = read_bytes(item)
    except OSError as error:
        reason = _unreadable(item.file, error) if item.own_file else None
        if reason is None:
            raise
        return Undecodable(reason)
    try:
        return item.unwrap(data) if item.unwrap else data
    except ValueError as error:
        return Undecodable(str(error))


def _unreadable(file: str, error: OSError) -> str | None:
    """What is wrong with a file that cannot be read; None if it is gone or changed, or it is not the file's fault."""
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
        try:
            return f"a link that leads nowhere (to {os.readlink(file)})"  # noqa: PTH115 - as written, and no Path
        except OSError:
            return None
    if error.errno in (errno.EACCES, errno.EPERM, errno.EIO):
        return f"cannot be read ({error.strerror})"
    return None


def read_bytes(item: Item) -> bytes:
    """Content of one image file, or of one spooled value.

    Raises:
        OSError: if it cannot be read, or is shorter than when the source was listed.
    """
    descriptor = os.open(item.file, os.O_RDONLY)
    try:
        data = os.pread(descriptor, item.size, item.offset)
    finally:
        os.close(descriptor)
    if len(data) != item.size:
        raise OSError(f"{item.name} must stay as it is while it is converted, got {len(data)} of {item.size} bytes")
    return data


def _save(work: Path, number: int, record: ShardRecord, temporary: Path) -> None:
    """Note that a shard is finished, so that a conversion that was interrupted need not write it again."""
    content = {
        "shard": asdict(record.shard),
        "rows": record.rows.tolist(),
        "bad": record.bad,
        "odd": record.odd,
        "multipart": record.multipart,
        "names": record.names,
    }
    atomic.write_bytes(work / f"shard-{number:06d}.json", json.dumps(content).encode(), temporary)


def finished_shard(folder: Path, number: int) -> ShardRecord | None:
    """Record of a shard that an earlier run finished, if its files are still whole."""
    with suppress(FileNotFoundError, ValueError, KeyError, TypeError):
        content = json.loads((folder / PARTIAL_FOLDER / f"shard-{number:06d}.json").read_text(encoding="utf-8"))
        shard = Shard(**content["shard"])
        files = {shard.file: shard.bytes} | ({shard.index: shard.index_bytes} if shard.index else {})
        if all((folder / name).stat().st_size == size for name, size in files.items()):
            return ShardRecord(
                shard,
                np.array([tuple(row) for row in content["rows"]], dtype=SAMPLE_DTYPE),
                tuple(BadImage(*bad) for bad in content["bad"]),
                tuple(OddImage(*odd) for odd in content["odd"]),
                tuple((row, parts) for row, parts in content["multipart"]),
                tuple(content["names"]),
                is_new=False,
            )
    return None
