"""Images in uncompressed tars, read where they lie: ILSVRC2012 as published, and the tar of an image folder."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..containers.container import Problem
from ..containers.tar import BLOCK, TarMember, tar_members
from .folder import EXTENSIONS
from .imagenet_labels import find_labels, label_files, validation_labels
from .spool import Extents, FileStamp, stamp_of

TRAIN_TAR = "ILSVRC2012_img_train.tar"
VALIDATION_TAR = "ILSVRC2012_img_val.tar"
_SPLITS = {"train": TRAIN_TAR, "val": VALIDATION_TAR}
_CLASS_TAR = re.compile(r"(n\d{8})\.tar")
_VALIDATION_IMAGE = re.compile(r"ILSVRC2012_val_\d{8}\.JPEG")
_MAGIC = slice(257, 262)


def is_tar(path: Path) -> bool:
    """Whether a file begins with the header of a tar, POSIX or GNU."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(BLOCK)[_MAGIC] == b"ustar"


def _files(path: Path, within: TarMember | None = None) -> Iterator[TarMember]:
    """Every file in a tar that is not hidden; raises if there is anything but files and folders below it."""
    for found in tar_members(path, within):
        if isinstance(found, Problem):
            raise ValueError(
                f"archive must be whole and hold nothing but files and folders below it, got {path}: at byte "
                f"{found.offset}, {found.reason}; nothing was unpacked"
            )
        parts = [part for part in found.name.split("/") if part not in ("", ".")]
        if parts and not any(part.startswith(".") for part in parts):
            yield found._replace(name="/".join(parts))


class TarSource:
    """Labelled images in one tar, named as they would be if the tar were unpacked.

    Args:
        root: the tar.
        format: "imagenet" or "tar".
        members: the images: names as they are to be kept, and where they lie.
        labels: class of each, int64 (num_samples,).
        classes: class names.
        also: other files that the labels depend on.

    Raises:
        ValueError: if there is no image, or a name twice.
    """

    def __init__(
        self,
        root: Path,
        format: str,
        members: Sequence[TarMember],
        labels: NDArray[np.int64],
        classes: tuple[str, ...],
        also: Sequence[Path] = (),
    ) -> None:
        self.root = root
        self.format = format
        self.labels = labels
        self.classes = classes
        self._names = [member.name for member in members]
        self._places = np.array([(member.offset, member.size) for member in members], np.int64).reshape(-1, 2)
        self._files = (root, *also)
        if not members:
            raise ValueError(f"source must hold images, got none in {root}")
        if len(set(self._names)) < len(members):
            ((name, times),) = Counter(self._names).most_common(1)
            raise ValueError(f"archive must hold every name once, got {name} {times} times in {root}")

    def stamps(self) -> list[FileStamp]:
        """See `Source`: the tar, and the files of labels."""
        return [stamp_of(file, file.parent) for file in self._files]

    def names(self, rows: Sequence[int]) -> list[str]:
        """Paths as in the unpacked archive."""
        return [self._names[row] for row in rows]

    def extents(self, work: Path, executor: Executor | None, report: Callable[[int, int], None]) -> Extents:
        """Every image where it lies in the tar."""
        files = np.zeros(len(self._names), np.int64)
        return Extents([str(self.root)], files, self._places[:, 0], self._places[:, 1])


def is_imagenet(path: Path) -> bool:
    """Whether a file is one of the two tars of ILSVRC2012, by what lies in it first, or a folder holds one by name."""
    if path.is_dir():
        return any((path / name).is_file() for name in _SPLITS.values())
    first = next(_files(path), None) if is_tar(path) else None
    return first is not None and any(
        pattern.fullmatch(first.name) is not None for pattern in (_CLASS_TAR, _VALIDATION_IMAGE)
    )


