import os
import pickle
import tarfile

import numpy as np
import pytest
from softfeed.pipelines.shards.convert import convert
from softfeed.pipelines.shards.layout import ShardOptions
from softfeed.pipelines.shards.shard_set import load
from softfeed.pipelines.shards.sources.cifar import is_cifar, open_cifar
from softfeed.pipelines.shards.sources.opening import SourceOptions, open_source
from torchvision.datasets import CIFAR10

_ROWS = 7  # of a batch


class _Cifar:
    """A small CIFAR: pixels as published, (rows, 3072) of each file, and its labels."""

    def __init__(self, classes):
        rng = np.random.default_rng(classes)
        names = [f"data_batch_{number}" for number in range(1, 6)] if classes == 10 else ["train"]
        self.names = [*names, "test_batch" if classes == 10 else "test"]
        self.pixels = {name: rng.integers(0, 256, (_ROWS, 3072), dtype=np.uint8) for name in self.names}
        self.fine = {name: rng.integers(0, classes, _ROWS).tolist() for name in self.names}
        self.coarse = {name: [label % 20 for label in labels] for name, labels in self.fine.items()}
        self.classes = [f"class {number}" for number in range(classes)]

    def expected(self, names, labels):
        return sorted(
            (
                f"{name}/{row}",
                labels[name.removesuffix(".bin")][row],
                _interleaved(self.pixels[name.removesuffix(".bin")][row]),
            )
            for name in names
            for row in range(_ROWS)
        )


def _interleaved(row):
    """Bytes of an image as it is shown, from a row of three planes; by another way than the product's."""
    return bytes(row[plane * 1024 + pixel] for pixel in range(1024) for plane in range(3))


def _python_10(root, data):
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    for name in data.names:
        batch = {"data": data.pixels[name], "labels": data.fine[name], "batch_label": "x", "filenames": ["a.png"]}
        (folder / name).write_bytes(pickle.dumps(batch, 3))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": data.classes}, 3))
    return folder


def _binary_10(root, data):
    folder = root / "cifar-10-batches-bin"
    folder.mkdir()
    for name in data.names:
        rows = zip(data.fine[name], data.pixels[name], strict=True)
        (folder / f"{name}.bin").write_bytes(b"".join(bytes([label]) + row.tobytes() for label, row in rows))
    (folder / "batches.meta.txt").write_text("\n".join(c.replace(" ", "_") for c in data.classes) + "\n\n")
    return folder


def _python_100(root, data):
    folder = root / "cifar-100-python"
    folder.mkdir()
    for name in data.names:
        batch = {
            b"data": data.pixels[name],
            b"fine_labels": data.fine[name],
            b"coarse_labels": data.coarse[name],
        }
        (folder / name).write_bytes(pickle.dumps(batch, 3))
    names = {
        b"fine_label_names": [c.encode() for c in data.classes],
        b"coarse_label_names": [b"c%d" % n for n in range(20)],
    }
    (folder / "meta").write_bytes(pickle.dumps(names, 3))
    return folder


def _binary_100(root, data):
    folder = root / "cifar-100-binary"
    folder.mkdir()
    for name in data.names:
        rows = zip(data.coarse[name], data.fine[name], data.pixels[name], strict=True)
        (folder / f"{name}.bin").write_bytes(b"".join(bytes([c, f]) + row.tobytes() for c, f, row in rows))
    (folder / "fine_label_names.txt").write_text("\n".join(c.replace(" ", "_") for c in data.classes))
    (folder / "coarse_label_names.txt").write_text("\n".join(f"c{n}" for n in range(20)))
    return folder


_WRITERS = {
    (10, "python"): _python_10,
    (10, "binary"): _binary_10,
    (100, "python"): _python_100,
    (100, "binary"): _binary_100,
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("classes", "version"), list(_WRITERS))
def test_every_published_version_converts(tmp_path, stored, classes, version, packed):
    data = _Cifar(classes)
    path = _WRITERS[classes, version](tmp_path, data)
    if packed:
        with tarfile.open(tmp_path / f"cifar-{classes}-{version}.tar.gz", "w:gz") as tar:
            tar.add(path, path.name)
        path = tmp_path / f"cifar-{classes}-{version}.tar.gz"
    end = ".bin" if version == "binary" else ""
    for split, names in {"train": data.names[:-1], "test": data.names[-1:]}.items():
        dest = tmp_path / split
        convert(open_source(path, SourceOptions(split=split)), dest, ShardOptions(raw=True), workers=1)
        assert stored(dest) == data.expected([name + end for name in names], data.fine)
        found = [name.replace("_", " ") for name in load(dest).manifest.classes]
        assert found == data.classes


