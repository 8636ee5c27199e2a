"""Parquet files of encoded images, in the layout common on data set hubs."""

import json
import os
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from .spool import Extents, FileStamp, spool_column, stamp_of

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "fine_label", "labels", "coarse_label")
_FEW_CLASSES = 1_000_000  # labels below this are believed however few the rows are
_SPLIT = re.compile(r"(?:(.+)-\d+-of-\d+.*|(train|training|validation|valid|val|test|eval|dev)(?:[-_.].*)?)\.parquet")


def parquet_files(path: Path) -> list[Path]:
    """The file itself, or every `*.parquet` file in a folder and the folders below it, sorted; maybe none."""
    if path.is_file():
        with path.open("rb") as file:
            if file.read(4) == b"PAR1":
                return [path]
        return []
    found = (  # Path.rglob takes five times as long, and most folders hold a million images instead
        Path(folder, name)
        for folder, _, names in os.walk(path)
        for name in names
        if name.endswith(".parquet") and not name.startswith(".")
    )
    return sorted(file for file in found if file.is_file())


def split_of(file: Path, root: Path) -> str | None:
    """Split that a file belongs to by its name ("train-00000-of-00003.parquet") or folder ("train/0.parquet")."""
    if match := _SPLIT.fullmatch(file.name):
        return match[1] or match[2]
    folder = file.relative_to(root).parent.name if root.is_dir() else ""
    return folder if folder not in ("", "data") else None


class ParquetSource:
    """Images and integer labels of one split, in the order of the file names and rows.

    Args:
        root: what the user named: a file, or a folder that the files lie in.
        files: Parquet files, at least one.
        split: split to take; None if the files are of one split.
        image_column: column of struct<bytes, ...> or binary; None for the first of `IMAGE_COLUMNS`.
        label_column: column of integers; None for the first of `LABEL_COLUMNS`.

    Raises:
        ValueError: if the split or a column does not exist, has another type, or a label is missing, negative or too
            great to be the number of a class.
    """

    format = "parquet"

    def __init__(
        self,
        root: Path,
        files: Sequence[Path],
        *,
        split: str | None = None,
        image_column: str | None = None,
        label_column: str | None = None,
    ) -> None:
        self.root = root
        self._files = _files_of_split(root, files, split)
        schema = _schema(self._files[0])
        image = _column(schema, image_column, IMAGE_COLUMNS, "image", self._files[0])
        self._label = _column(schema, label_column, LABEL_COLUMNS, "label", self._files[0])
        self._image = _bytes_path(schema, image, self._files[0])
        for file in self._files[1:]:
            if (other := _schema(file)).names != schema.names or other.types != schema.types:
                raise ValueError(f"Parquet files must have one schema, got another in {file} than in {self._files[0]}")
        labels = [_labels(file, self._label) for file in self._files]
        self._first_rows = np.concatenate([[0], np.cumsum([len(part) for part in labels])])
        self.labels = np.concatenate(labels)
        if not len(self.labels):
            raise ValueError(f"source must hold images, got no row in {self._files[0]}")
        self.classes = _class_names(schema, self._label, self.labels, self._files[0])

    def stamps(self) -> list[FileStamp]:
        """See `Source`; the columns count too, since the same file holds other samples by another column."""
        columns = FileStamp(f"{self._image} {self._label}", 0, 0)
        return [columns, *(stamp_of(file, self.root) for file in self._files)]

    def names(self, rows: Sequence[int]) -> list[str]:
        """File inside the source and row in the file, "train-00000-of-00003.parquet/17"."""
        files = np.searchsorted(self._first_rows, rows, side="right") - 1
        names = [stamp_of(file, self.root).name for file in self._files]
        return [f"{names[file]}/{row - self._first_rows[file]}" for file, row in zip(files, rows, strict=True)]

    def extents(self, work: Path, executor: Executor | None, report: Callable[[int, int], None]) -> Extents:
        """Spools the image column of every file below `work`; see `spool_column`."""
        spools = [work / f"spool-{number:05d}.bin" for number in range(len(self._files))]
        jobs = (self._files, [self._image] * len(spools), spools)
        tables = []
        for path in (executor.map if executor else map)(spool_column, *jobs):
            tables.append(np.load(path))
            report(len(tables), len(spools))
        for file, table, rows in zip(self._files, tables, np.diff(self._first_rows), strict=True):
            if len(table) != rows + 1:
                raise ValueError(f"Parquet column {self._image} must have {rows} rows in {file}, got {len(table) - 1}")
        return Extents(
            [os.fspath(spool) for spool in spools],
            np.repeat(np.arange(len(spools)), np.diff(self._first_rows)),
            np.concatenate([table[:-1] for table in tables]),
            np.concatenate([np.diff(table) for table in tables]),
        )


