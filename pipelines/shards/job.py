"""What one worker does: read the images of one shard, check them, and write the shard with its index."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import atomic
from .decoding import Decoded, Decoder, HeaderReader, Undecodable, extension_of
from .manifest import PARTIAL_FOLDER, SAMPLE_DTYPE, Shard
from .webdataset import Member, Place, ShardWriter

_WINDOW = 64  # images in memory at a time


class Item(NamedTuple):
    """One sample to convert: where its bytes lie, its label, its original name."""

    file: str
    offset: int
    size: int
    label: int
    name: str


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
        raw_shape: (height, width) that every image must have, to store pixels; None to store the files.
        check: decode every image whole; if False only its header is read.
    """

    folder: Path
    number: int
    first_key: int
    items: Sequence[Item]
    raw_shape: tuple[int, int] | None
    check: bool


@dataclass(frozen=True)
class ShardRecord:
    """A finished shard.

    Attributes:
        shard: its entry for the manifest.
        rows: its part of the table of samples, dtype `SAMPLE_DTYPE`, shape (shard.samples,).
        bad: images that were left out.
        is_new: written by this run, not found from an earlier one.
    """

    shard: Shard
    rows: NDArray[Any]
    bad: tuple[BadImage, ...]
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
    work = job.folder / PARTIAL_FOLDER
    tar = job.folder / f"shard-{job.number:06d}.tar"
    temporary = work / (tar.name + ".tmp")
    rows, bad = [], []
    with ShardWriter(temporary) as writer:
        for key, item, image, decoded in _decoded(job):
            if isinstance(decoded, Undecodable):
                bad.append(BadImage(item.name, item.label, decoded.reason))
            else:
                members = _members(item, image, decoded)
                rows.append(_row(job.number, item, decoded, writer.add(f"{key:08d}", members)))
        summary = writer.finish()
    atomic.rename(temporary, tar)
    index = writer.index_text().encode()
    index_summary = atomic.write_file(tar.with_suffix(".idx"), index)
    record = ShardRecord(
        Shard(
            file=tar.name,
            index=tar.with_suffix(".idx").name,
            samples=len(rows),
            bytes=summary.bytes,
            crc32=summary.crc32,
            index_bytes=index_summary.bytes,
            index_crc32=index_summary.crc32,
        ),
        np.array(rows, dtype=SAMPLE_DTYPE),
        tuple(bad),
    )
    _save(work, job.number, record)
    return record


def _decoded(job: ShardJob) -> Iterator[tuple[int, Item, bytes, Decoded | Undecodable]]:
    """Key, item, file content and decoded image of every item."""
    raw = job.raw_shape is not None
    decoder = Decoder(keep_pixels=raw) if job.check or raw else HeaderReader()
    for start in range(0, len(job.items), _WINDOW):
        items = job.items[start : start + _WINDOW]
        images = [read_bytes(item) for item in items]
        for position, (item, image, decoded) in enumerate(zip(items, images, decoder.decode(images), strict=True)):
            if raw and isinstance(decoded, Decoded) and (decoded.height, decoded.width) != job.raw_shape:
                raise ValueError(_other_size(item, decoded, job.raw_shape))
            yield job.first_key + start + position, item, image, decoded


def _other_size(item: Item, decoded: Decoded, raw_shape: tuple[int, int] | None) -> str:
    height, width = raw_shape or (0, 0)
    return (
        f"raw images must all have one size, {height}x{width} (height x width), got {decoded.height}x{decoded.width} "
        f"in {item.name}; convert without --raw, or resize the images first"
    )


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


def _members(item: Item, image: bytes, decoded: Decoded) -> list[Member]:
    if decoded.pixels is None:
        first = Member(extension_of(image) or "img", image)
    else:
        first = Member("rgb", decoded.pixels)
    return [
        first,
        Member("cls", str(item.label).encode()),
        Member("label", item.label.to_bytes(4, "little")),
        Member("name", os.fsencode(item.name)),
    ]


def _row(number: int, item: Item, decoded: Decoded, places: Sequence[Place]) -> tuple[int, ...]:
    """A row of the table of samples; see `SAMPLE_DTYPE`."""
    return (number, *places[0], item.label, decoded.height, decoded.width, *places[-1])


def _save(work: Path, number: int, record: ShardRecord) -> None:
    """Note that a shard is finished, so that a conversion that was interrupted need not write it again."""
    content = {"shard": asdict(record.shard), "rows": record.rows.tolist(), "bad": record.bad}
    atomic.write_file(work / f"shard-{number:06d}.json", json.dumps(content).encode())


def finished_shard(folder: Path, number: int) -> ShardRecord | None:
    """Record of a shard that an earlier run finished, if its files are still whole."""
    with suppress(FileNotFoundError, ValueError, KeyError, TypeError):
        content = json.loads((folder / PARTIAL_FOLDER / f"shard-{number:06d}.json").read_text(encoding="utf-8"))
        shard = Shard(**content["shard"])
        sizes = [(folder / name).stat().st_size for name in (shard.file, shard.index)]
        if sizes == [shard.bytes, shard.index_bytes]:
            rows = np.array([tuple(row) for row in content["rows"]], dtype=SAMPLE_DTYPE)
            return ShardRecord(shard, rows, tuple(BadImage(*bad) for bad in content["bad"]), is_new=False)
    return None
