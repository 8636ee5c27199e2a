import io
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from softfeed.pipelines.shards.convert import convert
from softfeed.pipelines.shards.layout import ShardOptions
from softfeed.pipelines.shards.shard_set import load
from softfeed.pipelines.shards.sources import arrays
from softfeed.pipelines.shards.sources.opening import SourceOptions, open_source


def _images(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def _rgb(images):
    """Bytes of each image as (H, W, 3), from (N, H, W), (N, H, W, 1 or 3) or (N, 3, H, W)."""
    return [
        np.broadcast_to(image[..., None] if image.ndim == 2 else image, (*image.shape[:2], 3)).tobytes()
        for image in (images.transpose(0, 2, 3, 1) if images.ndim == 4 and images.shape[1] == 3 else images)
    ]


@pytest.mark.parametrize("shape", [(9, 5, 7), (9, 5, 7, 1), (9, 5, 7, 3), (9, 3, 5, 7), (9, 3, 3, 3)])
@pytest.mark.parametrize("compressed", [False, True])
def test_pixels_come_through(tmp_path, stored, shape, compressed):
    images, labels = _images(shape), np.arange(9) % 4
    path = tmp_path / "set.npz"
    (np.savez_compressed if compressed else np.savez)(path, images=images, labels=labels[:, None])
    convert(path, tmp_path / "out", ShardOptions(raw=True), workers=1)
    pixels = _rgb(images) if shape != (9, 3, 3, 3) else [image.tobytes() for image in images]
    expected = [(f"set.npz/images/{row}", labels[row], pixels[row]) for row in range(9)]
    assert stored(tmp_path / "out") == sorted(expected)
    manifest = load(tmp_path / "out").manifest
    assert (manifest.classes, manifest.created["source_format"]) == (("0", "1", "2", "3"), "npz")


@pytest.mark.parametrize(
    ("names", "split", "expected"),
    [
        (("x_train", "y_train", "x_test", "y_test"), "train", "x_train"),
        (("x_train", "y_train", "x_test", "y_test"), "test", "x_test"),
        (("train_images", "train_labels", "val_images", "val_labels"), "val", "val_images"),
        (("arr_0", "arr_1"), None, "arr_0"),
        (("X", "y"), None, "X"),
    ],
)
def test_usual_names_are_found(tmp_path, names, split, expected):
    arrays = {
        name: _images((4, 6, 6), number) if number % 2 == 0 else np.array([0, 1, 2, number])
        for number, name in enumerate(names)
    }
    np.savez(tmp_path / "set.npz", **arrays)
    source = open_source(tmp_path / "set.npz", SourceOptions(split=split))
    assert source.names([3]) == [f"set.npz/{expected}/3"]
    assert source.labels[-1] == names.index(expected) + 1


def test_arrays_are_named_on_request(tmp_path):
    np.savez(tmp_path / "set.npz", photos=_images((4, 6, 6)), kinds=np.arange(4), hues=np.zeros(4, int))
    options = SourceOptions(image_column="photos", label_column="hues")
    assert open_source(tmp_path / "set.npz", options).labels.tolist() == [0, 0, 0, 0]
    with pytest.raises(ValueError, match=r"image_column must be named .*, got no array called images .* \(hues, kinds"):
        open_source(tmp_path / "set.npz")
    with pytest.raises(ValueError, match=r"label_column must be an array in .* \(hues, kinds, photos\), got 'x'"):
        open_source(tmp_path / "set.npz", options._replace(label_column="x"))


def test_several_splits_need_a_name(tmp_path):
    np.savez(tmp_path / "x.npz", x_train=_images((4, 6, 6)), y_train=[0] * 4, x_test=_images((4, 6, 6)), y_test=[0] * 4)
    with pytest.raises(ValueError, match=r"split must be named .*, got none; .* holds several: test, train"):
        open_source(tmp_path / "x.npz")


@pytest.mark.parametrize("named", ["file", "folder", "labels"])
def test_npy_files(tmp_path, stored, named):
    images, labels = _images((6, 8, 8, 3)), np.arange(6, dtype=np.uint8)
    folder = tmp_path / "arrays"
    folder.mkdir()
    np.save(folder / "images.npy", images)
    np.save(folder / ("other.npy" if named == "labels" else "labels.npy"), labels)
    options = SourceOptions(labels=folder / "other.npy") if named == "labels" else None
    convert(
        open_source(folder if named == "folder" else folder / "images.npy", options),
        tmp_path / "out",
        ShardOptions(raw=True),
        workers=2,
    )
    assert stored(tmp_path / "out") == [(f"images.npy/{row}", row, images[row].tobytes()) for row in range(6)]


class _Evil:
    def __reduce__(self):
        return print, ("owned",)


def test_objects_are_not_unpickled(tmp_path, capsys):
    np.savez(tmp_path / "x.npz", images=_images((2, 4, 4)), labels=np.array([_Evil(), _Evil()], object))
    with pytest.raises(ValueError, match=r"labels must be whole numbers .*, got object"):
        open_source(tmp_path / "x.npz")
    np.save(tmp_path / "images.npy", np.array([_Evil()], object))
    with pytest.raises(ValueError, match=r"images must be uint8 in 0..255, got object"):
        open_source(tmp_path / "images.npy", SourceOptions(labels=tmp_path / "images.npy"))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((4, 6, 6)), [0] * 4, "images must be uint8 in 0..255, got float64"),
        (np.zeros((4, 784), np.uint8), [0] * 4, r"images must have shape .*, got \(4, 784\)"),
        (np.zeros((4, 6, 6, 4), np.uint8), [0] * 4, r"images must have shape .*, got \(4, 6, 6, 4\)"),
        (np.zeros((4, 0, 6), np.uint8), [0] * 4, r"images must have shape .*, got \(4, 0, 6\)"),
        (np.zeros((0, 6, 6), np.uint8), np.zeros(0, int), "source must hold images, got none"),
        (np.zeros((4, 6, 6), np.uint8), [0] * 3, "labels must be as many as images, 4, got 3"),
        (np.zeros((4, 6, 6), np.uint8), [0, 1, 2, -1], r"labels must be in \[0, 1000000\), got -1"),
        (np.zeros((4, 6, 6), np.uint8), [0, 1, 2, 10**9], r"labels must be in \[0, 1000000\), got 1000000000"),
        (np.zeros((4, 6, 6), np.uint8), np.eye(4), r"labels must be whole numbers .*, got float64 of shape \(4, 4\)"),
        (np.zeros((4, 6, 6), np.uint8, order="F"), [0] * 4, "array must be in C order"),
    ],
)
def test_other_arrays_are_refused(tmp_path, images, labels, message):
    np.savez(tmp_path / "x.npz", images=images, labels=labels)
    with pytest.raises(ValueError, match=message):
        open_source(tmp_path / "x.npz")