def _files_of_split(root: Path, files: Sequence[Path], split: str | None) -> list[Path]:
    splits: dict[str | None, list[Path]] = defaultdict(list)
    for file in files:
        splits[split_of(file, root)].append(file)
    known = ", ".join(sorted(name or f"{len(splits[name])} files of none" for name in splits))
    if split is None:
        if len(splits) > 1:
            raise ValueError(f"split must be named (--split NAME), got none; {root} holds several: {known}")
        return list(files)
    if split not in splits:
        raise ValueError(f"split must be one that {root} holds ({known}), got {split!r}")
    return splits[split]


def _schema(file: Path) -> pa.Schema:
    try:
        return pq.read_schema(file)
    except pa.ArrowInvalid as error:
        raise ValueError(f"Parquet file must be whole, got {file}: {error}; download it again") from None


def _column(schema: pa.Schema, wanted: str | None, usual: Sequence[str], role: str, file: Path) -> str:
    """Name of the column to read for a role ("image", "label")."""
    for name in [wanted] if wanted is not None else usual:
        if name in schema.names:
            return name
    sought = repr(wanted) if wanted is not None else f"one of {', '.join(usual)}"
    raise ValueError(
        f"{role}_column must be a column of {file} ({', '.join(sorted(schema.names))}), got {sought}; "
        f"name it with --{role}-column"
    )


def _bytes_path(schema: pa.Schema, column: str, file: Path) -> str:
    """Path of the binary values: the column, or the field `bytes` of a struct."""
    kind = schema.field(column).type
    path = column
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        path, kind = f"{column}.bytes", kind.field("bytes").type
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise ValueError(
            f"image_column must hold encoded images (binary, or a struct with a field 'bytes'), got {column!r} of type "
            f"{schema.field(column).type} in {file}; name another with --image-column"
        )
    return path


def _labels(file: Path, column: str) -> NDArray[np.int64]:
    values = pq.read_table(file, columns=[column]).column(0)
    if not pa.types.is_integer(values.type):
        raise ValueError(f"label_column must hold integers, got {column!r} of type {values.type} in {file}")
    if values.null_count:
        raise ValueError(f"label_column must have no gaps, got {values.null_count} missing {column!r} in {file}")
    labels = values.to_numpy().astype(np.int64)
    if len(labels) and labels.min() < 0:
        raise ValueError(
            f"labels must be 0 or more, got {labels.min()} in row {labels.argmin()} of {file}; this split has no labels"
        )
    return labels


def _class_names(schema: pa.Schema, column: str, labels: NDArray[np.int64], file: Path) -> tuple[str, ...]:
    """Names in the schema's `huggingface` metadata, else the numbers 0 to the greatest label."""
    greatest = int(labels.max())
    metadata = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    names = metadata.get("info", {}).get("features", {}).get(column, {}).get("names")
    if names:
        if greatest >= len(names):
            raise ValueError(f"labels must be in [0, {len(names)}), the classes that {file} names, got {greatest}")
        return tuple(map(str, names))
    return class_numbers(labels, f"in {column!r} of {file}", "name the column of class numbers with --label-column")


def class_numbers(labels: NDArray[np.int64], where: str, advice: str) -> tuple[str, ...]:
    """The numbers from 0 to the greatest label, as names of classes that have none.

    Args:
        labels: int64 (num_samples,), at least one.
        where: they lie, for the message.
        advice: what to do if they are no classes, for the message.

    Raises:
        ValueError: if a label is too great to be the number of a class.
    """
    greatest = int(labels.max())
    # Above, it is an identifier: a class for every number up to it would fill the memory.
    limit = min(max(_FEW_CLASSES, 10 * len(labels)), 2**31)
    if greatest >= limit:
        raise ValueError(
            f"labels must number the classes, below {limit} for {len(labels)} rows without class names, got {greatest} "
            f"{where}; {advice}"
        )
    return tuple(str(number) for number in range(greatest + 1))
