import json
import os
import time
import zlib

import numpy as np
import pytest
from softfeed.pipelines.shards import manifest
from softfeed.pipelines.shards.convert import convert
from softfeed.pipelines.shards.layout import ShardOptions
from softfeed.pipelines.shards.manifest import SAMPLE_DTYPE, Manifest, Shard
from softfeed.pipelines.shards.shard_set import is_shard_set, load
from softfeed.pipelines.shards.verification.repair import repair


@pytest.fixture
def shard_set(tmp_path, image_folder):
    convert(image_folder(), tmp_path / "set", ShardOptions(shard_samples=5), workers=1)
    return tmp_path / "set"


def _edit(folder, change):
    """Rewrite dataset.json with `change` applied to its content."""
    path = folder / "dataset.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def _edit_table(folder, change):
    """Rewrite samples.npy with `change` applied, and its checksum in dataset.json."""
    table = np.load(folder / "samples.npy")
    change(table)
    np.save(folder / "samples.npy", table)
    checksum = zlib.crc32((folder / "samples.npy").read_bytes())
    _edit(folder, lambda content: content["samples"].update(crc32=checksum))


def test_loads_what_was_written(shard_set):
    loaded = load(shard_set)
    assert manifest.from_json(manifest.to_json(loaded.manifest)) == loaded.manifest
    assert loaded.samples.dtype == SAMPLE_DTYPE
    assert isinstance(loaded.samples, np.memmap)
    assert not loaded.samples.flags.writeable
    with pytest.raises(IndexError, match=r"row must be in \[0, 12\), got 12"):
        loaded.sample_name(12)


def test_loads_with_numpy_1_26_which_has_no_bool(shard_set, monkeypatch):
    monkeypatch.delitem(vars(np), "bool", raising=False)
    assert len(load(shard_set).samples) == 12


# What to do about a file, which is then done where it can be
ADVICE = [
    ("shard-000001.tar", "convert again or copy it back"),
    ("shard-000002.idx", "softfeed verify --repair .*set writes it anew"),
    ("samples.npy", "softfeed verify --repair .*set writes it anew"),
]


@pytest.mark.parametrize(("name", "advice"), ADVICE)
def test_missing_file(shard_set, name, advice):
    (shard_set / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"{name} must exist, dataset.json lists it; {advice}"):
        load(shard_set)
    if "repair" in advice:
        repair(shard_set, workers=1)
        load(shard_set)


@pytest.mark.parametrize(("name", "advice"), ADVICE)
def test_cut_file(shard_set, name, advice):
    data = (shard_set / name).read_bytes()
    (shard_set / name).write_bytes(data[:-7])
    message = rf"set: {name} must be {len(data)} bytes .*, got {len(data) - 7}; {advice}"
    with pytest.raises(ValueError, match=message):
        load(shard_set)
    if "repair" in advice:
        repair(shard_set, workers=1)
        load(shard_set)


def test_table_of_another_set(shard_set):
    data = bytearray((shard_set / "samples.npy").read_bytes())
    data[-1] ^= 1
    (shard_set / "samples.npy").write_bytes(data)
    with pytest.raises(ValueError, match=r"samples.npy must have the checksum in dataset.json"):
        load(shard_set)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.update(num_samples=11), "samples.npy must hold 11 samples as num_samples in"),
        (lambda content: content["shards"].pop(), "num_samples .* must equal the 10 samples of its shards, got 12"),
        (lambda content: content["classes"].pop(), r"samples.npy must have labels in \[0, 2\)"),
        (lambda content: content["largest"].update(width=25), r"must have the largest size \(16, 25\)"),
        (
            lambda content: content.update(format="mds"),
            "must be 'webdataset' or 'tfrecord' or 'recordio', got 'mds'",
        ),
        (lambda content: content.update(format_version=2), "format_version .* must be 1, got 2; .* open the set with"),
        (lambda content: content.pop("shards"), r"must hold a whole manifest, got KeyError\('shards'\); convert again"),
        (lambda content: content.update(encoding="raw"), "must hold a whole manifest, got .*'raw' with raw_shape None"),
        (lambda content: content["shards"][0].update(samples=4) or content["shards"][1].update(samples=6), "count of"),
    ],
)
def test_edited_manifest(shard_set, change, message):
    _edit(shard_set, change)
    with pytest.raises(ValueError, match=f"shard set {shard_set}: .*{message}"):
        load(shard_set)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("label", 3, r"have labels in \[0, 3\)"),
        ("label", -1, r"have labels in \[0, 3\)"),
        ("shard", 3, "name one of 3 shards in every row"),
        ("shard", 1, "have each shard's count of samples"),
        ("offset", 513, "have offset and size inside the shard"),
        ("offset", (1 << 63) - 512, "have offset and size inside the shard"),
        ("offset", 1 << 40, "have offset and size inside the shard"),
        ("size", 0, "have offset and size inside the shard"),
        ("name_size", 1 << 30, "have name_offset and name_size inside the shard"),
        ("height", 0, "have positive heights and widths"),
    ],
)
def test_edited_table(shard_set, field, value, message):
    _edit_table(shard_set, lambda table: table[field].__setitem__(0, value))
    with pytest.raises(ValueError, match=f"samples.npy must {message}, got other rows; convert again"):
        load(shard_set)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.update(num_samples="12"), "num_samples '12' where 0 or more belongs"),
        (lambda content: content.update(num_samples=True), "num_samples True where 0 or more belongs"),
        (lambda content: content.update(num_samples=0), "no sample"),
        (lambda content: content.update(classes="abc"), "classes 'abc' where list belongs"),
        (lambda content: content.update(classes=["a", 2, "c"]), "2 in classes where str belongs"),
        (lambda content: content.update(raw_shape=[16, 24]), "not enough values to unpack"),
        (lambda content: content.update(encoding="raw", raw_shape=[16, 24, 4]), r"where \[height, width, 3\] belongs"),
        (lambda content: content["shards"][1].update(bytes=10240.0), "bytes 10240.0 where 0 or more belongs"),
        (lambda content: content["shards"][1].update(crc32=-1), "crc32 -1 where 0 or more belongs"),
        (lambda content: content["shards"][1].update(more=1), "unexpected keyword argument 'more'"),
        (lambda content: content["shards"].append(content["shards"][0]), "the file shard-000000.tar listed twice"),
        (lambda content: content["shards"][0].update(index="shard-000001.idx"), "shard-000001.idx listed twice"),
        *(
            (lambda content, name=name: content["shards"][1].update(file=name), "file name '.*' where a plain one")
            for name in ("/etc/passwd", "../shard-000001.tar", ".", "..", "", "a/b.tar", "a\0b", ".hidden", "x\n")
        ),
        (lambda content: content["samples"].update(file="../samples.npy"), "file name '../samples.npy' where a plain"),
    ],
)
def test_manifest_with_an_entry_of_a_wrong_type(shard_set, change, message):
    _edit(shard_set, change)
    with pytest.raises(ValueError, match=rf"must hold a whole manifest, got \w+\(.*{message}.*; convert again"):
        load(shard_set)