def _npy(shape, content):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return header.getvalue() + content


@pytest.mark.parametrize(
    ("shape", "content", "message"),
    [
        ((4, 6, 6), bytes(143), r"must have shape \(4, 6, 6\), got 143 of 144 bytes in x.npz/images"),
        ((4, 6, 6), bytes(145), r"must have shape \(4, 6, 6\), got more bytes in x.npz/images"),
        ((4, 100_000, 100_000), bytes(9), "images must have at most 50000000 pixels"),
    ],
)
def test_claims_of_a_header_are_not_believed(tmp_path, shape, content, message):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("images.npy", _npy(shape, content))
        archive.writestr("labels.npy", _npy((4,), bytes(4)))
    with pytest.raises(ValueError, match=message):
        convert(tmp_path / "x.npz", tmp_path / "out", workers=1)


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_damaged_files_are_refused(tmp_path, damage):
    path = tmp_path / "x.npz"
    np.savez_compressed(path, images=_images((30, 16, 16)), labels=np.zeros(30, int))
    data = bytearray(path.read_bytes())
    data[2000] ^= 1
    path.write_bytes(data[:-10] if damage == "cut" else data)
    with pytest.raises(ValueError, match=r"(npz file must be a whole zip|array must have shape), got .*"):
        convert(path, tmp_path / "out", workers=1)


@pytest.mark.parametrize("shape", [(9, 5, 7), (9, 5, 7, 3)])
def test_pixels_are_raw_unless_files_are_asked_for(tmp_path, stored, shape):
    images = _images(shape)
    np.savez(tmp_path / "x.npz", images=images, labels=np.zeros(9, int))
    convert(tmp_path / "x.npz", tmp_path / "raw", workers=1)
    convert(tmp_path / "x.npz", tmp_path / "files", ShardOptions(raw=False), workers=1)
    assert load(tmp_path / "raw").manifest.raw_shape == (5, 7, 3)
    assert load(tmp_path / "files").manifest.raw_shape is None
    raw, files = stored(tmp_path / "raw"), stored(tmp_path / "files")
    assert [name for name, _, _ in raw] == [name for name, _, _ in files]
    for pixels, expected, (_, _, file) in zip((data for _, _, data in raw), _rgb(images), files, strict=True):
        assert file.startswith(b"\x89PNG")
        assert Image.open(io.BytesIO(file)).convert("RGB").tobytes() == pixels == expected


