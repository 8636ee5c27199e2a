import io
import os
import tarfile

import numpy as np
import pytest
from scipy.io import savemat
from softfeed.pipelines.shards.convert import convert
from softfeed.pipelines.shards.shard_set import load
from softfeed.pipelines.shards.sources.imagenet_labels import find_labels, validation_labels
from softfeed.pipelines.shards.sources.opening import SourceOptions, open_source

_IMAGES = tuple(f"ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, 6))
# The kit numbers the classes in another order than that of their ids; 4 is a group of classes.
_KIT_IDS = {1: "n02119789", 2: "n02100735", 3: "n01440764", 4: "n00001740"}
_NUMBERS = [3, 1, 1, 2, 3]
_CLASSES = ("n01440764", "n02100735", "n02119789")
_EXPECTED = [0, 2, 2, 1, 0]


def _meta():
    """meta.mat in the layout of the development kit."""
    fields = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "O")]
    synsets = np.zeros((len(_KIT_IDS), 1), dtype=fields)
    for row, (number, name) in enumerate(_KIT_IDS.items()):
        synsets[row, 0] = (number, name, f"word {number}", "a gloss", 0 if number < 4 else 3)
    file = io.BytesIO()
    savemat(file, {"synsets": synsets})
    return file.getvalue()


def _kit_folder(root):
    data = root / "ILSVRC2012_devkit_t12" / "data"
    data.mkdir(parents=True)
    (data / "meta.mat").write_bytes(_meta())
    (data / "ILSVRC2012_validation_ground_truth.txt").write_text("".join(f"{number}\n" for number in _NUMBERS))
    return data.parent


def _kit_archive(root):
    folder = _kit_folder(root / "unpacked")
    path = root / "ILSVRC2012_devkit_t12.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(folder, folder.name)
    return path


def _ground_truth(root):
    return _kit_folder(root) / "data" / "ILSVRC2012_validation_ground_truth.txt"


def _solution(root):
    path = root / "LOC_val_solution.csv"
    ids = [_KIT_IDS[number] for number in _NUMBERS]
    lines = [f"{image[:-5]},{name} 1 2 3 4 {name} 5 6 7 8 \n" for image, name in zip(_IMAGES, ids, strict=True)]
    path.write_text("ImageId,PredictionString\n" + "".join(reversed(lines)))
    return path


def _ids_by_name(root):
    path = root / "labels.txt"
    path.write_text("".join(f"{image} {_KIT_IDS[number]}\n" for image, number in zip(_IMAGES, _NUMBERS, strict=True)))
    return path


def _ids_in_order(root):
    path = root / "labels.txt"
    path.write_text("\n".join(_KIT_IDS[number] for number in _NUMBERS))
    return path


@pytest.mark.parametrize("write", [_kit_folder, _kit_archive, _ground_truth, _solution, _ids_by_name, _ids_in_order])
def test_every_published_form_gives_the_same_labels(tmp_path, write):
    labels, classes = validation_labels(_IMAGES, write(tmp_path))
    assert (labels.tolist(), classes) == (_EXPECTED, _CLASSES)


def test_numbers_of_classes(tmp_path):
    path = tmp_path / "val.txt"
    path.write_text("".join(f"{image} {label}\n" for image, label in zip(_IMAGES, _EXPECTED, strict=True)))
    labels, classes = validation_labels(_IMAGES, path)
    assert (labels.tolist(), classes) == (_EXPECTED, ("0", "1", "2"))
    (tmp_path / "LOC_synset_mapping.txt").write_text("n02119789 kit fox\nn01440764 tench, Tinca\nn02100735 setter\n")
    labels, classes = validation_labels(_IMAGES, path)
    assert (labels.tolist(), classes) == (_EXPECTED, _CLASSES)


@pytest.mark.parametrize("write", [_kit_folder, _kit_archive, _solution])
def test_labels_beside_the_tar_are_found(tmp_path, write):
    path = write(tmp_path)
    assert find_labels(tmp_path) == path


def test_none_beside_the_tar_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"must be given \(--labels FILE\), got none of LOC_val_solution.csv, "):
        find_labels(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ILSVRC2012_val_00000001 n01440764\n", "must name every image, got 4 without .first: ILSVRC2012_val_00000002"),
        ("n01440764\n" * 4, "must be as many as images, 5, got 4"),
        ("1\n" * 5, "numbers of the development kit must have meta.mat beside them"),
        ("cat\n" * 5, "must be WordNet ids, or numbers, got cat in"),
        ("n01440764\n" * 4 + "7x\n", "must be WordNet ids, or numbers, got 7x in"),
        ("".join(f"{image} 99999999\n" for image in _IMAGES), "labels must be below 1000000, got 99999999"),
        ("", "must be as many as images, 5, got 0"),
    ],
)
def test_other_texts_are_refused(tmp_path, text, message):
    path = tmp_path / "labels.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        validation_labels(_IMAGES, path)


def test_numbers_that_the_kit_does_not_know_are_refused(tmp_path):
    path = _ground_truth(tmp_path)
    path.write_text("1\n2\n3\n1\n4\n")  # 4 has children
    with pytest.raises(ValueError, match=r"must be numbers in meta.mat, got '4'"):
        validation_labels(_IMAGES, path)
    path.with_name("meta.mat").write_bytes(_meta()[:300])
    with pytest.raises(ValueError, match=r"meta.mat must be that of the development kit, got "):
        validation_labels(_IMAGES, path)


def test_the_validation_tar_converts(tmp_path, encoded, stored):
    images = {name: encoded(seed, kind="JPEG") for seed, name in enumerate(_IMAGES)}
    path = tmp_path / "ILSVRC2012_img_val.tar"
    with tarfile.open(path, "w") as tar:
        for name, data in reversed(images.items()):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    with pytest.raises(FileNotFoundError, match=r"must be given \(--labels FILE\)"):
        convert(path, tmp_path / "set", workers=1)
    (tmp_path / "elsewhere").mkdir()
    kit = _kit_archive(tmp_path / "elsewhere")
    convert(open_source(path, SourceOptions(labels=kit)), tmp_path / "set", workers=1)
    expected = [(name, label, images[name]) for name, label in zip(_IMAGES, _EXPECTED, strict=True)]
    assert stored(tmp_path / "set") == expected
    assert load(tmp_path / "set").manifest.classes == _CLASSES


@pytest.mark.parametrize(
    ("write", "file"),
    [
        (_kit_folder, "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt"),
        (_kit_folder, "ILSVRC2012_devkit_t12/data/meta.mat"),
        (_ground_truth, "ILSVRC2012_devkit_t12/data/meta.mat"),
        (_kit_archive, "ILSVRC2012_devkit_t12.tar.gz"),
        (_solution, "LOC_val_solution.csv"),
        (_solution, "LOC_synset_mapping.txt"),
    ],
)
def test_every_file_of_labels_is_watched_for_changes(tmp_path, encoded, write, file):
    labels = write(tmp_path)
    (tmp_path / "LOC_synset_mapping.txt").write_text("".join(f"{name} words\n" for name in _CLASSES))
    with tarfile.open(tmp_path / "val.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        for number, image in enumerate(_IMAGES):
            data = encoded(number)
            info = tarfile.TarInfo(image)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    source = open_source(tmp_path / "val.tar", SourceOptions(labels=labels))
    before = source.stamps()
    os.utime(tmp_path / file, (1e9, 1e9))
    changed = [stamp.name for stamp, other in zip(before, source.stamps(), strict=True) if stamp != other]
    assert changed == [file.rpartition("/")[2]]
