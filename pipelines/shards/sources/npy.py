"""Arrays of images and labels in `.npz` files, or in `.npy` files that lie in one folder. Nothing is unpickled."""

import errno
import lzma
import math
import re
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from .arrays import ArrayPart, ArraySource, rows_per_block
from .compressed import most_content

_IMAGES = ("images", "image", "imgs", "img", "x", "data", "arr_0")
_LABELS = ("labels", "label", "y", "targets", "target", "arr_1")
_SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_WORD = re.compile(r"[_\-.]")
_LARGEST_IMAGE = 50_000_000  # pixels; a damaged header may claim any number
_LARGEST_LABELS = 1 << 30  # bytes
_NPY = b"\x93NUMPY"
_ZIP = b"PK\x03\x04"
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    NotImplementedError,
    RuntimeError,
    EOFError,
    UnicodeDecodeError,
)
_HEADER_ERRORS = (  # numpy parses a header as Python, and does not turn all that this may raise into a ValueError
    ValueError,
    KeyError,
    TypeError,
    SyntaxError,
    RecursionError,
    MemoryError,
    tokenize.TokenError,
)


class _Array(NamedTuple):
    """One array as its header describes it. `member` is its name in an npz file, None for an npy file."""

    file: Path
    member: str | None
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def name(self) -> str:
        """File and array as samples are named after it."""
        return self.file.name if self.member is None else f"{self.file.name}/{self.member.removesuffix('.npy')}"


def is_npz(path: Path) -> bool:
    """Whether a file is a zip whose members are all arrays."""
    return _begins(path, _ZIP) and path.suffix == ".npz"


def is_npy(path: Path) -> bool:
    """Whether a file is an array, or a folder holds some."""
    if path.is_dir():
        return any(_begins(file, _NPY) for file in path.glob("*.npy"))
    return _begins(path, _NPY)


def _begins(path: Path, magic: bytes) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(magic)) == magic


def open_npy(
    path: Path,
    *,
    split: str | None = None,
    image_key: str | None = None,
    label_key: str | None = None,
    labels: Path | None = None,
) -> ArraySource:
    """Open arrays: uint8 images (N, H, W), (N, H, W, 1 or 3) or (N, 1 or 3, H, W), integer labels (N,) or (N, 1).

    Args:
        path: an npz file, an npy file of images, or a folder of npy files.
        split: which of several, as in "x_train" or "val_images".
        image_key: name of the array of images; None for a usual one ("images", "x_train", ...).
        label_key: name of the array of labels; None for a usual one ("labels", "y_train", ...).
        labels: an npy file of labels; None for the array in `path`, or beside it.

    Raises:
        ValueError: if an array is missing, of another type or shape, or damaged.
    """
    arrays = _arrays_in(path)
    if path.suffix == ".npy" and path.is_file() and image_key is None:
        image_key = path.stem
    image = _choose(arrays, image_key, _IMAGES, split, "image", path)
    label = (
        _header_of(labels, None) if labels is not None else _choose(arrays, label_key, _LABELS, split, "label", path)
    )
    shape, is_planar = _image_shape(image)
    _require_content(image)
    part = ArrayPart(image.name, image.shape[0], shape, partial(_blocks, image, shape, is_planar))
    files = sorted({image.file, label.file})
    selection = f"{image.name} {label.name}"
    source_format = "npz" if image.member else "npy"
    return ArraySource(path, source_format, [part], _read_labels(label), None, files=files, selection=selection)


def _arrays_in(path: Path) -> dict[str, _Array]:
    """Headers of all arrays, by name."""
    if path.suffix != ".npz":
        folder = path if path.is_dir() else path.parent
        return {file.stem: _header_of(file, None) for file in sorted(folder.glob("*.npy")) if _begins(file, _NPY)}
    with _zip(path) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".npy"))
    return {name.removesuffix(".npy"): _header_of(path, name) for name in names}


def _choose(
    arrays: dict[str, _Array], wanted: str | None, usual: Sequence[str], split: str | None, role: str, path: Path
) -> _Array:
    """The array for a role ("image", "label")."""
    known = ", ".join(sorted(arrays)) or "none"
    if wanted is not None:
        if wanted not in arrays:
            raise ValueError(f"{role}_column must be an array in {path} ({known}), got {wanted!r}")
        return arrays[wanted]
    fitting = [key for key in arrays if _meaning(key)[0] in usual]
    splits = sorted({_meaning(key)[1] or "none" for key in fitting})
    if split is None and len(splits) > 1:
        raise ValueError(f"split must be named (--split NAME), got none; {path} holds several: {', '.join(splits)}")
    fitting = [key for key in fitting if split is None or _meaning(key)[1] == _SPLITS.get(split, split)]
    if not fitting:
        raise ValueError(
            f"{role}_column must be named (--{role}-column NAME), got no array called {usual[0]} or the like"
            f"{f' of split {split!r}' if split else ''} in {path} ({known})"
        )
    return arrays[min(fitting, key=lambda key: usual.index(_meaning(key)[0]))]


def _meaning(key: str) -> tuple[str, str | None]:
    """What an array is, and its split: "x_train" is ("x", "train"), "val_images" is ("images", "val")."""
    if key in ("arr_0", "arr_1"):
        return key, None
    words = [word.lower() for word in _WORD.split(key)]
    split = next((_SPLITS[word] for word in words if word in _SPLITS), None)
    return "_".join(word for word in words if word not in _SPLITS), split


