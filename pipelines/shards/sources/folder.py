"""Image folders: `root/class/**/image`, one class per subfolder of the root."""

import errno
import os
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# What DALI's CPU decoder decodes (checked on 2.4.0); it does not decode GIF.
EXTENSIONS = frozenset({"jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "ppm", "pgm", "pnm", "jp2"})
_TRAINING = ("train", "training")
_SPLITS = frozenset({*_TRAINING, "val", "valid", "validation", "test", "testing", "eval", "dev"})


def scan_image_folder(
    root: str | os.PathLike[str], *, empty_classes: bool = False
) -> tuple[list[str], NDArray[np.int64], tuple[str, ...]]:
    """List the images of a folder whose subfolders are the classes.

    Classes are the subfolders of `root` sorted by name; images may lie deeper. Hidden files and folders are
    skipped, and so is every file whose extension (in any case) is not in `EXTENSIONS`.

    Args:
        root: the folder.
        empty_classes: allow subfolders without an image.

    Returns:
        paths (root included, sorted within a class), their labels int64 (num_images,), and the class names.

    Raises:
        FileNotFoundError: if `root` does not exist, or holds no image.
        NotADirectoryError: if `root` is not a folder.
        ValueError: if images lie directly in `root`, there is no subfolder, one of them holds no image that must, or
            they are the splits of a data set (train, val, ...) whose classes lie one level deeper.
    """
    root = os.fspath(root)
    if not Path(root).exists():
        raise FileNotFoundError(f"image folder must exist, got {root}; check the path")
    if not Path(root).is_dir():
        advice = _advice(Counter([_extension(root)]))
        raise NotADirectoryError(f"image folder must be a folder, got the file {root}{advice}")
    classes = _class_names(root)
    _refuse_splits(root, classes)
    paths: list[str] = []
    counts: list[int] = []
    skipped: Counter[str] = Counter()
    for name in classes:
        found = sorted(_images(os.path.join(root, name), skipped))  # noqa: PTH118 - pathlib is 5 times slower here
        paths += found
        counts.append(len(found))
    _require_images(root, classes, counts, skipped, empty_classes=empty_classes)
    return paths, np.repeat(np.arange(len(classes), dtype=np.int64), counts), classes


def status_of(path: str) -> os.stat_result:
    """Status of an image file; of the link itself for one that leads nowhere, which is listed like a file.

    Raises:
        OSError: if it is gone.
    """
    try:
        return os.stat(path)  # noqa: PTH116 - a Path for each of millions of files would cost seconds
    except OSError:
        link = os.lstat(path)
        if not stat.S_ISLNK(link.st_mode):
            raise
        return link


def _class_names(root: str) -> tuple[str, ...]:
    """Sorted names of the subfolders of `root`; raises if there is none."""
    with os.scandir(root) as listing:
        entries = [entry for entry in listing if not entry.name.startswith(".")]
    folders = sorted(entry.name for entry in entries if entry.is_dir())
    loose = sorted(entry.name for entry in entries if _extension(entry.name) in EXTENSIONS and entry.is_file())
    layout = "move each image into a subfolder named after its class (root/class/image.jpg)"
    if loose:
        raise ValueError(
            f"image folder must hold one subfolder per class, got {len(loose)} images directly in {root} "
            f"(first: {loose[0]}); {layout}"
        )
    if not entries:
        raise FileNotFoundError(f"image folder must hold images, got the empty folder {root}")
    if not folders:
        advice = _advice(Counter(_extension(entry.name) for entry in entries)) or f"; {layout}"
        raise ValueError(f"image folder must hold one subfolder per class, got none in {root}{advice}")
    return tuple(folders)


def _refuse_splits(root: str, classes: tuple[str, ...]) -> None:
    """Raise if the subfolders are splits: by their names, and because the training split holds folders only."""
    splits = [name for name in classes if name.lower() in _SPLITS]
    training = next((name for name in splits if name.lower() in _TRAINING), None)
    if training is None or len(splits) < min(2, len(classes)):
        return
    with os.scandir(Path(root, training)) as listing:
        entries = [entry for entry in listing if not entry.name.startswith(".")]
    images = any(_extension(entry.name) in EXTENSIONS for entry in entries if not entry.is_dir())
    if not images and any(entry.is_dir() for entry in entries):
        raise ValueError(
            f"image folder must hold one subfolder per class, got the splits {', '.join(splits)} in {root}; "
            f"name one of the splits, such as {Path(root, training)}"
        )


def _advice(extensions: Counter[str]) -> str:
    """What to do about files that are no images but hold some, by their extensions; empty if there are none."""
    if extensions["parquet"]:
        return "; run softfeed convert first, which reads Parquet files"
    if extensions["tar"]:
        return "; a shard set has a dataset.json beside its tars: copy it whole, or run softfeed convert on the images"
    return ""


def _images(folder: str, skipped: Counter[str], above: tuple[str, ...] = ()) -> Iterator[str]:
    """Image files below `folder`; counts the extensions of other files in `skipped`."""
    with os.scandir(folder) as listing:
        for entry in listing:
            if entry.name.startswith("."):
                continue
            if _is_folder(entry):
                if entry.is_symlink() and os.path.realpath(entry.path) in map(os.path.realpath, (*above, folder)):
                    raise ValueError(f"image folder must not loop, got {entry.path} linking to a folder above it")
                yield from _images(entry.path, skipped, (*above, folder))
            elif _extension(entry.name) in EXTENSIONS:
                yield entry.path
            else:
                skipped[_extension(entry.name)] += 1


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        return False  # a link to itself is no more than one that leads nowhere


def _extension(name: str) -> str:
    return name.rpartition(".")[2].lower()


def _require_images(
    root: str, classes: tuple[str, ...], counts: list[int], skipped: Counter[str], *, empty_classes: bool
) -> None:
    """Raise if there is no image at all, or none in some class that must have one."""
    known = ", ".join(sorted(EXTENSIONS))
    if not any(counts):
        others = ", ".join(f"{count} .{extension}" for extension, count in sorted(skipped.items())) or "no file"
        raise FileNotFoundError(f"image folder must hold images ({known}), got {others} below {root}{_advice(skipped)}")
    empty = [name for name, count in zip(classes, counts, strict=True) if not count]
    if empty and not empty_classes:
        raise ValueError(
            f"every class folder must hold an image ({known}), got none in {len(empty)} of {len(classes)} "
            f"(first: {empty[0]}) in {root}; fill or remove them, "
            "and where the labels of other classes must not move up for that, as in validation, give the loader the "
            "classes of the training set: Loader(classes=train_loader.classes)"
        )
