"""What can be converted, and where each of its images lies."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from .folder import scan_image_folder
from .parquet import ParquetSource, parquet_files
from .spool import Extents, FileStamp, stamp_of

SOURCE_FORMATS = ("auto", "folder", "parquet")


class Source(Protocol):
    """Labelled images that lie in files, in a fixed order."""

    root: Path
    format: str
    classes: tuple[str, ...]
    labels: NDArray[np.int64]

    def stamps(self) -> list[FileStamp]:
        """Name, size and time of every file: two listings with equal stamps hold the same images."""
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
        self._stamps = [stamp_of(path, self.root) for path in self._paths]

    def stamps(self) -> list[FileStamp]:
        """See `Source`."""
        return self._stamps

    def names(self, rows: Sequence[int]) -> list[str]:
        """Paths inside the folder."""
        return [self._stamps[row].name for row in rows]

    def extents(self, work: Path, executor: Executor | None, report: Callable[[int, int], None]) -> Extents:
        """Every file whole."""
        sizes = np.array([stamp.size for stamp in self._stamps], dtype=np.int64)
        return Extents(self._paths, np.arange(len(sizes)), np.zeros(len(sizes), np.int64), sizes)


class SourceOptions(NamedTuple):
    """How to read a source: its format (one of `SOURCE_FORMATS`), and for Parquet the split and columns to take."""

    source_format: str = "auto"
    split: str | None = None
    image_column: str | None = None
    label_column: str | None = None


def open_source(root: str | os.PathLike[str], options: SourceOptions | None = None) -> Source:
    """Open an image folder, a Parquet file, or a folder of Parquet files.

    Args:
        root: path of the file or folder.
        options: how to read it, None for the defaults. "auto" takes a folder for Parquet if `*.parquet` files lie
            in it.

    Raises:
        FileNotFoundError: if it does not exist or holds nothing to convert.
        ValueError: if the options do not fit the source.
    """
    options = options or SourceOptions()
    if options.source_format not in SOURCE_FORMATS:
        raise ValueError(f"source_format must be one of {', '.join(SOURCE_FORMATS)}, got {options.source_format!r}")
    path = Path(root).absolute()
    if not path.exists():
        raise FileNotFoundError(f"source must exist, got {path}; check the path")
    files = [] if options.source_format == "folder" else parquet_files(path)
    if options.source_format == "parquet" and not files:
        raise FileNotFoundError(f"source must hold *.parquet files, got none in {path}")
    if files:
        return ParquetSource(
            path, files, split=options.split, image_column=options.image_column, label_column=options.label_column
        )
    for setting in ("split", "image_column", "label_column"):
        if getattr(options, setting) is not None:
            raise ValueError(
                f"{setting} must be left out for an image folder, got {getattr(options, setting)!r}; "
                f"{path} holds no *.parquet file"
            )
    return FolderSource(path)