def open_imagenet(path: Path, *, split: str | None = None, labels: Path | None = None) -> TarSource:
    """Open ILSVRC2012 as published: the training tar of tars, or the flat validation tar.

    The classes are the WordNet ids in their order, as in an image folder of the unpacked files and in torchvision.

    Args:
        path: the tar, or a folder that holds it under its published name.
        split: "train" or "val"; None if `path` is a tar, or holds one.
        labels: labels of the validation images, see `imagenet_labels`; None to look beside the tar.

    Raises:
        ValueError, OSError: if the archive is damaged, or is another, or a label is missing.
    """
    if path.is_dir():
        path = _tar_of_split(path, split)
    elif split not in (None, *_SPLITS):
        raise ValueError(f"split must be train or val, got {split!r}")
    first = next(_files(path), None)
    is_train = first is not None and _CLASS_TAR.fullmatch(first.name) is not None
    if split is not None and is_train != (split == "train"):
        raise ValueError(f"split must be that of the tar, got {split!r} for {path}")
    if is_train:
        if labels is not None:
            raise ValueError(f"labels must be left out for the training tar, whose files name them, got {labels}")
        members = sorted(_training_members(path))
        return _by_folder(path, "imagenet", members)
    members = sorted(_images(_files(path)))
    file = labels or find_labels(path.parent)
    numbers, classes = validation_labels([member.name for member in members], file)
    return TarSource(path, "imagenet", members, numbers, classes, also=label_files(file))


def _tar_of_split(folder: Path, split: str | None) -> Path:
    there = [name for name, tar in _SPLITS.items() if (folder / tar).is_file()]
    if split is None and len(there) == 1:
        split = there[0]
    if split not in there:
        named = "none" if split is None else repr(split)
        raise ValueError(f"split must be named (--split NAME) of {folder}, which holds {', '.join(there)}, got {named}")
    return folder / _SPLITS[split]


def _training_members(path: Path) -> Iterator[TarMember]:
    """Images of a tar of tars, one per class, each under the name of its class."""
    for member in _files(path):
        match = _CLASS_TAR.fullmatch(member.name)
        if match is None:
            raise ValueError(
                f"ILSVRC2012's training tar must hold nNNNNNNNN.tar files only, got {member.name} in {path}"
            )
        empty = True
        for image in _images(_files(path, member)):
            empty = False
            yield image._replace(name=f"{match[1]}/{image.name}")
        if empty:  # without it, all classes behind it would move up by one
            raise ValueError(f"every class must have an image, got none in {member.name} of {path}")


def _images(members: Iterator[TarMember]) -> Iterator[TarMember]:
    return (member for member in members if member.name.rpartition(".")[2].lower() in EXTENSIONS)


def _by_folder(root: Path, format: str, members: Sequence[TarMember]) -> TarSource:
    """A source whose classes are the uppermost folders; `members` sorted by name."""
    folders = [member.name.split("/", 1)[0] for member in members]
    classes = tuple(name for name, _ in groupby(folders))
    numbers = {name: number for number, name in enumerate(classes)}
    return TarSource(root, format, members, np.array([numbers[name] for name in folders], np.int64), classes)


def open_tar(path: Path) -> TarSource:
    """Open the tar of an image folder, `class/**/image` or `any/folders/class/**/image`.

    Folders that every image lies in are passed over; of what follows, the first is the class.

    Raises:
        ValueError: if the archive is damaged, or an image lies in no folder.
    """
    members = list(_images(_files(path)))
    while members and len({member.name.split("/", 1)[0] for member in members}) == 1:
        if any(member.name.count("/") < 2 for member in members):
            break
        members = [member._replace(name=member.name.split("/", 1)[1]) for member in members]
    loose = [member.name for member in members if "/" not in member.name]
    if loose:
        raise ValueError(
            f"tar must hold one folder per class (class/image.jpg), got {len(loose)} images in none in {path} "
            f"(first: {loose[0]})"
        )
    # As an image folder is sorted: by class, then by path, where "/" sorts as any other character.
    return _by_folder(path, "tar", sorted(members, key=lambda member: tuple(member.name.split("/", 1))))