@pytest.mark.parametrize("version", ["python", "binary"])
def test_coarse_labels(tmp_path, version):
    data = _Cifar(100)
    path = _WRITERS[100, version](tmp_path, data)
    source = open_source(path, SourceOptions(split="train", label_column="coarse_label"))
    assert source.labels.tolist() == data.coarse["train"]
    assert source.classes == tuple(f"c{n}" for n in range(20))
    with pytest.raises(ValueError, match="label_column must be one of coarse_labels, fine_labels, got 'hue'"):
        open_cifar(path, split="train", label="hue")


def test_torchvision_reads_the_same(tmp_path, stored, monkeypatch):
    data = _Cifar(10)
    path = _python_10(tmp_path, data)
    monkeypatch.setattr(CIFAR10, "_check_integrity", lambda self: True)  # the sums are those of the real files
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": None})
    reference = CIFAR10(tmp_path, train=True)
    convert(open_cifar(path, split="train"), tmp_path / "set", ShardOptions(raw=True), workers=1)
    found = {name: (label, pixels) for name, label, pixels in stored(tmp_path / "set")}
    for number, (image, label) in enumerate(reference):
        name = f"data_batch_{number // _ROWS + 1}/{number % _ROWS}"
        assert found[name] == (label, image.tobytes())
    assert list(load(tmp_path / "set").manifest.classes) == reference.classes


def test_the_split_must_be_named(tmp_path):
    path = _python_10(tmp_path, _Cifar(10))
    for split, named in ((None, "none"), ("val", "val")):
        with pytest.raises(ValueError, match=rf"split must be named .*, got {named} for"):
            open_source(path, SourceOptions(split=split))


class _Evil:
    def __init__(self, path):
        self._path = path

    def __reduce__(self):
        return os.mkdir, (self._path,)


@pytest.mark.parametrize("name", ["data_batch_3", "batches.meta"])
def test_a_hostile_pickle_is_refused_and_not_run(tmp_path, name):
    path = _python_10(tmp_path, _Cifar(10))
    (path / name).write_bytes(pickle.dumps({"data": _Evil(str(tmp_path / "owned"))}, 2))
    with pytest.raises(
        ValueError, match=rf"got {name} of .*: pickle must hold plain data and arrays only, got posix.mk"
    ):
        open_source(path, SourceOptions(split="train"))
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ([1], "must hold a dict, got list"),
        ({b"labels": [1]}, "must hold an array of pixels, got another value"),
        ({b"data": np.zeros((2, 100), np.uint8), b"labels": [1, 2]}, r"rows of 3072 values, got shape \(2, 100\)"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]}, "labels must be as many as images, 2, got 1"),
        ({b"data": np.zeros((1, 3072), np.uint8), b"labels": ["x"]}, "labels must be a list of whole numbers"),
        ({b"data": np.zeros((1, 3072), np.uint8), b"labels": [10]}, r"labels must be in \[0, 10\), got 10"),
    ],
)
def test_other_pickles_are_refused(tmp_path, batch, message):
    path = _python_10(tmp_path, _Cifar(10))
    (path / "test_batch").write_bytes(pickle.dumps(batch, 3))
    with pytest.raises(ValueError, match=message):
        open_source(path, SourceOptions(split="test"))


def test_a_cut_binary_file_is_refused(tmp_path):
    path = _binary_10(tmp_path, _Cifar(10))
    file = path / "test_batch.bin"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"records of 3073 bytes, got 21510 bytes in test_batch.bin of"):
        open_source(path, SourceOptions(split="test"))


def test_a_cut_archive_is_refused(tmp_path):
    folder = _python_10(tmp_path, _Cifar(10))
    path = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(folder, folder.name)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ValueError, match=r"gzip file must be whole, got .*; copy or"):
        open_source(path, SourceOptions(split="train"))


def test_a_folder_of_something_else_is_no_cifar(tmp_path):
    (tmp_path / "train").write_bytes(b"x")
    assert not is_cifar(tmp_path)
    with pytest.raises(ValueError, match="must be CIFAR as published, a folder or cifar-"):
        open_cifar(tmp_path, split="train")


@pytest.mark.parametrize(
    ("version", "file"),
    [
        ((10, "python"), "batches.meta"),
        ((10, "binary"), "batches.meta.txt"),
        ((100, "python"), "meta"),
        ((100, "binary"), "fine_label_names.txt"),
    ],
)
def test_the_file_of_class_names_is_watched_for_changes(tmp_path, version, file):
    folder = _WRITERS[version](tmp_path, _Cifar(version[0]))
    source = open_cifar(folder, split="train")
    before = source.stamps()
    os.utime(folder / file, (1e9, 1e9))
    changed = [stamp.name for stamp, other in zip(before, source.stamps(), strict=True) if stamp != other]
    assert changed == [file]
