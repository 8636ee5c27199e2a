import errno
import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from nvidia.dali import fn, types
from nvidia.dali.pipeline import pipeline_def
from PIL import Image
from softfeed.pipelines.shards.convert import convert
from softfeed.pipelines.shards.layout import ShardOptions
from softfeed.pipelines.shards.shard_set import load


def _stored(shards):
    """Name, label and image bytes of every row, read at the offsets of the table."""
    rows = []
    for row, sample in enumerate(shards.samples):
        with shards.shard_paths[sample["shard"]].open("rb") as file:
            file.seek(sample["offset"])
            rows.append((shards.sample_name(row), int(sample["label"]), file.read(sample["size"])))
    return rows


def _mixed_folder(root, encoded):
    """Images of several formats whose names would break a tar index; returns what a set must hold."""
    files = {
        "ant/plain.jpg": encoded(0, kind="JPEG"),
        "ant/two words v1.0.jpg": encoded(1, kind="JPEG"),
        "ant/really a png.JPEG": encoded(2),
        f"bee/{'deep/' * 25}long.webp": encoded(3, kind="WEBP"),
        "bee/größe.PNG": encoded(4),
        "cat dog/x.tar.bmp": encoded(5, kind="BMP"),
    }
    for name, image in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(image)
    labels = {"ant": 0, "bee": 1, "cat dog": 2}
    return [(name, labels[name.split("/")[0]], image) for name, image in files.items()]


def test_folder_round_trip(tmp_path, encoded):
    expected = _mixed_folder(tmp_path / "images", encoded)
    outcome = convert(tmp_path / "images", tmp_path / "set", ShardOptions(shard_samples=4), workers=1)
    shards = load(tmp_path / "set")
    assert sorted(_stored(shards)) == sorted(expected)
    assert shards.manifest.classes == ("ant", "bee", "cat dog")
    assert [shard.samples for shard in shards.manifest.shards] == [4, 2]
    assert shards.manifest.largest == (16, 24)
    assert outcome.manifest == shards.manifest
    assert outcome.bad == ()
    assert {path.name for path in (tmp_path / "set").iterdir()} == {
        *(f"shard-00000{number}.{kind}" for number in (0, 1) for kind in ("tar", "idx")),
        "samples.npy",
        "dataset.json",
        "odd.json",  # a PNG named JPEG
    }


def test_parquet_round_trip(tmp_path, parquet_file, encoded):
    images = [encoded(seed) for seed in range(10)]
    labels = [seed % 3 for seed in range(10)]
    path = parquet_file(images=images, labels=labels, names=["a", "b", "c"])
    convert(path, tmp_path / "set", ShardOptions(shard_samples=4), workers=1)
    expected = [(f"{path.name}/{row}", labels[row], images[row]) for row in range(10)]
    assert sorted(_stored(load(tmp_path / "set"))) == sorted(expected)


def test_order_is_shuffled_by_the_seed_over_all_shards(tmp_path, image_folder):
    source = image_folder(classes=5, each=8)
    orders = {}
    for name, options in {
        "kept": ShardOptions(shuffle=False),
        "zero": ShardOptions(shard_samples=7),
        "seven": ShardOptions(seed=7),
    }.items():
        convert(source, tmp_path / name, options, workers=1)
        orders[name] = [sample_name for sample_name, _, _ in _stored(load(tmp_path / name))]
    assert orders["kept"] == sorted(orders["kept"])
    assert len({tuple(order) for order in orders.values()}) == 3
    assert all(sorted(order) == orders["kept"] for order in orders.values())


def test_dali_reads_shards_through_their_indexes(tmp_path, encoded):
    expected = _mixed_folder(tmp_path / "images", encoded)
    convert(tmp_path / "images", tmp_path / "set", ShardOptions(shard_samples=4), workers=1)
    paths = sorted((tmp_path / "set").glob("*.tar"))

    @pipeline_def
    def read():
        image, label, digits, name = fn.readers.webdataset(
            paths=[str(path) for path in paths],
            index_paths=[str(path.with_suffix(".idx")) for path in paths],
            ext=["jpg;png;webp;bmp", "label", "cls", "name"],
            dtypes=[types.UINT8, types.INT32, types.UINT8, types.UINT8],
            missing_component_behavior="error",
        )
        return image, label, digits, name

    outputs = read(batch_size=6, num_threads=1, device_id=None).run()
    rows = []
    for position in range(6):
        image, label, digits, name = (np.asarray(output.at(position)) for output in outputs)
        assert int(digits.tobytes()) == label.item()
        rows.append((name.tobytes().decode(), label.item(), image.tobytes()))
    assert rows == _stored(load(tmp_path / "set"))
    assert sorted(rows) == sorted(expected)


