"""Labels of the ILSVRC2012 validation images, from any of the files that they are published in.

- the development kit, packed (`ILSVRC2012_devkit_t12.tar.gz`) or unpacked: numbers that `meta.mat` turns into ids;
- its `ILSVRC2012_validation_ground_truth.txt` with `meta.mat` beside it;
- Kaggle's `LOC_val_solution.csv`;
- any text or CSV file with a line `image label` or `image,label` per image, or with one WordNet id per line for the
  images sorted by name. A label is a WordNet id, or the number of the class from 0.
"""

import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .compressed import is_gzip, tar_gz_files

_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
_META = "meta.mat"
_WELL_KNOWN = (
    "LOC_val_solution.csv",
    "ILSVRC2012_devkit_t12.tar.gz",
    "ILSVRC2012_devkit_t12",
    _TRUTH,
)
_SYNSETS = "LOC_synset_mapping.txt"
_WORDNET_ID = re.compile(r"n\d{8}")
_MANY_CLASSES = 1_000_000  # a number above is none of a class
_LARGEST_FILE = 64 << 20  # bytes of a list of labels; that of 50,000 images has 3 MB


def find_labels(folder: Path) -> Path:
    """File or folder of labels that lies in `folder` under its published name.

    Raises:
        FileNotFoundError: if there is none.
    """
    for name in _WELL_KNOWN:
        if (folder / name).exists():
            return folder / name
    raise FileNotFoundError(
        "labels of the validation images must be given (--labels FILE), "
        f"got none of {', '.join(_WELL_KNOWN)} in {folder}"
    )


def label_files(labels: Path) -> list[Path]:
    """Every file that `validation_labels` may read the labels or classes from."""
    if labels.is_dir():
        truth = _truth_in(labels)
        return [truth, truth.with_name(_META)]
    beside = (labels.with_name(name) for name in (_META, _SYNSETS))
    return [labels, *(path for path in beside if path.is_file())]


def validation_labels(images: Sequence[str], labels: Path) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Labels of images, and the class names.

    Args:
        images: file names, sorted.
        labels: file or folder, see above.

    Returns:
        labels int64 (len(images),) and the classes: WordNet ids in their order, or numbers where the file has no ids.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if a label is missing or no label, or the numbers of the development kit lack their `meta.mat`.
    """
    kit = _development_kit(labels)
    if kit is not None:
        truth, meta = kit
        return _by_kit_numbers(images, truth.split(), meta, labels)
    lines = _rows(_text(labels))
    if not lines:
        _require_count([], images, labels)
    if all(len(line) == 1 for line in lines) and all(line[0].isdecimal() for line in lines):
        return _by_kit_numbers(images, [line[0] for line in lines], _meta_beside(labels), labels)
    if all(len(line) == 1 for line in lines):
        values = [line[0] for line in lines]
        _require_count(values, images, labels)
    else:
        named = {Path(line[0]).stem: line[1] for line in lines if len(line) >= 2}
        values = [named.get(Path(image).stem, "") for image in images]
        missing = [image for image, value in zip(images, values, strict=True) if not value]
        if missing:
            raise ValueError(
                f"labels must name every image, got {len(missing)} without (first: {missing[0]}) in {labels}"
            )
    return _numbered(values, labels)


def _development_kit(path: Path) -> tuple[str, bytes] | None:
    """Ground truth and meta.mat of the kit, packed or unpacked; None if `path` is something else."""
    if path.is_dir():
        truth = _truth_in(path)
        return _text(truth), _meta_beside(truth)
    if not is_gzip(path):
        return None
    files = tar_gz_files(path, lambda name: name in (_TRUTH, _META))
    if len(files) < 2:
        raise ValueError(f"labels must be the development kit with {_TRUTH} and {_META}, got {path} without")
    return files[_TRUTH].decode("ascii", "replace"), files[_META]


def _truth_in(kit: Path) -> Path:
    return (kit / "data" if (kit / "data").is_dir() else kit) / _TRUTH


def _meta_beside(truth: Path) -> bytes:
    path = truth.with_name(_META)
    if not path.is_file():
        raise ValueError(f"labels that are numbers of the development kit must have {_META} beside them, got {truth}")
    return path.read_bytes()


def _text(path: Path) -> str:
    if (size := path.stat().st_size) > _LARGEST_FILE:
        raise ValueError(f"labels must be a list of at most {_LARGEST_FILE} bytes, got {size} in {path}")
    return path.read_text(encoding="utf-8", errors="replace")


def _rows(text: str) -> list[list[str]]:
    """Words of every line that is neither empty nor a heading, at blanks and commas."""
    rows = [line.replace(",", " ").split() for line in text.splitlines()]
    rows = [row for row in rows if row]
    heading = bool(rows) and len(rows[0]) >= 2 and not _is_label(rows[0][1])
    return rows[1:] if heading else rows


def _is_label(word: str) -> bool:
    return word.isdecimal() or _WORDNET_ID.fullmatch(word) is not None


def _require_count(values: Sequence[str], images: Sequence[str], labels: Path) -> None:
    if len(values) != len(images):
        raise ValueError(f"labels must be as many as images, {len(images)}, got {len(values)} in {labels}")


def _by_kit_numbers(
    images: Sequence[str], numbers: Sequence[str], meta: bytes, labels: Path
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Labels from the numbers of the development kit, which are not in the order of the ids."""
    _require_count(numbers, images, labels)
    ids = _ids_of_numbers(meta, labels)
    classes = tuple(sorted(ids.values()))
    position = {name: number for number, name in enumerate(classes)}
    unknown = sorted({number for number in numbers if not number.isdecimal() or int(number) not in ids})
    if unknown:
        raise ValueError(f"labels must be numbers in {_META}, got {unknown[0]!r} in {labels}")
    return np.array([position[ids[int(number)]] for number in numbers], np.int64), classes


