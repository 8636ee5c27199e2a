import re

import numpy as np
import pytest
from softfeed.pipelines.fingerprint import fingerprint
from softfeed.pipelines.shards.sources.folder import scan_image_folder, status_of


def _touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def test_lists_images_by_class_sorted(tmp_path):
    root = _touch(tmp_path, "b/2.JPEG", "b/1.png", "a/deep/er/z.webp", "a/a.TIF", "a/notes.txt", "B/c.jpg")
    paths, labels, classes = scan_image_folder(root)
    assert classes == ("B", "a", "b")
    assert [path.removeprefix(f"{root}/") for path in paths] == [
        "B/c.jpg",
        "a/a.TIF",
        "a/deep/er/z.webp",
        "b/1.png",
        "b/2.JPEG",
    ]
    np.testing.assert_array_equal(labels, [0, 1, 1, 2, 2])
    assert labels.dtype == np.int64


def test_skips_hidden_files_and_folders(tmp_path):
    root = _touch(tmp_path, "a/1.png", "a/.2.png", ".git/3.png", "a/.cache/4.png", ".DS_Store")
    paths, _, classes = scan_image_folder(root)
    assert (len(paths), classes) == (1, ("a",))


def test_follows_links_to_classes(tmp_path):
    elsewhere = _touch(tmp_path / "elsewhere", "1.png")
    root = _touch(tmp_path / "root", "a/1.png")
    (root / "b").symlink_to(elsewhere)
    assert len(scan_image_folder(root)[0]) == 2


def test_lists_links_that_lead_nowhere_and_knows_them_from_files(tmp_path):
    root = _touch(tmp_path, "a/1.png")
    for name, target in (("2.png", "/nowhere"), ("3.png", "3.png")):
        (root / "a" / name).symlink_to(target)
    paths, *_ = scan_image_folder(root)
    assert [path.rpartition("/")[2] for path in paths] == ["1.png", "2.png", "3.png"]
    assert [status_of(path).st_size for path in paths] == [1, len("/nowhere"), len("3.png")]
    before = fingerprint(root)
    (root / "a" / "2.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"2\.png"):
        status_of(paths[1])
    _touch(root, "a/2.png")
    assert fingerprint(root) != before


def test_refuses_a_link_that_loops(tmp_path):
    root = _touch(tmp_path, "a/1.png")
    (root / "a" / "again").symlink_to(root / "a")
    with pytest.raises(ValueError, match=r"must not loop, got .*a/again"):
        scan_image_folder(root)


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        ([], FileNotFoundError, "must hold images, got the empty folder"),
        (["notes.txt"], ValueError, "must hold one subfolder per class, got none in"),
        (["1.jpg", "2.JPG", "a/3.jpg"], ValueError, r"got 2 images directly in .* \(first: 1.jpg\); move each image"),
        (["a/1.gif", "a/2.gif", "b/x.txt"], FileNotFoundError, "must hold images .*, got 2 .gif, 1 .txt below"),
        (["a/1.png", "b/x.txt", "c/y.txt"], ValueError, r"got none in 2 of 3 \(first: b\)"),
    ],
)
def test_refuses_what_is_no_image_folder(tmp_path, names, error, message):
    with pytest.raises(error, match=message):
        scan_image_folder(_touch(tmp_path, *names))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train-00000-of-00001.parquet"], r"got none in .*; run softfeed convert first, which reads Parquet files$"),
        (["data/0.parquet", "data/1.parquet"], r"got 2 .parquet below .*; run softfeed convert first"),
        (["0.tar", "1.tar"], r"got none in .*; a shard set has a dataset.json beside its tars: copy it whole, or run"),
        (["train/0.tar", "val/0.tar"], r"got 2 .tar below .*; a shard set has a dataset.json"),
    ],
)
def test_says_what_to_do_with_files_that_hold_images(tmp_path, names, message):
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        scan_image_folder(_touch(tmp_path, *names))


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["train/a/1.png", "train/b/2.png", "val/a/3.png", "val/b/4.png"], "train, val"),
        (["Training/a/1.png", "test/1.png", "validation/a/2.png", "notes/x.txt"], "Training, test, validation"),
        (["train/a/1.png", "train/b/2.png"], "train"),
    ],
)
def test_refuses_splits_as_classes(tmp_path, names, splits):
    with pytest.raises(ValueError, match=rf"got the splits {splits} in .*; name one of .*/[tT]rain"):
        scan_image_folder(_touch(tmp_path, *names))


@pytest.mark.parametrize(
    "names",
    [
        ["train/1.png", "val/2.png"],  # images directly in them: they may be classes
        ["train/steam/1.png", "bus/2.png", "tram/3.png"],  # one kind of vehicle among others
        ["test/a/1.png", "exam/b/2.png"],
    ],
)
def test_classes_may_be_called_like_a_split(tmp_path, names):
    assert scan_image_folder(_touch(tmp_path, *names))[2] == tuple(sorted({name.split("/")[0] for name in names}))


def test_refuses_a_missing_folder_and_a_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"must exist, got .*nowhere"):
        scan_image_folder(tmp_path / "nowhere")
    file = tmp_path / "file.jpg"
    file.write_bytes(b"x")
    with pytest.raises(NotADirectoryError, match=re.escape(f"got the file {file}")):
        scan_image_folder(file)
    parquet = tmp_path / "train.parquet"
    parquet.write_bytes(b"PAR1")
    with pytest.raises(NotADirectoryError, match=r"got the file .*train.parquet; run softfeed convert first"):
        scan_image_folder(parquet)