def test_webdataset_package_reads_shards(tmp_path, encoded):
    tariterators = pytest.importorskip(
        "webdataset.tariterators", reason="webdataset is not installed; it comes with softfeed[test]"
    )
    expected = _mixed_folder(tmp_path / "images", encoded)
    convert(tmp_path / "images", tmp_path / "set", ShardOptions(shard_samples=4), workers=1)
    samples = []
    for path in sorted((tmp_path / "set").glob("*.tar")):
        with path.open("rb") as file:  # webdataset.WebDataset leaves the files it opens open
            members = [member | {"__url__": str(path)} for member in tariterators.tar_file_iterator(file)]
        samples += tariterators.group_by_keys(members)
    kinds = ("jpg", "png", "webp", "bmp")
    rows = [
        (sample["name"].decode(), int(sample["cls"]), next(sample[kind] for kind in kinds if kind in sample))
        for sample in samples
    ]
    assert sorted(rows) == sorted(expected)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_raw_pixels_are_those_of_pillow(tmp_path, image_folder, kind):
    source = image_folder(classes=2, each=5, size=(20, 12), kind=kind)
    convert(source, tmp_path / "set", ShardOptions(raw=True), workers=1)
    shards = load(tmp_path / "set")
    assert (shards.manifest.encoding, shards.manifest.raw_shape) == ("raw", (12, 20, 3))
    for name, _, pixels in _stored(shards):
        assert pixels == Image.open(source / name).convert("RGB").tobytes()
    with tarfile.open(shards.shard_paths[0]) as tar:
        assert tar.getnames()[:4] == [f"00000000.{kind}" for kind in ("rgb", "cls", "label", "name")]


def test_raw_images_must_have_one_size(tmp_path, image_folder, encoded):
    source = image_folder(classes=2, each=5, size=(20, 12))
    (source / "class1" / "002.png").write_bytes(encoded(0, size=(13, 12)))
    with pytest.raises(ValueError, match=r"got 12x13 in class1/002.png; .* have them resized: --raw 12x20"):
        convert(source, tmp_path / "set", ShardOptions(raw=True), workers=1)
    with pytest.raises(FileNotFoundError, match="unfinished conversion"):
        load(tmp_path / "set")


def test_sizes_are_recorded_after_exif_rotation(tmp_path, image_folder, encoded):
    source = image_folder(classes=1, each=1)
    exif = Image.Exif()
    exif[0x0112] = 6
    (source / "class0" / "000.png").write_bytes(encoded(1, size=(40, 20), kind="JPEG", exif=exif))
    for check in (True, False):
        convert(source, tmp_path / f"{check}", ShardOptions(check=check), workers=1)
        sample = load(tmp_path / f"{check}").samples[0]
        assert (sample["height"], sample["width"]) == (40, 20)


def _spoil(source):
    """Damages three of the images; returns their names."""
    (source / "class0" / "001.png").write_bytes(b"hello, world")
    path = source / "class1" / "002.png"
    path.write_bytes(path.read_bytes()[:-200])
    (source / "class2" / "003.png").write_bytes(b"")
    return ["class0/001.png", "class1/002.png", "class2/003.png"]


def test_bad_images_are_left_out_and_listed(tmp_path, image_folder):
    source = image_folder(classes=3, each=4)
    names = _spoil(source)
    outcome = convert(source, tmp_path / "set", ShardOptions(shard_samples=5), workers=1, max_bad=3)
    stored = [name for name, _, _ in _stored(load(tmp_path / "set"))]
    assert (len(stored), set(stored) & set(names)) == (9, set())
    listed = json.loads((tmp_path / "set" / "bad.json").read_text())
    assert sorted(entry["name"] for entry in listed) == names
    reasons = {entry["name"]: entry["reason"] for entry in listed}
    assert reasons["class0/001.png"].startswith("not an image")
    assert reasons["class1/002.png"].startswith("png cut short or damaged")
    assert reasons["class2/003.png"] == "empty"
    assert [image.name for image in outcome.bad] == [entry["name"] for entry in listed]


