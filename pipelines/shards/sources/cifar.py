"""CIFAR-10 and CIFAR-100 as published: the Python and the binary version, unpacked or as the tar.gz they come in."""

import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .arrays import ArrayPart, ArraySource
from .compressed import is_gzip, tar_gz_files
from .plain_pickle import load_plain_pickle, plain_array

_SHAPE = (32, 32, 3)
_PIXELS = 32 * 32 * 3
_ARCHIVE = re.compile(r"cifar-(10|100)-(python|binary)\.tar\.gz")
_LARGEST_FILE = 256 << 20  # bytes; the largest as published has 155 MB


class _Version(NamedTuple):
    """How one of the four published versions is laid out.

    Attributes:
        splits: files of each split.
        labels: names of the labels: in the pickles, or in the order of the bytes before the pixels of a record.
        names: where the class names are: for each label a key of the pickle `meta`, or a text file.
        meta: the pickle of class names; None for the binary version.
    """

    splits: dict[str, tuple[str, ...]]
    labels: tuple[str, ...]
    names: tuple[str, ...]
    meta: str | None


_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
_VERSIONS = {
    ("10", "python"): _Version(
        splits={"train": _BATCHES, "test": ("test_batch",)},
        labels=("labels",),
        names=("label_names",),
        meta="batches.meta",
    ),
    ("10", "binary"): _Version(
        splits={"train": tuple(f"{name}.bin" for name in _BATCHES), "test": ("test_batch.bin",)},
        labels=("labels",),
        names=("batches.meta.txt",),
        meta=None,
    ),
    ("100", "python"): _Version(
        splits={"train": ("train",), "test": ("test",)},
        labels=("fine_labels", "coarse_labels"),
        names=("fine_label_names", "coarse_label_names"),
        meta="meta",
    ),
    ("100", "binary"): _Version(
        splits={"train": ("train.bin",), "test": ("test.bin",)},
        labels=("coarse_labels", "fine_labels"),
        names=("coarse_label_names.txt", "fine_label_names.txt"),
        meta=None,
    ),
}


def is_cifar(path: Path) -> bool:
    """Whether a folder holds CIFAR by its published file names, or a file is named like the archive."""
    return _version_of(path) is not None


def open_cifar(path: Path, *, split: str | None = None, label: str | None = None) -> ArraySource:
    """Open CIFAR.

    Args:
        path: the unpacked folder, or the tar.gz.
        split: "train" or "test".
        label: of CIFAR-100, "fine_labels" (default) or "coarse_labels".

    Raises:
        ValueError: if the split is not named, a file is damaged or missing, or its pickle holds anything but arrays
            and plain data.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split must be named (--split train or --split test), got {split or 'none'} for {path}")
    version = _version_of(path)
    if version is None:
        raise ValueError(f"source must be CIFAR as published, a folder or cifar-*.tar.gz, got {path}")
    label = _label(version, label)
    files = version.splits[split]
    labels = [_labels(path, name, version, label) for name in files]
    return ArraySource(
        path,
        "cifar",
        [
            ArrayPart(name, len(numbers), _SHAPE, partial(_blocks, path, name, version))
            for name, numbers in zip(files, labels, strict=True)
        ],
        np.concatenate(labels),
        _class_names(path, version, label),
        files=[path] if path.is_file() else [path / name for name in (*files, _names_file(version, label))],
        selection=f"{split} {label}",
    )


def _version_of(path: Path) -> _Version | None:
    """The version by the name of the archive, or by the files in the folder."""
    if path.is_file():
        match = _ARCHIVE.fullmatch(path.name)
        return _VERSIONS[match[1], match[2]] if match and is_gzip(path) else None
    for version in _VERSIONS.values():
        if all((path / name).is_file() for name in (*version.splits["train"], version.meta or version.names[0])):
            return version
    return None


def _label(version: _Version, label: str | None) -> str:
    wanted = label or ("fine_labels" if "fine_labels" in version.labels else version.labels[0])
    for name in (wanted, f"{wanted}s"):
        if name in version.labels:
            return name
    raise ValueError(f"label_column must be one of {', '.join(sorted(version.labels))}, got {label!r}")


def _file_of(path: Path, name: str) -> bytes:
    """Content of a file in the folder, or in the archive."""
    if path.is_file():
        content = tar_gz_files(path, lambda found: found == name).get(name)
        if content is None:
            raise ValueError(f"archive must hold {name}, got {path} without")
        return content
    size = (path / name).stat().st_size
    if size > _LARGEST_FILE:
        raise ValueError(f"file must be at most {_LARGEST_FILE} bytes as published, got {size} in {path / name}")
    return (path / name).read_bytes()


def _table(path: Path, name: str, version: _Version) -> dict[str, Any]:
    """Pixels uint8 (n, 3072) under "data", and labels (n,) under their names."""
    content = _file_of(path, name)
    origin = f"{name} of {path}"
    if version.meta is None:
        width = len(version.labels) + _PIXELS
        if not content or len(content) % width:
            raise ValueError(f"file must hold records of {width} bytes, got {len(content)} bytes in {origin}")
        records = np.frombuffer(content, np.uint8).reshape(-1, width)
        columns = {label: records[:, place].astype(np.int64) for place, label in enumerate(version.labels)}
        return {"data": records[:, len(version.labels) :], **columns}
    batch = _text_keys(load_plain_pickle(content, origin), origin)
    pixels = plain_array(batch.get("data"), origin)
    if pixels.ndim != 2 or pixels.shape[1] != _PIXELS:
        raise ValueError(f"images must be rows of {_PIXELS} values, got shape {pixels.shape} in {origin}")
    columns = {label: _whole_numbers(batch.get(label), len(pixels), origin) for label in version.labels}
    return {"data": pixels, **columns}


def _text_keys(content: object, origin: str) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise ValueError(f"pickle must hold a dict, got {type(content).__name__} in {origin}")
    return {_text(key): value for key, value in content.items()}


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _whole_numbers(values: object, count: int, origin: str) -> NDArray[np.int64]:
    if not isinstance(values, list) or not all(type(value) is int and 0 <= value < 256 for value in values):
        raise ValueError(f"labels must be a list of whole numbers, got another value in {origin}")
    if len(values) != count:
        raise ValueError(f"labels must be as many as images, {count}, got {len(values)} in {origin}")
    return np.array(values, np.int64)


def _labels(path: Path, name: str, version: _Version, label: str) -> NDArray[np.int64]:
    return _table(path, name, version)[label]


def _blocks(path: Path, name: str, version: _Version) -> Iterator[NDArray[np.uint8]]:
    """See `ArrayPart`; the pixels lie in the files as (3, 32, 32)."""
    pixels = _table(path, name, version)["data"]
    for first in range(0, len(pixels), 4096):
        yield pixels[first : first + 4096].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


def _names_file(version: _Version, label: str) -> str:
    return version.meta or version.names[version.labels.index(label)]


def _class_names(path: Path, version: _Version, label: str) -> tuple[str, ...]:
    key = version.names[version.labels.index(label)]
    if version.meta is None:
        names: Sequence[object] = _file_of(path, key).decode("utf-8", "replace").split()
    else:
        origin = f"{version.meta} of {path}"
        found = _text_keys(load_plain_pickle(_file_of(path, version.meta), origin), origin).get(key)
        names = found if isinstance(found, list) else []
    if not names:
        raise ValueError(f"class names must lie beside the images, got none under {key} in {path}")
    return tuple(_text(name) for name in names)
