"""MNIST's IDX files, gzipped or not, and those of the data sets that took over their format.

A file is four bytes (0, 0, type, number of dimensions), the dimensions as big-endian uint32, and the values.
"""

import math
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from .arrays import ArrayPart, ArraySource, rows_per_block
from .compressed import BoundedGzip, is_gzip, most_content

_UINT8 = 8
_NAME = re.compile(r"(?:(?P<split>.+)[-_])?images[-._]idx(?P<dimensions>[34])[-._]ubyte(?P<gzip>\.gz)?")
_TEST_NAMES = ("test", "t10k")
_LARGEST_IMAGE = 50_000_000  # pixels; a damaged header may claim any number
_LARGEST_LABELS = 100_000_000


def idx_image_files(path: Path) -> dict[str, Path]:
    """Files of images by their split ("train", "t10k"), among the files of a folder, or the one that `path` is."""
    files = [path] if path.is_file() else sorted(path.iterdir())
    found = {}
    for file in files:
        if (match := _NAME.fullmatch(file.name)) and file.is_file():
            split = match["split"] or ""
            if split not in found or not match["gzip"]:  # an unpacked file beside the packed one is the same
                found[split] = file
    return found


def open_idx(path: Path, *, split: str | None = None, labels: Path | None = None) -> ArraySource:
    """Open a pair of IDX files.

    Args:
        path: the file of images, or a folder that holds it under its usual name ("train-images-idx3-ubyte.gz").
        split: which of several; "test" also finds "t10k".
        labels: the file of labels; None for the one named like that of the images.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if the split is not there, or a file is damaged or of another type.
    """
    images = _image_file(path, split)
    labels = labels or _labels_beside(images)
    numbers = _read_labels(labels)
    rows, height, width, channels = _image_shape(images)
    shape = (height, width, channels)
    part = ArrayPart(images.name, rows, shape, partial(_blocks, images, rows, shape))
    return ArraySource(path, "idx", [part], numbers, None, files=[images, labels], selection="")


def _image_file(path: Path, split: str | None) -> Path:
    found = idx_image_files(path)
    if path.is_file() and split is None:
        return path
    names = [split] if split not in _TEST_NAMES else [split, *_TEST_NAMES]
    if split is None and len(found) == 1:
        names = list(found)
    for name in names:
        if name in found:
            return found[name]
    known = ", ".join(sorted(found)) or "none"
    raise ValueError(f"split must be named (--split NAME), one that {path} holds ({known}), got {split or 'none'}")


def _labels_beside(images: Path) -> Path:
    """The file of labels that belongs to a file of images, packed or not."""
    name = re.sub(r"images([-._])idx\d", r"labels\1idx1", images.name)
    plain = name.removesuffix(".gz")
    for candidate in (name, plain, f"{plain}.gz"):
        if candidate != images.name and images.with_name(candidate).is_file():
            return images.with_name(candidate)
    raise FileNotFoundError(f"labels must lie beside {images} as {name}, or be named (--labels FILE), got none")


def _image_shape(path: Path) -> tuple[int, int, int, int]:
    """Images, height, width and channels."""
    with _opened(path, 1 << 10) as file:
        shape = _dimensions(file, path)
    if len(shape) == 3:
        shape = (*shape, 1)
    if len(shape) != 4 or min(shape[1:]) < 1 or shape[3] not in (1, 3):
        raise ValueError(f"IDX images must have 3 dimensions, or 4 with 1 or 3 channels, got {shape} in {path}")
    if shape[1] * shape[2] > _LARGEST_IMAGE:
        raise ValueError(f"IDX images must have at most {_LARGEST_IMAGE} pixels, got {shape} in {path}")
    size, most = math.prod(shape), most_content(path.stat().st_size, deflated=is_gzip(path))
    if size > most:
        raise ValueError(f"IDX file must hold as many values as it says, got {shape} in {path}, room for {most} bytes")
    return shape[0], shape[1], shape[2], shape[3]


def _blocks(path: Path, rows: int, shape: tuple[int, int, int]) -> Iterator[NDArray[np.uint8]]:
    """See `ArrayPart`."""
    size = int(np.prod(shape))
    with _opened(path, (1 << 10) + rows * size) as file:
        _dimensions(file, path)
        step = rows_per_block(shape)
        for first in range(0, rows, step):
            count = min(step, rows - first)
            data = _exactly(file, count * size, path)
            yield np.frombuffer(data, np.uint8).reshape(count, *shape)
        _require_end(file, path)


def _read_labels(path: Path) -> NDArray[np.int64]:
    with _opened(path, _LARGEST_LABELS) as file:
        shape = _dimensions(file, path)
        if len(shape) != 1 or shape[0] >= _LARGEST_LABELS:
            raise ValueError(f"IDX labels must have one dimension, got {shape} in {path}")
        data = _exactly(file, shape[0], path)
        _require_end(file, path)
    return np.frombuffer(data, np.uint8).astype(np.int64)


def _opened(path: Path, limit: int) -> "BoundedGzip | IO[bytes]":
    return BoundedGzip(path, limit) if is_gzip(path) else path.open("rb")


def _dimensions(file: "BoundedGzip | IO[bytes]", path: Path) -> tuple[int, ...]:
    magic = _exactly(file, 4, path)
    if magic[:2] != b"\0\0" or magic[2] != _UINT8 or not 1 <= magic[3] <= 4:
        raise ValueError(f"IDX file must begin with 00 00 08 and its dimensions, got {magic.hex(' ')} in {path}")
    values = np.frombuffer(_exactly(file, 4 * magic[3], path), ">u4")
    return tuple(int(value) for value in values)


def _exactly(file: "BoundedGzip | IO[bytes]", size: int, path: Path) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise ValueError(f"IDX file must hold as many values as it says, got {len(data)} of {size} bytes in {path}")
    return data


def _require_end(file: "BoundedGzip | IO[bytes]", path: Path) -> None:
    if file.read(1):
        raise ValueError(f"IDX file must hold as many values as it says, got more in {path}")