@pytest.mark.parametrize("workers", [1, 2])
def test_links_that_lead_nowhere_are_left_out_and_listed(tmp_path, image_folder, workers):
    source = image_folder(classes=3, each=4)
    images = sorted(source.rglob("*.png"))
    for path, target in ((images[0], "/nowhere/1.png"), (images[5], images[5].name), (images[10], images[11])):
        path.unlink()
        path.symlink_to(target)
    words = r"at most 1 \(--max-bad\), got 2 .*00\d.png: a link that leads nowhere \(to .*allow more"
    with pytest.raises(ValueError, match=words):
        convert(source, tmp_path / "few", workers=workers)
    convert(source, tmp_path / "set", ShardOptions(shard_samples=5), workers=workers, max_bad=2)
    stored = {name for name, _, _ in _stored(load(tmp_path / "set"))}
    assert stored == {str(path.relative_to(source)) for path in images if path.exists()}
    listed = json.loads((tmp_path / "set" / "bad.json").read_text())
    assert {entry["name"]: entry["reason"] for entry in listed} == {
        "class0/000.png": "a link that leads nowhere (to /nowhere/1.png)",
        "class1/001.png": "a link that leads nowhere (to 001.png)",
    }
    images[0].unlink()
    images[0].write_bytes(images[1].read_bytes())
    assert convert(source, tmp_path / "few", workers=1, max_bad=1, overwrite=True).manifest.num_samples == 11


def test_files_that_cannot_be_read_are_left_out_and_listed(tmp_path, image_folder, monkeypatch):
    """The tests may run as root, who may read anything: the system's answers are made here."""
    source, answers = image_folder(classes=2, each=4), {"000.png": errno.EACCES, "002.png": errno.EIO}
    real = os.open

    def refuse(path, *arguments, **options):
        code = answers.get(Path(path).name) if "class1" in str(path) else None
        if code:
            raise OSError(code, os.strerror(code), path)
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
    convert(source, tmp_path / "set", workers=1, max_bad=2)
    listed = json.loads((tmp_path / "set" / "bad.json").read_text())
    assert {entry["name"]: entry["reason"] for entry in listed} == {
        "class1/000.png": "cannot be read (Permission denied)",
        "class1/002.png": "cannot be read (Input/output error)",
    }
    answers["002.png"] = errno.EMFILE  # of this process, not of the file
    with pytest.raises(OSError, match="Too many open files"):
        convert(source, tmp_path / "other", workers=1, max_bad=2)


def test_an_archive_that_cannot_be_read_is_no_bad_image(tmp_path, parquet_file, encoded, monkeypatch):
    path = parquet_file(images=[encoded(seed) for seed in range(4)], labels=[0, 1, 0, 1])
    real = os.open

    def refuse(path, *arguments, **options):
        if "spool" in str(path) and not Path(path).is_dir():
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OSError, match="Input/output error"):
        convert(path, tmp_path / "set", workers=1, max_bad=4)


def test_a_shard_of_bad_images_only_is_dropped(tmp_path, image_folder):
    source = image_folder(classes=2, each=2)
    for path in (source / "class0").iterdir():
        path.write_bytes(b"hello, world")
    convert(source, tmp_path / "set", ShardOptions(shard_samples=2, shuffle=False), workers=1, max_bad=2)
    shards = load(tmp_path / "set")
    assert [path.name for path in shards.shard_paths] == ["shard-000001.tar"]
    assert [name for name, _, _ in _stored(shards)] == ["class1/000.png", "class1/001.png"]
    assert not (tmp_path / "set" / "shard-000000.tar").exists()


def test_too_many_bad_images_end_the_conversion(tmp_path, image_folder):
    source = image_folder(classes=3, each=4)
    _spoil(source)
    words = r"bad images must be at most 1 \(--max-bad\), got 3 in the first 12 \(class\d/00\d.png: .*\); repair or rem"
    with pytest.raises(ValueError, match=words):
        convert(source, tmp_path / "set", workers=1)
    with pytest.raises(FileNotFoundError, match="unfinished conversion"):
        load(tmp_path / "set")
    assert convert(source, tmp_path / "set", workers=1, max_bad=3).written == 0  # what was done is not done again


