"""Existing WebDataset, TFRecord and RecordIO sets as sources: softfeed's own, and those of other programs.

Nothing is believed but the containers themselves: their indexes are not read, every header and length is checked, and
no archive is extracted. Shard sets of softfeed also have their manifest, which keeps class names and original names.
"""

import functools
import os
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..containers.container import USUAL, Columns, Container, Content, Entry, FileReader, Problem
from ..containers.formats import CONTAINERS
from ..shard_set import ShardSet, is_shard_set, load
from .parquet import class_numbers
from .spool import Extents, FileStamp, stamp_of

_SUFFIXES = {
    "webdataset": (".tar",),
    "tfrecord": (".tfrecord", ".tfrecords", ".tfrec"),
    "recordio": (".rec",),
}
_NUMBERED = re.compile(r"(.*?)(?:[-_.]?\d+(?:-of-\d+)?)?")
_BARE_TFRECORD = re.compile(r".+-\d+-of-\d+")  # TensorFlow's own names have no suffix


class ContainerSource:
    """Labelled images in the files of one container format.

    Args:
        root: what the user named: a file or a folder.
        files: the containers, in the order of their samples.
        container: their format.
        columns: what image and label are called, where it is not the usual.
        shard_set: the shard set that they are, if softfeed wrote them.

    Raises:
        ValueError: if a file is damaged or of another format, or a record holds no image or no label.
    """

    def __init__(
        self,
        root: Path,
        files: Sequence[Path],
        container: Container,
        columns: Columns,
        shard_set: ShardSet | None = None,
    ) -> None:
        self.root = root
        self.format = container.name
        self.raw_shape = shard_set.manifest.raw_shape if shard_set else None
        self._files = list(files)
        self._columns = columns
        self._container = container
        self._shard_set = shard_set
        self._names: list[str] = []
        if shard_set is None:
            self._extents, self.labels, self.classes = self._scan_foreign()
        else:
            self._extents = _extents_of_set(shard_set)
            self.labels = shard_set.samples["label"].astype(np.int64)
            self.classes = shard_set.manifest.classes

    def stamps(self) -> list[FileStamp]:
        """See `Source`; the names of image and label count too, and the manifest of a shard set."""
        columns = FileStamp(f"{self.format} {self._columns.image} {self._columns.label}", 0, 0)
        files = [self._shard_set.folder / "dataset.json"] if self._shard_set else []
        return [columns, *(stamp_of(file, self.root) for file in [*files, *self._files])]

    def names(self, rows: Sequence[int]) -> list[str]:
        """Original names where the containers hold them, else file and member, "train-000.tar/0017.jpg"."""
        if self._shard_set is not None:
            return [self._shard_set.sample_name(row) for row in rows]
        return [self._names[row] for row in rows]

    def extents(self, work: Path, executor: Executor | None, report: Callable[[int, int], None]) -> Extents:
        """Images where they lie; of record formats whole records, whose checksums are seen when they are read."""
        return self._extents

    def _scan_foreign(self) -> tuple[Extents, NDArray[np.int64], tuple[str, ...]]:
        """Where images lie, labels and class names; keeps the names of the samples."""
        places: list[tuple[int, int, int]] = []
        labels: list[int] = []
        class_names: dict[int, set[str]] = defaultdict(set)
        for number, path in enumerate(self._files):
            file = stamp_of(path, self.root).name
            with FileReader(path) as read:
                for entry in entries(self._container, path):
                    for content in self._contents(path, entry, read):
                        place = content.image if self._container.unwrap is None else entry
                        places.append((number, place.offset, place.size))
                        labels.append(content.label)
                        self._names.append(content.name or f"{file}/{content.member or entry.key}")
                        if content.class_name:
                            class_names[content.label].add(content.class_name)
        if not places:
            raise ValueError(f"source must hold images, got none in {self.root}")
        array = np.array(labels, np.int64)
        table = np.array(places, np.int64)
        files = [os.fspath(path) for path in self._files]
        file, offset, size = table[:, 0], table[:, 1], table[:, 2]
        extents = Extents(files, file, offset, size, _unwrapper(self._container, self._columns))
        return extents, array, _classes(array, class_names, self.root)

    def _contents(self, path: Path, entry: Entry, read: FileReader) -> list[Content]:
        try:
            found = self._container.contents(entry, read, self._columns)
            for content in found:
                if not 0 <= content.label < 1 << 31:
                    raise ValueError(f"label must be in [0, 2147483648), got {content.label}")
        except ValueError as error:
            raise ValueError(f"{error}, at byte {entry.offset} of {path}") from None
        return found


def entries(container: Container, path: Path) -> list[Entry]:
    """Entries of a file without fault.

    Raises:
        ValueError: at the first problem, with its place.
    """
    found = []
    for entry in container.scan(path):
        if isinstance(entry, Problem):
            raise ValueError(
                f"{container.name} file must be whole and plain, got {path} with this at byte {entry.offset}: "
                f"{entry.reason}; nothing was extracted"
            )
        found.append(entry)
    return found


def _extents_of_set(shard_set: ShardSet) -> Extents:
    """Where the images of softfeed's own set lie; of record formats the whole records."""
    manifest, table = shard_set.manifest, shard_set.samples
    files = [os.fspath(path) for path in shard_set.shard_paths]
    file = table["shard"].astype(np.int64)
    offset, size = table["offset"].astype(np.int64), table["size"].astype(np.int64)
    if manifest.container.unwrap is not None:
        offset, size = _records_of(shard_set)
    return Extents(files, file, offset, size, _unwrapper(manifest.container, USUAL, manifest.raw_shape))


