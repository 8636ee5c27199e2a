import io
import tarfile

import pytest
from softfeed.pipelines.shards.convert import convert
from softfeed.pipelines.shards.layout import ShardOptions
from softfeed.pipelines.shards.shard_set import load
from softfeed.pipelines.shards.sources.archive import open_imagenet, open_tar
from softfeed.pipelines.shards.sources.opening import SourceOptions, open_source
from torchvision.datasets import ImageFolder

_IDS = ("n01440764", "n01443537", "n02119022")


def _tar(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def images(encoded):
    """Files of a small ILSVRC2012, as an unpacked training folder has them."""
    return {f"{name}/{name}_{n}.JPEG": encoded(n, kind="JPEG") for name in _IDS for n in (10026, 3, 117)}


@pytest.fixture
def train_tar(tmp_path, images):
    """The tar of tars, in no order."""
    inner = [
        (f"{name}.tar", _tar([(path.split("/")[1], data) for path, data in images.items() if path.startswith(name)]))
        for name in reversed(_IDS)
    ]
    path = tmp_path / "ILSVRC2012_img_train.tar"
    path.write_bytes(_tar(inner))
    return path


def test_the_training_tar_gives_the_shards_of_the_unpacked_folder(tmp_path, train_tar, images, content):
    for name, data in images.items():
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(data)
    options = ShardOptions(shard_samples=4)
    convert(train_tar, tmp_path / "from-tar", options, workers=2)
    convert(tmp_path / "folder", tmp_path / "from-folder", options, workers=1)
    made, expected = content(tmp_path / "from-tar"), content(tmp_path / "from-folder")
    del made["dataset.json"], expected["dataset.json"]  # it names the source
    assert made == expected
    manifest = load(tmp_path / "from-tar").manifest
    assert list(manifest.classes) == ImageFolder(tmp_path / "folder").classes == list(_IDS)
    assert manifest.created["source_format"] == "imagenet"


def test_a_folder_of_both_tars_needs_a_split(tmp_path, train_tar, encoded):
    assert open_source(tmp_path).classes == _IDS
    (tmp_path / "ILSVRC2012_img_val.tar").write_bytes(_tar([("ILSVRC2012_val_00000001.JPEG", encoded(0))]))
    (tmp_path / "labels.txt").write_text("n02119022\n")
    with pytest.raises(ValueError, match=r"split must be named .* of .*, which holds train, val, got none"):
        open_source(tmp_path)
    source = open_source(tmp_path, SourceOptions(split="val", labels=tmp_path / "labels.txt"))
    assert (source.names([0]), source.classes) == (["ILSVRC2012_val_00000001.JPEG"], ("n02119022",))
    assert len(open_source(tmp_path, SourceOptions(split="train")).labels) == 9
    with pytest.raises(ValueError, match="split must be that of the tar, got 'val'"):
        open_imagenet(train_tar, split="val")
    with pytest.raises(ValueError, match="labels must be left out for the training tar"):
        open_imagenet(train_tar, labels=tmp_path / "labels.txt")


def test_a_class_without_an_image_is_refused(tmp_path, encoded):
    full = _tar([("n01440764_1.JPEG", encoded(0))])
    path = tmp_path / "train.tar"
    path.write_bytes(_tar([("n01440764.tar", full), ("n01443537.tar", _tar([("list.txt", b"x")]))]))
    with pytest.raises(ValueError, match=r"every class must have an image, got none in n01443537.tar of"):
        open_source(path)


def test_a_cut_training_tar_is_refused(train_tar):
    data = train_tar.read_bytes()
    train_tar.write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"archive must be whole .*_train.tar: at byte \d+, .* which was cut short"):
        open_source(train_tar)


def test_other_files_in_the_training_tar_are_refused(tmp_path, encoded):
    path = tmp_path / "train.tar"
    path.write_bytes(_tar([("n01440764.tar", _tar([("n01440764_1.JPEG", encoded(0))])), ("readme.txt", b"x")]))
    with pytest.raises(ValueError, match=r"must hold nNNNNNNNN.tar files only, got readme.txt"):
        open_source(path)


@pytest.mark.parametrize("above", ["", "photos/", "./photos/2012/"])
def test_the_tar_of_an_image_folder(tmp_path, encoded, stored, above):
    files = {f"{kind}/{sub}{n}.png": encoded(n) for kind in ("ant", "bee") for sub in ("", "deep/") for n in (1, 2)}
    path = tmp_path / "x.tar"
    path.write_bytes(_tar([(above + name, data) for name, data in reversed(files.items())]))
    convert(path, tmp_path / "set", workers=1)
    assert stored(tmp_path / "set") == sorted((name, int(name[0] == "b"), data) for name, data in files.items())
    assert load(tmp_path / "set").manifest.classes == ("ant", "bee")


def test_a_tar_of_one_class(tmp_path, encoded):
    path = tmp_path / "x.tar"
    path.write_bytes(_tar([("ant/1.png", encoded(0)), ("ant/2.png", encoded(1))]))
    assert open_tar(path).classes == ("ant",)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["1.png", "2.png"], r"one folder per class \(class/image.jpg\), got 2 images in none in .* \(first: 1.png"),
        (["a/notes.txt"], "source must hold images, got none in"),
        (["a/1.png", "a/1.png", "b/1.png"], "must hold every name once, got a/1.png 2 times in"),
    ],
)
def test_tars_of_something_else_are_refused(tmp_path, names, message):
    path = tmp_path / "x.tar"
    path.write_bytes(_tar([(name, b"x") for name in names]))
    with pytest.raises(ValueError, match=message):
        open_source(path)


def test_a_changed_tar_starts_anew(train_tar, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("interrupted")

    with monkeypatch.context() as patch:
        patch.setattr("softfeed.pipelines.shards.manifest.write", fail)
        with pytest.raises(OSError, match="interrupted"):
            convert(train_tar, tmp_path / "set", workers=1)
    assert convert(train_tar, tmp_path / "set", workers=1, overwrite=True).written == 0
    with monkeypatch.context() as patch:
        patch.setattr("softfeed.pipelines.shards.manifest.write", fail)
        with pytest.raises(OSError, match="interrupted"):
            convert(train_tar, tmp_path / "set", workers=1, overwrite=True)
    train_tar.write_bytes(train_tar.read_bytes())
    assert convert(train_tar, tmp_path / "set", workers=1).written == 9