@pytest.mark.parametrize("name", ["dataset.json", "samples.npy", "shard-000001.tar", "shard-000002.idx"])
def test_links_and_pipes_are_not_followed(shard_set, tmp_path, name):
    (shard_set / name).rename(tmp_path / name)
    (shard_set / name).symlink_to(tmp_path / name)
    with pytest.raises(ValueError, match=f"set: {name} must be a file in the set's folder, got a link; copy the file"):
        load(shard_set)
    (shard_set / name).unlink()
    os.mkfifo(shard_set / name)
    with pytest.raises(
        (ValueError, FileNotFoundError), match=f"{name} must be a file .*, got no file|must hold {name}, got none"
    ):
        load(shard_set)


def test_the_manifest_ends_with_its_own_checksum(shard_set):
    text = (shard_set / "dataset.json").read_text()
    content = json.loads(text)
    checksum = content.pop("crc32")
    assert list(json.loads(text))[-1] == "crc32"
    assert checksum == zlib.crc32((json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


@pytest.mark.parametrize("text", ['{"format": ', "[" * 100_000, "\x00", ""])
def test_manifest_that_is_no_json(shard_set, text):
    (shard_set / "dataset.json").write_text(text)
    with pytest.raises(ValueError, match=r"dataset\.json must be JSON, got "):
        load(shard_set)


def test_manifest_that_is_cut_short(shard_set):
    (shard_set / "dataset.json").write_text('{"format": ')
    with pytest.raises(ValueError, match=r"dataset\.json must be JSON, got Expecting value"):
        load(shard_set)


def test_raw_table_must_hold_whole_images(tmp_path, image_folder):
    convert(image_folder(), tmp_path / "set", ShardOptions(raw=True), workers=1)
    _edit_table(tmp_path / "set", lambda table: table["size"].__setitem__(0, 5))
    with pytest.raises(ValueError, match="must have 1152 bytes per raw image"):
        load(tmp_path / "set")


def test_what_is_no_shard_set(tmp_path, image_folder):
    with pytest.raises(FileNotFoundError, match=r"shard set must be a folder, got .*nowhere"):
        load(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"must hold dataset.json, got none in .*images; run softfeed convert"):
        load(image_folder())
    assert not is_shard_set(tmp_path / "images")
    assert not is_shard_set(tmp_path / "nowhere")


def test_a_set_as_large_as_imagenet_opens_at_once(tmp_path):
    """1.28 million samples in 1,300 shards; files of the right size are enough, `load` reads no shard."""
    shards, each = 1300, 985
    table = np.zeros(shards * each, SAMPLE_DTYPE)
    table["shard"] = np.repeat(np.arange(shards), each)
    table["offset"] = table["name_offset"] = 512
    table["size"] = table["name_size"] = table["height"] = table["width"] = 1
    entries = [
        Shard(f"shard-{number:06d}.tar", f"shard-{number:06d}.idx", each, 10240, 0, 10, 0) for number in range(shards)
    ]
    for entry in entries:
        (tmp_path / entry.file).write_bytes(bytes(entry.bytes))
        (tmp_path / entry.index).write_bytes(bytes(entry.index_bytes))
    samples = manifest.write_samples(tmp_path, table)
    made = Manifest("original", None, ("a",), len(table), (1, 1), samples, tuple(entries), {})
    manifest.write(tmp_path, made)
    begin = time.process_time()  # others may have the core meanwhile
    load(tmp_path)
    assert time.process_time() - begin < 2
