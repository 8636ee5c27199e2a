"""What can be converted, and where each of its images lies."""

import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..containers.container import Columns
from ..containers.formats import CONTAINERS
from ..shard_set import is_shard_set, load
from .archive import is_imagenet, is_tar, open_imagenet, open_tar
from .cifar import is_cifar, open_cifar
from .container_source import is_container, open_container
from .folder import scan_image_folder, status_of
from .idx import idx_image_files, open_idx
from .npy import is_npy, is_npz, open_npy
from .parquet import ParquetSource, parquet_files
from .spool import Extents, FileStamp

SOURCE_FORMATS = ("auto", "folder", "parquet", "imagenet", "tar", "cifar", "idx", "npz", "npy", *CONTAINERS)
ARRAY_FORMATS = ("cifar", "idx", "npz", "npy")  # pixels, not image files
# Which of `SourceOptions` say something about a source of a format.
_SETTINGS = {
    "folder": (),
    "parquet": ("split", "image_column", "label_column"),
    "imagenet": ("split", "labels"),
    "tar": (),
    "cifar": ("split", "label_column"),
    "idx": ("split", "labels"),
    "npz": ("split", "image_column", "label_column", "labels"),
    "npy": ("split", "image_column", "label_column", "labels"),
    "webdataset": ("split", "image_column", "label_column"),
    "tfrecord": ("split", "image_column", "label_column"),
    "recordio": ("split", "label_column"),
}


class Source(Protocol):
    """Labelled images that lie in files, in a fixed order."""

    root: Path
    format: str
    classes: tuple[str, ...]
    labels: NDArray[np.int64]

    def stamps(self) -> list[FileStamp]:
        """Name, size and time of every file as it is now: two listings with equal stamps hold the same images."""
        ...

    def names(self, rows: Sequence[int]) -> list[str]:
        """Original names of some samples."""
        ...

    def extents(self, work: Path, executor: Executor | None, report: Callable[[int, int], None]) -> Extents:
        """Where the bytes of every image lie; may write files below `work` that make them addressable.

        Args:
            work: existing folder.
            executor: where to do it in parallel.
            report: called with the number of files done and of all files.
        """
        ...


class FolderSource:
    """An image folder, `root/class/**/image`.

    Args:
        root: the folder.

    Raises:
        OSError, ValueError: as `scan_image_folder`.
    """

    format = "folder"

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)
        self._paths, self.labels, self.classes = scan_image_folder(self.root)

    def stamps(self) -> list[FileStamp]:
        """See `Source`."""
        start = len(os.path.join(self.root, ""))  # noqa: PTH118 - with a separator behind it
        found = ((path[start:], status_of(path)) for path in self._paths)
        return [FileStamp(name, status.st_size, status.st_mtime_ns) for name, status in found]

    def names(self, rows: Sequence[int]) -> list[str]:
        """Paths inside the folder."""
        start = len(os.path.join(self.root, ""))  # noqa: PTH118
        return [self._paths[row][start:] for row in rows]

    def extents(self, work: Path, executor: Executor | None, report: Callable[[int, int], None]) -> Extents:
        """Every file whole."""
        sizes = np.array([status_of(path).st_size for path in self._paths], dtype=np.int64)
        return Extents(self._paths, np.arange(len(sizes)), np.zeros(len(sizes), np.int64), sizes, own_files=True)


class SourceOptions(NamedTuple):
    """How to read a source.

    Attributes:
        source_format: one of `SOURCE_FORMATS`.
        split: which of several splits to take, such as "train".
        image_column: Parquet column, array, TFRecord feature or WebDataset extension of images.
        label_column: Parquet column, CIFAR-100 label, array, TFRecord feature or WebDataset extension of labels; for
            RecordIO the position of the class among several labels.
        labels: file of labels that do not lie with the images.
    """

    source_format: str = "auto"
    split: str | None = None
    image_column: str | None = None
    label_column: str | None = None
    labels: str | os.PathLike[str] | None = None


def open_source(root: str | os.PathLike[str], options: SourceOptions | None = None) -> Source:
    """Open labelled images in one of `SOURCE_FORMATS`.

    Args:
        root: path of the file or folder.
        options: how to read it, None for the defaults. "auto" takes the format by what lies there; a folder in which
            nothing else is found is an image folder.

    Raises:
        FileNotFoundError: if it does not exist or holds nothing to convert.
        ValueError: if the options do not fit the source, or it is damaged.
    """
    options = options or SourceOptions()
    if options.source_format not in SOURCE_FORMATS:
        raise ValueError(f"source_format must be one of {', '.join(SOURCE_FORMATS)}, got {options.source_format!r}")
    path = Path(root).absolute()
    if not path.exists():
        raise FileNotFoundError(f"source must exist, got {path}; check the path")
    found = options.source_format if options.source_format != "auto" else _format_of(path)
    for setting in SourceOptions._fields[1:]:
        value = getattr(options, setting)
        if value is not None and setting not in _SETTINGS[found]:
            kind = "an image folder" if found == "folder" else f"a source of format {found}"
            raise ValueError(f"{setting} must be left out for {kind}, got {value!r}; {path} is read as {found}")
    return _open(path, found, options)


def _format_of(path: Path) -> str:
    """The format of what lies at a path, by its first bytes and well-known file names."""
    if path.is_dir() and is_shard_set(path):
        return load(path).manifest.format
    checks: dict[str, Callable[[Path], object]] = {
        "cifar": is_cifar,
        "imagenet": is_imagenet,
        "idx": idx_image_files,
        # before arrays, as their tables may be .npy files, and before tars, which they may be
        **{name: functools.partial(is_container, name=name) for name in CONTAINERS},
        "npz": is_npz,
        "npy": is_npy,
        "tar": is_tar,
        "parquet": parquet_files,
    }
    found = next((name for name, holds in checks.items() if holds(path)), None)
    if found is None and path.is_file():
        raise ValueError(f"source must be a folder or a file of a known format, got {path}, which is none")
    return found or "folder"


def _open(path: Path, source_format: str, options: SourceOptions) -> Source:
    if source_format in ("tar", "npz") and not path.is_file():
        raise ValueError(f"source of format {source_format} must be a file, got the folder {path}")
    split, label = options.split, options.label_column
    labels = None if options.labels is None else Path(options.labels).absolute()
    if source_format == "parquet":
        files = parquet_files(path)
        if not files:
            raise FileNotFoundError(f"source must hold *.parquet files, got none in {path}")
        return ParquetSource(path, files, split=split, image_column=options.image_column, label_column=label)
    if source_format in CONTAINERS:
        return open_container(path, source_format, split, Columns(options.image_column, label))
    if source_format == "imagenet":
        return open_imagenet(path, split=split, labels=labels)
    if source_format == "tar":
        return open_tar(path)
    if source_format == "cifar":
        return open_cifar(path, split=split, label=label)
    if source_format == "idx":
        return open_idx(path, split=split, labels=labels)
    if source_format in ("npz", "npy"):
        return open_npy(path, split=split, image_key=options.image_column, label_key=label, labels=labels)
    return FolderSource(path)
