"""The three container formats side by side: the same samples, read by softfeed, by DALI and by a scan."""

import struct

import numpy as np
import pytest
import torch
from PIL import Image
from softfeed.pipelines import Loader, presets
from softfeed.pipelines.shards.containers.container import Columns, Entry
from softfeed.pipelines.shards.containers.formats import CONTAINERS
from softfeed.pipelines.shards.convert import convert
from softfeed.pipelines.shards.layout import ShardOptions
from softfeed.pipelines.shards.shard_set import load

FORMATS = tuple(CONTAINERS)
MAGIC = struct.pack("<I", 0xCED7230A)


@pytest.fixture
def photos(tmp_path, encoded):
    """A folder of 3 classes of JPEG and PNG images, some of which hold RecordIO's magic number; and its content."""
    expected = {}
    for row in range(11):
        kind = ("JPEG", "PNG")[row % 2]
        image = encoded(row, size=(20 + row, 16), kind=kind)
        if row in (2, 3, 7):  # behind the image's end, where decoders do not look; aligned, twice and not
            image += bytes(-len(image) % 4) + {2: MAGIC + b"tail", 3: MAGIC * 2, 7: b"x" + MAGIC + b"yyy"}[row]
        name = f"{('ant', 'bee', 'größe')[row % 3]}/two words v1.{row}.jpg"
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image)
        expected[name] = (row % 3, image)
    return tmp_path / "photos", expected


def _converted(source, dest, name, **options):
    convert(source, dest, ShardOptions(format=name, shard_samples=4, **options), workers=1)
    return load(dest)


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_samples_come_back(tmp_path, photos, read_samples, name):
    source, expected = photos
    shards = _converted(source, tmp_path / "set", name)
    read = read_samples(shards)
    assert {sample: (label, image) for sample, label, image in read} == expected
    assert (shards.manifest.format, shards.manifest.classes) == (name, ("ant", "bee", "größe"))
    split = [read[row][0].rpartition(".jpg")[0][-1] for row, _ in shards.manifest.multipart]
    assert sorted(split) == (["2", "3"] if name == "recordio" else [])


@pytest.mark.parametrize("name", FORMATS)
def test_a_scan_finds_what_the_table_says(tmp_path, photos, name):
    source, _ = photos
    shards = _converted(source, tmp_path / "set", name)
    row = 0
    multipart = dict(shards.manifest.multipart)
    for path in shards.shard_paths:
        end = 0
        for entry in CONTAINERS[name].scan(path):
            assert isinstance(entry, Entry)
            assert entry.offset == end
            end = entry.offset + entry.size
            with path.open("rb") as file:
                read = _reader(file)
                (content,) = CONTAINERS[name].contents(entry, read, Columns())
            sample = shards.samples[row]
            assert entry.parts == multipart.get(row, 1)
            assert content.image == (sample["offset"], sample["size"] + 4 * (entry.parts - 1))
            assert content.label == sample["label"]
            row += 1
        assert end + 1024 >= path.stat().st_size - 10240 * (name == "webdataset")
    assert row == len(shards.samples)


def _reader(file):
    def read(offset, size):
        file.seek(offset)
        return file.read(size)

    return read


@pytest.mark.parametrize("name", FORMATS)
def test_dali_reads_it_through_its_indexes(tmp_path, photos, read_samples, by_dali, name):
    source, _ = photos
    shards = _converted(source, tmp_path / "set", name)
    assert len(shards.shard_paths) == 3
    assert by_dali(shards) == [(label, image) for _, label, image in read_samples(shards)]


@pytest.mark.parametrize("name", FORMATS)
def test_raw_pixels_are_read_by_all(tmp_path, image_folder, read_samples, by_dali, name):
    source = image_folder(classes=2, each=5, size=(4, 3))
    shards = _converted(source, tmp_path / name, name, raw=True)
    assert shards.manifest.raw_shape == (3, 4, 3)
    expected = read_samples(_converted(source, tmp_path / "set", "webdataset", raw=True))
    assert read_samples(shards) == expected
    assert by_dali(shards) == [(label, pixels) for _, label, pixels in expected]


def test_pixels_with_the_magic_number_are_joined(tmp_path, read_samples, by_dali):
    """Every pixel row of these images is RecordIO's magic number three times."""
    (tmp_path / "images" / "a").mkdir(parents=True)
    for row in range(3):
        pixels = np.frombuffer(MAGIC * 12, np.uint8).reshape(4, 4, 3).copy()
        pixels[row, 0] = row
        Image.fromarray(pixels).save(tmp_path / "images" / "a" / f"{row}.png")
    shards = _converted(tmp_path / "images", tmp_path / "recordio", "recordio", raw=True)
    assert [parts for _, parts in shards.manifest.multipart] == [12, 12, 12]
    expected = read_samples(_converted(tmp_path / "images", tmp_path / "webdataset", "webdataset", raw=True))
    assert read_samples(shards) == expected
    assert by_dali(shards) == [(label, pixels) for _, label, pixels in expected]


@pytest.mark.parametrize("raw", [False, True])
def test_loaders_give_the_same_batches(tmp_path, photos, image_folder, raw):
    source = image_folder(classes=3, each=4, size=(32, 32)) if raw else photos[0]
    batches = {}
    for name in FORMATS:
        _converted(source, tmp_path / name, name, raw=raw)
        recipe = presets.by_name("soft-cifar" if raw else "soft-imagenet")
        with Loader(tmp_path / name, recipe, 4, image_size=32, device="cpu", seed=3) as loader:
            batches[name] = [tuple(batch) for batch in loader]
            assert loader.source(0).startswith(str(load(tmp_path / name).shard_paths[0]))
    for name in FORMATS[1:]:
        for batch, expected in zip(batches[name], batches["webdataset"], strict=True):
            for values, others in zip(batch, expected, strict=True):
                assert torch.equal(values, others)


@pytest.mark.parametrize("name", FORMATS)
def test_shards_without_a_good_image_are_left_out(tmp_path, photos, read_samples, by_dali, name):
    """DALI refuses an empty file; RecordIO's offsets count the files before."""
    source, expected = photos
    damaged = [sample for sample in sorted(expected) if sample.startswith("bee")]
    for sample in damaged:
        (source / sample).write_bytes(b"hello, world")
    options = ShardOptions(format=name, shard_samples=4, shuffle=False)
    convert(source, tmp_path / "set", options, workers=1, max_bad=4)
    shards = load(tmp_path / "set")
    assert (len(damaged), [shard.samples for shard in shards.manifest.shards]) == (4, [4, 3])
    read = read_samples(shards)
    assert {sample: image for sample, _, image in read} == {
        sample: image for sample, (_, image) in expected.items() if sample not in damaged
    }
    assert by_dali(shards) == [(label, image) for _, label, image in read]


@pytest.mark.parametrize("name", FORMATS)
def test_names_are_utf8_whatever_the_locale(tmp_path, photos, read_samples, monkeypatch, name):
    source, expected = photos
    monkeypatch.setattr("os.fsencode", lambda text: text.encode("latin-1") if isinstance(text, str) else text)
    monkeypatch.setattr("os.fsdecode", lambda data: data.decode("latin-1") if isinstance(data, bytes) else data)
    shards = _converted(source, tmp_path / "set", name)
    assert sorted(shards.sample_name(row) for row in range(11)) == sorted(expected)
