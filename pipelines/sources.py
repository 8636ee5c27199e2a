"""Where samples come from: one table of files, offsets and labels for image folders and shard sets alike."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .shards.shard_set import ShardSet, is_shard_set, load
from .shards.sources.folder import scan_image_folder

WHOLE_FILE = -1


@dataclass(frozen=True)
class Source:
    """A data set as a table with one row per sample.

    Attributes:
        root: The folder it was opened from.
        classes: Class names; a label is an index into them.
        files: The files that hold samples.
        file: int32 (N,), index into `files`.
        offset: int64 (N,), first byte of the image in its file.
        size: int64 (N,), bytes of the image; `WHOLE_FILE` where a file is an image.
        labels: int64 (N,), in [0, len(classes)).
        height: int32 (N,), pixels; 0 where not known before the image is read.
        width: int32 (N,), pixels; 0 where not known before the image is read.
        raw_shape: (height, width, 3) if the bytes are uint8 HWC pixels, None if they are an encoded image.
        shard_set: The shard set that this is, or None.
        multipart: Parts of the images that a RecordIO set holds in several, by sample.
    """

    root: Path
    classes: tuple[str, ...]
    files: list[str]
    file: np.ndarray
    offset: np.ndarray
    size: np.ndarray
    labels: np.ndarray
    height: np.ndarray
    width: np.ndarray
    raw_shape: tuple[int, int, int] | None
    shard_set: ShardSet | None
    multipart: Mapping[int, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def usual_size(self) -> int:
        """Pixels a side that images are played with, unless somebody says otherwise."""
        return usual_size(self.raw_shape)

    def describe(self, index: int) -> str:
        """Where sample `index` lies, for messages: the image file, or shard, offset and original name."""
        path = self.files[int(self.file[index])]
        if self.shard_set is None:
            return path
        try:
            name = self.shard_set.sample_name(index)
        except OSError:
            name = "original name unreadable"
        return f"{path} at offset {int(self.offset[index])} ({name})"


def usual_size(raw_shape: tuple[int, ...] | None) -> int:
    """Pixels a side for images of a data set: of raw ones the longer side, else 224, as is usual for ImageNet."""
    return 224 if raw_shape is None else max(raw_shape[:2])


def open_source(data: str | os.PathLike[str]) -> Source:
    """Open an image folder (`class/image.jpg`) or a shard set written by `softfeed convert`.

    Raises:
        FileNotFoundError: if there is no such folder, or nothing in it.
        ValueError: if it is neither, or a shard set whose manifest and files disagree.
    """
    root = Path(data)
    if not root.exists():
        raise FileNotFoundError(f"image folder must exist, got {root} (a shard set would do, too); check the path")
    return _open_shards(root) if is_shard_set(root) else _open_folder(root)


def _open_folder(root: Path) -> Source:
    files, labels, classes = scan_image_folder(root)
    count = len(files)
    unknown = np.zeros(count, np.int32)
    return Source(
        root=root,
        classes=classes,
        files=files,
        file=np.arange(count, dtype=np.int32),
        offset=np.zeros(count, np.int64),
        size=np.full(count, WHOLE_FILE, np.int64),
        labels=labels,
        height=unknown,
        width=unknown.copy(),
        raw_shape=None,
        shard_set=None,
    )


def _open_shards(root: Path) -> Source:
    shard_set = load(root)
    table, manifest = shard_set.samples, shard_set.manifest
    return Source(
        root=root,
        classes=manifest.classes,
        files=[str(path) for path in shard_set.shard_paths],
        # the table is a memory map of rows; columns of their own are read faster
        file=table["shard"].copy(),
        offset=table["offset"].copy(),
        size=table["size"].copy(),
        labels=table["label"].astype(np.int64),
        height=table["height"].copy(),
        width=table["width"].copy(),
        raw_shape=manifest.raw_shape,
        shard_set=shard_set,
        multipart=dict(manifest.multipart),
    )
