"""Where samples come from: one table of files, offsets and labels for image folders and shard sets alike."""

from __future__ import annotations

import operator
import os
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import SupportsIndex

import numpy as np

from .shards.shard_set import ShardSet, is_shard_set, load
from .shards.sources.folder import scan_image_folder

WHOLE_FILE = -1
_NAMED = 3  # classes that a message names


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
        relabelled: Whether `classes` were given, and are others than the data's own.
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
    relabelled: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def usual_size(self) -> int:
        """Pixels a side that images are played with, unless somebody says otherwise."""
        return usual_size(self.raw_shape)

    def position(self, index: SupportsIndex, *, lowest: int = 0) -> int:
        """The plain number of a sample.

        Args:
            index: The same, maybe of numpy's or torch's.
            lowest: Where indices begin; those below 0 count from the end.

        Raises:
            TypeError: if `index` is no whole number, or several.
            IndexError: if there is no such sample.
        """
        try:
            number = operator.index(index)
        except TypeError:
            got = " ".join(reprlib.repr(index).split())
            raise TypeError(f"index must be one whole number, got {got}") from None
        if not lowest <= number < len(self):
            raise IndexError(f"index must be of a sample, from {lowest:,} to {len(self) - 1:,}, got {number}")
        return number % len(self)

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


def open_source(data: str | os.PathLike[str], classes: Sequence[str] | None = None) -> Source:
    """Open an image folder (`class/image.jpg`) or a shard set written by `softfeed convert`.

    Args:
        data: The folder.
        classes: Names that labels are to be positions in, all different. The data may lack some of them, or hold no
            image of them, but has no others. None takes the data's own, each of which must hold an image in a folder.

    Raises:
        FileNotFoundError: if there is no such folder, or nothing in it.
        TypeError: if `classes` are no names.
        ValueError: if it is neither, a shard set whose manifest and files disagree, or of other classes.
    """
    root = Path(data)
    if not root.exists():
        raise FileNotFoundError(f"image folder must exist, got {root} (a shard set would do, too); check the path")
    source = _open_shards(root) if is_shard_set(root) else _open_folder(root, empty_classes=classes is not None)
    return source if classes is None else _in_classes(source, _names(classes))


def named(names: Sequence[str]) -> str:
    """The first of some names, for messages: "'a', 'b', 'c' and 7 more"."""
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return ", ".join(map(repr, names[:_NAMED])) + more


def _names(classes: Sequence[str]) -> tuple[str, ...]:
    # of a set or a dictionary, the order would be an accident
    listed = isinstance(classes, Sequence | np.ndarray) and not isinstance(classes, str | bytes)
    if not listed or not all(isinstance(name, str) for name in classes):
        raise TypeError(f"classes must be a sequence of names, got {reprlib.repr(classes)}")
    return tuple(map(str, classes))


def _in_classes(source: Source, classes: tuple[str, ...]) -> Source:
    """The same data with labels that are positions in `classes`."""
    own = source.classes
    if classes == own:
        return source
    position = {name: label for label, name in enumerate(classes)}
    for kind, names in (("given", classes), (f"of {source.root}", own)):
        if len(set(names)) < len(names):
            raise ValueError(
                f"classes must have a name each to be told apart, got {max(names, key=names.count)!r} more than once "
                f"in those {kind}"
            )
    if other := [name for name in own if name not in position]:
        missing = [name for name in classes if name not in set(own)]
        lacks = f", which lacks {named(missing)}" if missing else ""
        raise ValueError(
            f"data must have no classes but the {len(classes):,} given, got {named(other)} in {source.root}{lacks}"
        )
    labels = np.array([position[name] for name in own], np.int64)[source.labels]
    return replace(source, classes=classes, labels=labels, relabelled=True)


def _open_folder(root: Path, *, empty_classes: bool) -> Source:
    files, labels, classes = scan_image_folder(root, empty_classes=empty_classes)
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