@contextmanager
def _zip(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (*_ZIP_ERRORS, OSError) as error:
        # A damaged directory leads before the file (EINVAL), and damaged bz2 is an OSError without a number.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        raise ValueError(f"npz file must be a whole zip, got {path}: {error}; copy or download it again") from None


@contextmanager
def _opened(file: Path, member: str | None) -> Iterator[IO[bytes]]:
    if member is None:
        with file.open("rb") as stream:
            yield stream
    else:
        with _zip(file) as archive, archive.open(member) as stream:
            yield stream


def _header_of(file: Path, member: str | None) -> _Array:
    with _opened(file, member) as stream:
        shape, dtype = _read_header(stream, _Array(file, member, (), np.dtype("u1")).name)
        return _Array(file, member, shape, dtype)


def _read_header(stream: IO[bytes], name: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type; afterwards the stream is at the values."""
    try:
        version = npy_format.read_magic(stream)
        read: Callable = {(1, 0): npy_format.read_array_header_1_0, (2, 0): npy_format.read_array_header_2_0}[version]
        shape, is_fortran, dtype = read(stream)
    except _HEADER_ERRORS as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"array must begin with a header of numpy, got {name}: {reason}") from None
    if min(shape, default=0) < 0:
        raise ValueError(f"array must have no negative dimension, got shape {shape} in {name}")
    if is_fortran and len(shape) > 1:
        raise ValueError(f"array must be in C order, got Fortran order in {name}; save numpy.ascontiguousarray of it")
    return shape, dtype


def _image_shape(image: _Array) -> tuple[tuple[int, int, int], bool]:
    """(height, width, channels), and whether the channels come first."""
    if image.dtype != np.uint8:
        raise ValueError(f"images must be uint8 in 0..255, got {image.dtype} in {image.name}; convert them first")
    shape = (*image.shape, 1) if len(image.shape) == 3 else image.shape
    is_planar = len(shape) == 4 and shape[3] not in (1, 3) and shape[1] in (1, 3)
    if is_planar:
        shape = (shape[0], shape[2], shape[3], shape[1])
    if len(shape) != 4 or shape[3] not in (1, 3) or min(shape[1:]) < 1:
        raise ValueError(
            "images must have shape (N, H, W), (N, H, W, 1 or 3) or (N, 1 or 3, H, W), "
            f"got {image.shape} in {image.name}"
        )
    if shape[1] * shape[2] > _LARGEST_IMAGE:
        raise ValueError(f"images must have at most {_LARGEST_IMAGE} pixels, got {image.shape} in {image.name}")
    return (shape[1], shape[2], shape[3]), is_planar


def _require_content(array: _Array) -> None:
    """Raise if an array cannot have the shape that it claims, by the bytes that are there of it."""
    size = math.prod(array.shape) * array.dtype.itemsize
    if array.member is None:
        most = array.file.stat().st_size
    else:
        with _zip(array.file) as archive:
            stored = archive.getinfo(array.member)
        if stored.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            return
        # The directory may lie about a member, but none is larger than the whole file.
        compressed = min(stored.compress_size, array.file.stat().st_size)
        most = most_content(compressed, deflated=stored.compress_type == zipfile.ZIP_DEFLATED)
    if size > most:
        raise ValueError(f"array must have shape {array.shape}, got room for {most} of {size} bytes in {array.name}")


def _blocks(image: _Array, shape: tuple[int, int, int], is_planar: bool) -> Iterator[NDArray[np.uint8]]:  # noqa: FBT001
    """See `ArrayPart`."""
    height, width, channels = shape
    stored = (channels, height, width) if is_planar else shape
    size = height * width * channels
    with _opened(image.file, image.member) as stream:
        _read_header(stream, image.name)
        step = rows_per_block(shape)
        for first in range(0, image.shape[0], step):
            count = min(step, image.shape[0] - first)
            block = np.frombuffer(_exactly(stream, count * size, image), np.uint8).reshape(count, *stored)
            yield block.transpose(0, 2, 3, 1) if is_planar else block
        _require_end(stream, image)


def _read_labels(label: _Array) -> NDArray[np.int64]:
    shape = label.shape[:1] if len(label.shape) == 2 and label.shape[1] == 1 else label.shape
    if len(shape) != 1 or label.dtype.kind not in "iu":
        raise ValueError(
            f"labels must be whole numbers of shape (N,) or (N, 1), got {label.dtype} of shape {label.shape} "
            f"in {label.name}"
        )
    size = shape[0] * label.dtype.itemsize
    if size > _LARGEST_LABELS:
        raise ValueError(f"labels must be at most {_LARGEST_LABELS} bytes, got {size} in {label.name}")
    with _opened(label.file, label.member) as stream:
        _read_header(stream, label.name)
        values = np.frombuffer(_exactly(stream, size, label), label.dtype)
        _require_end(stream, label)
    return values.astype(np.int64)


def _exactly(stream: IO[bytes], size: int, array: _Array) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise ValueError(f"array must have shape {array.shape}, got {len(data)} of {size} bytes in {array.name}")
    return data


def _require_end(stream: IO[bytes], array: _Array) -> None:
    """Raise if there is more; in a zip, reading the end is also what checks the checksum."""
    if stream.read(1):
        raise ValueError(f"array must have shape {array.shape}, got more bytes in {array.name}")