def test_arrays_must_be_looked_at(tmp_path):
    np.savez(tmp_path / "x.npz", images=_images((4, 6, 6)), labels=np.zeros(4, int))
    with pytest.raises(ValueError, match="check must be True for a source of pixels, got False"):
        convert(tmp_path / "x.npz", tmp_path / "set", ShardOptions(check=False), workers=1)


@pytest.mark.parametrize("array", ["images", "labels"])
@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damaged_compression_is_refused(tmp_path, array, method):
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("images.npy", _npy((300, 6, 6), _images((300, 6, 6)).tobytes()))
        archive.writestr("labels.npy", _npy((300,), _images(300).tobytes()))
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo(f"{array}.npy")
    data = bytearray(path.read_bytes())
    start = member.header_offset + 30 + len(member.filename) + 9  # behind the properties of LZMA
    data[start : start + 60] = b"\xff" * 60
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"npz file must be a whole zip, got .*x\.npz: .*; copy or download it again"):
        convert(path, tmp_path / "out", workers=1)


def test_a_damaged_directory_is_refused(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, images=_images((4, 6, 6)), labels=np.zeros(4, int))
    data = bytearray(path.read_bytes())
    data[-10:-6] = b"\xff\xff\xff\x7f"  # size of the directory, which is looked for that far before the end
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"npz file must be a whole zip, got .*x\.npz: .*; copy or download it again"):
        open_source(path)
    with pytest.raises(FileNotFoundError):
        open_source(tmp_path / "none.npz")


def _with_header(text, content=b""):
    text = text.encode() + b"\n"
    return b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text + content


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("{'descr': '|u1', 'fortran_order': False, 'shape': (2, 4, 4, 3), ", "begin with a header of numpy, got"),
        ("{'descr': '|u1',\n  'x': 1,\n 'y': 2", "begin with a header of numpy, got"),
        (f"{{'descr': '|u1', 'shape': {'(' * 3000}", "begin with a header of numpy, got"),
        (f"{{'descr': '|u1', 'shape': {'-' * 9000}1}}", "begin with a header of numpy, got"),
        ("{'descr': '|u1', 'fortran_order': False, 'shape': (2, -4, 4, 3), }", "have no negative dimension, got shape"),
    ],
)
def test_damaged_headers_are_refused(tmp_path, header, message):
    (tmp_path / "images.npy").write_bytes(_with_header(header, bytes(96)))
    np.save(tmp_path / "labels.npy", np.zeros(2, int))
    with pytest.raises(ValueError, match=rf"array must {message}.* images\.npy"):
        open_source(tmp_path)


def test_a_negative_number_of_labels_does_not_read_the_file(tmp_path):
    np.save(tmp_path / "images.npy", _images((2, 4, 4)))
    header = "{'descr': '<i8', 'fortran_order': False, 'shape': (-1,), }"
    (tmp_path / "labels.npy").write_bytes(_with_header(header, bytes(160)))
    with pytest.raises(ValueError, match=r"array must have no negative dimension, got shape \(-1,\) in labels\.npy"):
        open_source(tmp_path)


@pytest.mark.parametrize("kind", ["npy", "stored", "deflated"])
def test_more_than_a_file_can_hold_is_refused_before_anything_is_written(tmp_path, kind):
    rows = 40_000_000
    if kind == "npy":
        path = tmp_path / "images.npy"
        path.write_bytes(_npy((rows, 1000, 1000), bytes(9)))
        np.save(tmp_path / "labels.npy", np.zeros(3, int))
    else:
        path = tmp_path / "x.npz"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED if kind == "stored" else zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("images.npy", _npy((rows, 1000, 1000), bytes(9)))
            archive.writestr("labels.npy", _npy((3,), bytes(3)))
    with pytest.raises(ValueError, match=rf"array must have shape .*, got room for \d+ of {rows}000000 bytes in"):
        open_source(path)


def test_a_bomb_that_would_fill_the_disk_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "x.npz"
    np.savez_compressed(path, images=np.zeros((50, 100, 100), np.uint8), labels=np.zeros(50, int))
    record = len(b"P5\n100 100\n255\n") + 100 * 100
    for free in (50 * record - 1, 50 * record):
        monkeypatch.setattr(arrays.shutil, "disk_usage", lambda _, free=free: SimpleNamespace(free=free))
        work = tmp_path / str(free)
        work.mkdir()
        if free < 50 * record:
            with pytest.raises(
                OSError, match=rf"disk must have {50 * record} bytes free for the pixels .*, got {free}"
            ):
                open_source(path).extents(work, None, lambda *_: None)
            assert not list(work.iterdir())
        else:
            (spool,) = open_source(path).extents(work, None, lambda *_: None).files
            assert Path(spool).stat().st_size == 50 * record
