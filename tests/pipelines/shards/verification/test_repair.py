import json
import re
import zlib

import pytest
from softfeed.pipelines.shards.containers.formats import CONTAINERS
from softfeed.pipelines.shards.convert import convert
from softfeed.pipelines.shards.layout import ShardOptions
from softfeed.pipelines.shards.shard_set import load
from softfeed.pipelines.shards.verification.repair import repair
from softfeed.pipelines.shards.verification.verify import verify
from softfeed.train.cli import main

MAGIC = b"\x0a\x23\xd7\xce"


@pytest.fixture(params=sorted(CONTAINERS))
def any_set(request, tmp_path, image_folder):
    """A set of 11 samples in 3 shards and one bad image, in each format."""
    source = image_folder()
    (source / "class2" / "001.png").write_bytes(b"hello, world")
    path = source / "class0" / "001.png"
    path.write_bytes(path.read_bytes() + bytes(-path.stat().st_size % 4) + MAGIC * 2)
    convert(source, tmp_path / "set", ShardOptions(shard_samples=5, format=request.param), workers=1, max_bad=1)
    return tmp_path / "set"


@pytest.fixture
def shard_set(tmp_path, image_folder):
    convert(image_folder(), tmp_path / "set", ShardOptions(shard_samples=5), workers=1)
    return tmp_path / "set"


def _derived(folder):
    """Files that follow from the shards."""
    return sorted(path.name for path in folder.iterdir() if path.suffix in (".idx", ".npy"))


def _manifest(folder, change):
    content = json.loads((folder / "dataset.json").read_text())
    change(content)
    (folder / "dataset.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def test_a_fine_set_is_left_alone(any_set, content):
    before = {path.name: path.stat().st_mtime_ns for path in any_set.iterdir()}
    report = repair(any_set, workers=1)
    assert report.ok
    assert report.repaired == report.unrepaired == ()
    assert {path.name: path.stat().st_mtime_ns for path in any_set.iterdir()} == before


@pytest.mark.parametrize("damage", ["missing", "flipped", "cut", "empty", "link"])
def test_indexes_and_table_come_back_to_the_byte(tmp_path, any_set, content, damage):
    original = content(any_set)
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious")
    names = _derived(any_set)
    for name in names:
        path = any_set / name
        data = bytearray(original[name])
        path.unlink()
        if damage == "flipped":
            data[len(data) // 2] ^= 4
        if damage == "link":
            path.symlink_to(outside)
            path.with_name(name + ".tmp").symlink_to(outside)
        elif damage != "missing":
            path.write_bytes({"flipped": data, "cut": data[:-9], "empty": b""}[damage])
    report = repair(any_set, workers=1)
    assert report.ok, [str(finding) for finding in report.findings]
    assert [line.partition(":")[0] for line in sorted(report.repaired)] == names
    assert report.unrepaired == ()
    assert content(any_set) == original
    assert not any(path.is_symlink() for path in any_set.iterdir())
    assert outside.read_bytes() == b"precious"


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest.update(num_samples=12),
        lambda manifest: manifest["largest"].update(height=17, width=1),
        lambda manifest: manifest["samples"].update(crc32=1, bytes=5),
        lambda manifest: manifest["shards"][1].update(samples=9, bytes=1, crc32=2, index_bytes=3, index_crc32=4),
        lambda manifest: [shard.update(crc32=0) for shard in manifest["shards"]],
        lambda manifest: manifest.update(more="entries"),
    ],
)
def test_entries_of_the_manifest_come_back_to_the_byte(any_set, content, change):
    original = content(any_set)
    _manifest(any_set, change)
    assert not verify(any_set, workers=1).ok
    report = repair(any_set, workers=1)
    assert report.ok, [str(finding) for finding in report.findings]
    assert report.repaired == ("dataset.json: written anew",)
    assert content(any_set) == original


def test_everything_at_once(any_set, content):
    original = content(any_set)
    for name in _derived(any_set):
        (any_set / name).unlink()
    _manifest(any_set, lambda manifest: manifest.update(num_samples=1))
    assert repair(any_set, workers=1).ok
    assert content(any_set) == original