def _records_of(shard_set: ShardSet) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Offset and size of the whole record of every row, each int64 (num_samples,).

    Raises:
        ValueError: if a record says another place or label of its image than the table.
    """
    container, table = shard_set.manifest.container, shard_set.samples
    records, said = [], []
    for path in shard_set.shard_paths:
        with FileReader(path) as read:
            for entry in entries(container, path):
                records.append((entry.offset, entry.size))
                said += [(content.image.offset, content.label) for content in container.contents(entry, read, USUAL)]
    expected = np.stack([table["offset"], table["label"]], axis=1)
    if len(records) != len(table) or not np.array_equal(said, expected):
        raise ValueError(f"shards in {shard_set.folder} must hold the records that their table says, got others")
    place = np.array(records, np.int64)
    return place[:, 0], place[:, 1]


def _unwrapper(
    container: Container, columns: Columns, raw_shape: tuple[int, int, int] | None = None
) -> Callable[[bytes], bytes] | None:
    """What makes an image file of the bytes at an extent; None if they are one. It can be pickled."""
    unwrap = None
    if container.unwrap is not None:
        unwrap = functools.partial(_without_wrapping, container=container.name, columns=columns)
    if raw_shape is None:
        return unwrap
    return functools.partial(_as_ppm, raw_shape=raw_shape, unwrap=unwrap)


def _without_wrapping(record: bytes, *, container: str, columns: Columns) -> bytes:
    unwrap = CONTAINERS[container].unwrap
    return unwrap(record, columns) if unwrap else record


def _as_ppm(data: bytes, *, raw_shape: tuple[int, int, int], unwrap: Callable[[bytes], bytes] | None) -> bytes:
    """Pixels as an image file that decodes to the same pixels."""
    pixels = unwrap(data) if unwrap else data
    height, width, _ = raw_shape
    return b"P6\n%d %d\n255\n" % (width, height) + pixels


def _classes(labels: NDArray[np.int64], names: dict[int, set[str]], root: Path) -> tuple[str, ...]:
    """Class names; the number of a class that has none. Where one class has several, numbers for all."""
    numbers = class_numbers(labels, f"in {root}", "name the label with --label-column")
    if any(len(found) > 1 for found in names.values()):
        return numbers
    return tuple(next(iter(names[label])) if label in names else number for label, number in enumerate(numbers))


def container_files(path: Path, name: str) -> list[Path]:
    """Files of a container format: the path itself, or those in the folder, sorted; maybe none."""
    if path.is_file():
        return [path]
    return sorted(file for file in path.iterdir() if _has_suffix(file, name) and file.is_file())


def _has_suffix(file: Path, name: str) -> bool:
    if file.name.startswith("."):
        return False
    return file.suffix.lower() in _SUFFIXES[name] or (
        name == "tfrecord" and _BARE_TFRECORD.fullmatch(file.name) is not None and file.suffix != ".parquet"
    )


def is_container(path: Path, name: str) -> bool:
    """Whether files of a format lie there, by their usual names; the first must begin as the format does."""
    container = CONTAINERS[name]
    files = [file for file in container_files(path, name) if _has_suffix(file, name)]
    first = next(container.scan(files[0]), None) if files else None
    return isinstance(first, Entry) and _holds_sample(container, files[0], first)


def _holds_sample(container: Container, path: Path, entry: Entry) -> bool:
    """Whether an entry is one of a data set; a tar may be anything."""
    if container.unwrap is not None:
        return True
    with FileReader(path) as read:
        try:
            return bool(container.contents(entry, read, USUAL))
        except ValueError:
            return False


def open_container(path: Path, name: str, split: str | None, columns: Columns) -> ContainerSource:
    """Open an existing set.

    Args:
        path: file or folder.
        name: of the format.
        split: which files to take, if those of several splits lie there: what their names begin with.
        columns: what image and label are called, where it is not the usual.

    Raises:
        FileNotFoundError: if there is no file of the format.
        ValueError: if a split must be named, or as `ContainerSource`.
    """
    container = CONTAINERS[name]
    if path.is_dir() and is_shard_set(path):
        shard_set = load(path)
        if shard_set.manifest.format != name:
            raise ValueError(f"source_format must be {shard_set.manifest.format} for {path}, got {name}")
        if split is not None:
            raise ValueError(f"split must be left out for a shard set, got {split!r}")
        return ContainerSource(path, shard_set.shard_paths, container, columns, shard_set)
    files = container_files(path, name)
    if not files:
        raise FileNotFoundError(f"source must hold {name} files ({', '.join(_SUFFIXES[name])}), got none in {path}")
    return ContainerSource(path, _of_split(path, files, split), container, columns)


def _of_split(root: Path, files: Sequence[Path], split: str | None) -> list[Path]:
    splits: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        stem = file.name.removesuffix(file.suffix) if not _BARE_TFRECORD.fullmatch(file.name) else file.name
        match = _NUMBERED.fullmatch(stem)
        splits[match[1] if match else stem].append(file)
    known = ", ".join(sorted(splits))
    if split is None and len(splits) > 1:
        raise ValueError(f"split must be named (--split NAME), got none; {root} holds several: {known}")
    if split is not None and split not in splits:
        raise ValueError(f"split must be one that {root} holds ({known}), got {split!r}")
    return splits[split] if split is not None else list(files)