def test_no_good_image_is_an_error(tmp_path, image_folder):
    source = image_folder(classes=1, each=2)
    for path in (source / "class0").iterdir():
        path.write_bytes(b"hello, world")
    for raw in (False, True):
        with pytest.raises(ValueError, match="source must hold an image that decodes, got none in"):
            convert(source, tmp_path / f"set-{raw}", ShardOptions(raw=raw), workers=1, max_bad=2)


def test_unchecked_conversion_misses_damage_behind_the_header(tmp_path, image_folder):
    source = image_folder(classes=1, each=3, kind="JPEG", size=(90, 60))
    path = source / "class0" / "001.png"
    path.write_bytes(path.read_bytes()[:-200])
    assert convert(source, tmp_path / "loose", ShardOptions(check=False), workers=1).manifest.num_samples == 3
    assert convert(source, tmp_path / "strict", workers=1).manifest.num_samples == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"raw": 0}, "raw must be a positive size in pixels, .*, got 0"),
        ({"raw": (3, -1)}, r"raw must be .*, got \(3, -1\)"),
        ({"shard_samples": 0}, "shard_samples must be positive, got 0"),
        ({"seed": -1}, "seed must be 0 or more, got -1"),
        ({"raw": True, "check": False}, "check must be True with raw, got False"),
        ({"quality": 90, "check": False}, "check must be True with quality, got False"),
        ({"normalize": True, "check": False}, "check must be True with normalize, got False"),
        ({"format": "mds"}, "format must be one of webdataset, tfrecord, recordio, got 'mds'"),
        ({"max_side": 0}, "max_side must be positive, got 0"),
        ({"quality": 0}, r"quality must be in \[1, 100\], got 0"),
        ({"quality": 101}, r"quality must be in \[1, 100\], got 101"),
        ({"subsampling": "411"}, "subsampling must be one of 420, 422, 444, got '411'"),
        ({"raw": True, "max_side": 9}, "max_side must be left out for raw pixels, got 9"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        ShardOptions(**options)


def test_settings_are_checked(tmp_path):
    with pytest.raises(ValueError, match="workers must be positive, got 0"):
        convert(tmp_path, tmp_path / "set", workers=0)
    with pytest.raises(ValueError, match="max_bad must be 0 or more, got -1"):
        convert(tmp_path, tmp_path / "set", max_bad=-1)


def test_progress_ends_at_the_total(tmp_path, parquet_file, encoded):
    calls = []
    path = parquet_file(images=[*(encoded(seed) for seed in range(9)), b"bad"], labels=[0] * 10)
    convert(path, tmp_path / "set", ShardOptions(shard_samples=4), workers=1, progress=lambda *call: calls.append(call))
    assert calls[0] == ("reading", 1, 1, 0, 0)
    assert [call[:3] for call in calls[1:]] == [("converting", done, 10) for done in (0, 4, 8, 10)]
    assert calls[-1][3:] == (1, sum(path.stat().st_size for path in (tmp_path / "set").glob("*.tar")))


def test_manifest_tells_how_the_set_was_made(tmp_path, image_folder):
    source = image_folder()
    convert(source, tmp_path / "set", ShardOptions(seed=5), workers=1)
    created = json.loads((tmp_path / "set" / "dataset.json").read_text())["created"]
    assert created["seed"] == 5
    assert (created["source"], created["source_format"]) == (str(source), "folder")
    assert created["options"]["shard_samples"] == 64


def test_images_of_gigapixel_headers_do_not_stop_it(tmp_path, image_folder):
    """A header may claim any size; here 60,000 x 60,000 in a few bytes."""
    source = image_folder(classes=1, each=3)
    file = io.BytesIO()
    Image.new("1", (8, 8)).save(file, "PNG")
    data = bytearray(file.getvalue())
    data[16:24] = (60000).to_bytes(4, "big") * 2
    (source / "class0" / "001.png").write_bytes(bytes(data))
    outcome = convert(source, tmp_path / "set", workers=1)
    assert [image.name for image in outcome.bad] == ["class0/001.png"]