def test_a_damaged_shard_is_never_blessed(any_set, content):
    """An image is changed and, in a second attempt, its checksum in the manifest as well."""
    table = load(any_set).samples
    (path,) = any_set.glob("shard-000001.[tr]*")
    data = bytearray(path.read_bytes())
    data[int(table["offset"][6] + table["size"][6] // 2)] ^= 8
    path.write_bytes(data)
    (any_set / "samples.npy").write_bytes(b"")
    before = content(any_set)
    report = repair(any_set, workers=1)
    assert not report.ok
    is_framed = path.suffix == ".tfrecord"  # has a checksum of every record, so the table cannot be trusted either
    if is_framed:
        assert report.repaired == ()
        assert report.unrepaired == (
            "samples.npy and an index of the whole set follow only from shards that are all whole",
        )
        assert content(any_set) == before
        return
    assert [line.partition(":")[0] for line in report.repaired] == ["samples.npy"]
    (finding,) = report.findings
    assert (finding.file, finding.problem.partition(" as ")[0][:14]) == (path.name, "CRC-32 must be")
    entry = {"crc32": zlib.crc32(bytes(data))}
    _manifest(any_set, lambda manifest: manifest["shards"][1].update(entry))
    before = content(any_set)
    report = repair(any_set, workers=1)
    assert not report.ok
    assert re.match(
        r"dataset.json: something that the shards do not tell was changed \(classes, cr", *report.unrepaired
    )
    assert content(any_set) == before


def test_a_damaged_shard_does_not_keep_other_entries_from_repair(shard_set, content):
    original = content(shard_set)
    table = load(shard_set).samples
    path = shard_set / "shard-000001.tar"
    data = bytearray(path.read_bytes())
    data[int(table["offset"][6] + table["size"][6] // 2)] ^= 8
    path.write_bytes(data)
    _manifest(shard_set, lambda manifest: manifest.update(num_samples=1))
    report = repair(shard_set, workers=1)
    assert report.repaired == ("dataset.json: written anew",)
    (finding,) = report.findings
    assert finding.file == "shard-000001.tar"
    assert content(shard_set)["dataset.json"] == original["dataset.json"]


def test_what_the_shards_do_not_tell_is_not_guessed(any_set, content):
    _manifest(any_set, lambda manifest: manifest["created"].update(seed=7))
    before = content(any_set)
    report = repair(any_set, workers=1)
    (reason,) = report.unrepaired
    assert "restore a copy, or remove its last entry, crc32, to accept it as it is" in reason
    assert content(any_set) == before
    _manifest(any_set, lambda manifest: manifest.pop("crc32"))
    report = repair(any_set, workers=1)
    assert report.ok
    assert load(any_set).manifest.created["seed"] == 7


def test_removing_the_manifests_checksum_does_not_bless_a_shard(shard_set):
    path = shard_set / "shard-000001.tar"
    data = bytearray(path.read_bytes())
    data[int(load(shard_set).samples["offset"][6]) + 60] ^= 8
    path.write_bytes(data)
    _manifest(shard_set, lambda manifest: manifest.pop("crc32"))
    report = repair(shard_set, workers=1)
    assert report.repaired == ("dataset.json: written anew",)
    (finding,) = report.findings
    assert "CRC-32 must be" in finding.problem


def test_a_lost_manifest_is_rebuilt(any_set, content):
    original, before = content(any_set), load(any_set).manifest
    (any_set / "dataset.json").unlink()
    report = repair(any_set, workers=1)
    assert report.ok, [str(finding) for finding in report.findings]
    assert report.decoded
    after = load(any_set).manifest
    assert after.created == {"rebuilt": "softfeed verify --repair", "bad": 1, "odd": 0}
    assert {**vars(after), "created": 0} == {**vars(before), "created": 0}
    rest = content(any_set)
    assert rest.keys() == original.keys()
    assert all(rest[name] == original[name] for name in original if name != "dataset.json")


def test_a_lost_manifest_with_lost_indexes_is_rebuilt(any_set, content):
    original = content(any_set)
    for path in (any_set / "dataset.json", *any_set.glob("*.idx")):
        path.unlink()
    assert repair(any_set, workers=1).ok
    rest = content(any_set)
    assert all(rest[name] == original[name] for name in original if name != "dataset.json")


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_lost_manifest_of_pixels_is_rebuilt(tmp_path, image_folder, name):
    convert(image_folder(), tmp_path / "set", ShardOptions(format=name, raw=True), workers=1)
    (tmp_path / "set" / "dataset.json").unlink()
    assert repair(tmp_path / "set", workers=1).ok
    assert load(tmp_path / "set").manifest.raw_shape == (16, 24, 3)


@pytest.mark.parametrize(
    ("lost", "reason"),
    [
        ("shard-000002.tar", "can only be rebuilt if samples.npy fits the shards"),
        ("samples.npy", "can only be rebuilt if samples.npy fits the shards"),
    ],
)
def test_a_manifest_is_not_rebuilt_from_less_than_all(shard_set, content, lost, reason):
    (shard_set / "dataset.json").unlink()
    (shard_set / lost).unlink()
    before = content(shard_set)
    report = repair(shard_set, workers=1)
    assert not report.ok
    assert reason in report.unrepaired[0]
    assert content(shard_set) == before


def test_a_manifest_is_not_rebuilt_over_damage(shard_set, content):
    path = shard_set / "shard-000000.tar"
    data = bytearray(path.read_bytes())
    data[int(load(shard_set).samples["offset"][2]) + 60] ^= 8  # every image is decoded, though nobody asked for it
    path.write_bytes(data)
    (shard_set / "dataset.json").unlink()
    before = content(shard_set)
    report = repair(shard_set, workers=1)
    assert report.unrepaired == (
        "dataset.json: can only be rebuilt if every shard is whole; restore a copy, or convert again",
    )
    assert content(shard_set) == before


def test_an_unreadable_manifest_is_not_overwritten(shard_set, content):
    text = (shard_set / "dataset.json").read_text()
    (shard_set / "dataset.json").write_text(text[:-9])
    before = content(shard_set)
    report = repair(shard_set, workers=1)
    assert "cannot be read, and classes and origin may be nowhere else" in report.unrepaired[0]
    assert content(shard_set) == before
    (shard_set / "dataset.json").unlink()
    assert repair(shard_set, workers=1).ok


def test_class_names_that_are_nowhere_else_are_not_invented(tmp_path, parquet_file, encoded, content):
    images = [encoded(seed) for seed in range(4)]
    source = parquet_file(images=images, labels=[0, 1, 0, 1], names=["ant", "bee"])
    convert(source, tmp_path / "set", workers=1)
    (tmp_path / "set" / "dataset.json").unlink()
    before = content(tmp_path / "set")
    report = repair(tmp_path / "set", workers=1)
    assert "class names are nowhere else" in report.unrepaired[0]
    assert content(tmp_path / "set") == before


def test_tfrecords_keep_class_names(tmp_path, parquet_file, encoded):
    images = [encoded(seed) for seed in range(4)]
    source = parquet_file(images=images, labels=[0, 1, 0, 1], names=["dog", "bee"])
    convert(source, tmp_path / "set", ShardOptions(format="tfrecord"), workers=1)
    (tmp_path / "set" / "dataset.json").unlink()
    assert repair(tmp_path / "set", workers=1).ok
    assert load(tmp_path / "set").manifest.classes == ("dog", "bee")


def test_a_full_disk_leaves_files_as_they_were(shard_set, content, monkeypatch):
    from softfeed.pipelines import atomic

    (shard_set / "shard-000001.idx").write_bytes(b"v1.2 0\n")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic, "flush", full)
    before = content(shard_set)
    with pytest.raises(OSError, match="No space left"):
        repair(shard_set, workers=1)
    assert {name: data for name, data in content(shard_set).items() if not name.endswith(".tmp")} == before
    monkeypatch.undo()
    assert repair(shard_set, workers=1).ok


def test_an_unfinished_conversion_is_not_repaired(shard_set, content):
    (shard_set / ".partial").mkdir()
    (shard_set / "dataset.json").unlink()
    before = content(shard_set)
    assert not repair(shard_set, workers=1).ok
    assert content(shard_set) == before


def test_the_command_says_what_it_did(shard_set, capsys):
    (shard_set / "shard-000001.idx").unlink()
    assert main(["verify", str(shard_set), "--repair"]) == 0
    assert "  repaired: shard-000001.idx: written anew from shard-000001.tar\n" in capsys.readouterr().out
    path = shard_set / "shard-000001.tar"
    path.write_bytes(path.read_bytes()[:-10240])
    (shard_set / "samples.npy").unlink()
    assert main(["verify", str(shard_set), "--repair"]) == 1
    assert "  not repaired: samples.npy and an index" in capsys.readouterr().out


def test_an_index_that_the_manifest_does_not_record_is_not_written(shard_set, content, mutations):
    files = content(shard_set)
    manifest = json.loads(files["dataset.json"])
    manifest["shards"][0]["index_crc32"] += 1
    (shard_set / "dataset.json").write_bytes(mutations.signed(manifest))
    (shard_set / "shard-000000.idx").unlink()
    before = content(shard_set)
    report = repair(shard_set, workers=1)
    (reason,) = report.unrepaired
    assert reason == "shard-000000.idx: what follows from shard-000000.tar has not the checksum in dataset.json"
    assert content(shard_set) == before