def _ids_of_numbers(meta: bytes, labels: Path) -> dict[int, str]:
    """WordNet id of each ILSVRC2012_ID that has no children, from `meta.mat`."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        synsets = loadmat(io.BytesIO(meta), squeeze_me=True, variable_names=["synsets"])["synsets"]
        return {
            int(row["ILSVRC2012_ID"]): str(row["WNID"])
            for row in np.atleast_1d(synsets)
            if not int(row["num_children"])
        }
    except (MatReadError, OSError, KeyError, ValueError, TypeError, IndexError) as error:
        raise ValueError(f"{_META} must be that of the development kit, got {error!r} with {labels}") from None


def _numbered(values: Sequence[str], labels: Path) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Class numbers and names for labels that are WordNet ids or class numbers."""
    wrong = next((value for value in values if not _is_label(value)), None)
    is_number = {value.isdecimal() for value in values}
    if wrong is not None or len(is_number) > 1:
        raise ValueError(f"labels must be WordNet ids, or numbers, got {wrong or 'both'} in {labels}")
    known = _known_ids(labels)
    if is_number == {True}:
        greatest = max(map(int, values))
        if greatest >= (len(known) or _MANY_CLASSES):
            raise ValueError(f"labels must be below {len(known) or _MANY_CLASSES}, got {greatest} in {labels}")
        return np.array(values, np.int64), known or tuple(str(number) for number in range(greatest + 1))
    classes = known or tuple(sorted(set(values)))
    position = {name: number for number, name in enumerate(classes)}
    unknown = sorted(set(values) - set(classes))
    if unknown:
        raise ValueError(f"labels must be ids in {_SYNSETS}, got {unknown[0]} in {labels}")
    return np.array([position[value] for value in values], np.int64), classes


def _known_ids(labels: Path) -> tuple[str, ...]:
    """Sorted ids that Kaggle's list beside the labels names; empty if there is no such list."""
    path = labels.with_name(_SYNSETS)
    if not path.is_file():
        return ()
    return tuple(sorted(line.split()[0] for line in _text(path).splitlines() if line.strip()))
