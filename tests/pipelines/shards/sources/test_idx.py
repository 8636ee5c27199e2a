import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from softfeed.pipelines.shards.convert import convert
from softfeed.pipelines.shards.layout import ShardOptions
from softfeed.pipelines.shards.sources.idx import open_idx
from softfeed.pipelines.shards.sources.opening import SourceOptions, open_source
from torchvision.datasets import MNIST

_ROWS = 11


def _idx(array, kind=8):
    return bytes([0, 0, kind, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def mnist(tmp_path):
    """Writes a small MNIST of both splits; returns the folder and what is in it."""

    def write(*, packed=False, separator="-"):
        folder = tmp_path / "raw"
        folder.mkdir()
        rng = np.random.default_rng(0)
        data = {}
        for split in ("train", "t10k"):
            images = rng.integers(0, 256, (_ROWS, 6, 5), dtype=np.uint8)
            labels = rng.integers(0, 10, _ROWS, dtype=np.uint8)
            data[split] = images, labels
            for kind, array in (("images", images), ("labels", labels)):
                content = _idx(array)
                name = f"{split}-{kind}{separator}idx{array.ndim}-ubyte"
                if packed:
                    (folder / f"{name}.gz").write_bytes(gzip.compress(content))
                else:
                    (folder / name).write_bytes(content)
        return folder, data

    return write


@pytest.mark.parametrize(("packed", "separator"), [(False, "-"), (True, "-"), (False, ".")])
@pytest.mark.parametrize(("split", "prefix"), [("train", "train"), ("test", "t10k"), ("t10k", "t10k")])
def test_mnist_converts(tmp_path, mnist, stored, packed, separator, split, prefix):
    folder, data = mnist(packed=packed, separator=separator)
    convert(open_source(folder, SourceOptions(split=split)), tmp_path / "set", ShardOptions(raw=True), workers=1)
    images, labels = data[prefix]
    name = f"{prefix}-images{separator}idx3-ubyte" + (".gz" if packed else "")
    expected = [(f"{name}/{row}", labels[row], np.repeat(images[row].ravel(), 3).tobytes()) for row in range(_ROWS)]
    assert stored(tmp_path / "set") == sorted(expected)


def test_torchvision_reads_the_same(tmp_path, mnist):
    folder, _ = mnist()
    (tmp_path / "MNIST").mkdir()
    folder.rename(tmp_path / "MNIST" / "raw")
    reference = MNIST(tmp_path, train=True)
    source = open_idx(tmp_path / "MNIST" / "raw", split="train")
    assert source.labels.tolist() == [label for _, label in reference]
    extents = source.extents(tmp_path, None, lambda *_: None)
    with Path(extents.files[0]).open("rb") as file:
        for row, (image, _) in enumerate(reference):
            file.seek(extents.offset[row])
            assert file.read(extents.size[row]) == b"P5\n5 6\n255\n" + image.tobytes()


def test_a_file_of_images_is_enough(mnist):
    folder, data = mnist(packed=True)
    source = open_source(folder / "t10k-images-idx3-ubyte.gz")
    assert source.labels.tolist() == data["t10k"][1].tolist()
    with pytest.raises(ValueError, match=r"split must be named .*, one that .* holds \(t10k, train\), got none"):
        open_source(folder)
    with pytest.raises(ValueError, match=r"holds \(t10k, train\), got letters"):
        open_source(folder, SourceOptions(split="letters"))


def test_labels_may_lie_elsewhere(tmp_path, mnist):
    folder, data = mnist()
    moved = tmp_path / "labels"
    (folder / "train-labels-idx1-ubyte").rename(moved)
    images = folder / "train-images-idx3-ubyte"
    with pytest.raises(FileNotFoundError, match=r"labels must lie beside .* as train-labels-idx1-ubyte, or be named"):
        open_source(images)
    assert open_source(images, SourceOptions(labels=moved)).labels.tolist() == data["train"][1].tolist()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:-1], r"as many values as it says, got 329 of 330 bytes"),
        (lambda data: data + b"x", r"as many values as it says, got more"),
        (lambda data: data[:9], r"as many values as it says, got \d of 12 bytes"),
        (lambda data: b"\x89PNG" + data[4:], "must begin with 00 00 08 and its dimensions, got 89 50 4e 47"),
        (lambda data: data[:3] + b"\1" + data[4:], r"IDX images must have 3 dimensions, .*, got \(11,\)"),
        (lambda data: data[:8] + b"\xff" * 8 + data[16:], "IDX images must have at most 50000000 pixels"),
        (
            lambda data: data[:4] + b"\xff" * 4 + data[8:],
            r"as it says, got \(4294967295, 6, 5, 1\) in .*, room for \d+ b",
        ),
        (lambda data: data[:8] + bytes(8) + data[16:], r"IDX images must have 3 .*, got \(11, 0, 0, 1\)"),
    ],
)
def test_damaged_files_are_refused(tmp_path, mnist, packed, change, message):
    folder, _ = mnist()
    path = folder / "train-images-idx3-ubyte"
    data = change(path.read_bytes())
    path.write_bytes(gzip.compress(data) if packed else data)  # told by its first bytes, not its name
    with pytest.raises(ValueError, match=message):
        convert(open_source(path), tmp_path / "set", ShardOptions(raw=True), workers=1)


def test_a_cut_gzip_file_is_refused(tmp_path, mnist):
    folder, _ = mnist(packed=True)
    path = folder / "train-labels-idx1-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"gzip file must be whole, got .*labels.* that fails \d+ bytes into"):
        open_source(folder, SourceOptions(split="train"))
