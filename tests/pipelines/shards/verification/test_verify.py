import json
import os
import subprocess
import sys
import tarfile
import zlib
from contextlib import suppress

import numpy as np
import pytest
from softfeed.pipelines.shards.containers.container import ShardFile, StoredSample
from softfeed.pipelines.shards.containers.formats import CONTAINERS
from softfeed.pipelines.shards.containers.tar import tar_header
from softfeed.pipelines.shards.convert import convert
from softfeed.pipelines.shards.layout import ShardOptions
from softfeed.pipelines.shards.manifest import samples_bytes, to_json
from softfeed.pipelines.shards.shard_set import load
from softfeed.pipelines.shards.verification.derived import manifest_of, table_of
from softfeed.pipelines.shards.verification.findings import MOST_PER_FILE
from softfeed.pipelines.shards.verification.repair import repair
from softfeed.pipelines.shards.verification.survey import survey
from softfeed.pipelines.shards.verification.verify import verify
from softfeed.train.cli import main


@pytest.fixture(params=sorted(CONTAINERS))
def any_set(request, tmp_path, image_folder):
    """A set of 12 samples in 3 shards, in each format."""
    convert(image_folder(), tmp_path / "set", ShardOptions(shard_samples=5, format=request.param), workers=1)
    return tmp_path / "set"


@pytest.fixture
def shard_set(tmp_path, image_folder):
    convert(image_folder(), tmp_path / "set", ShardOptions(shard_samples=5), workers=1)
    return tmp_path / "set"


def _sign(folder, change=None):
    """Put the sizes and checksums in dataset.json right, and its own."""
    content = json.loads((folder / "dataset.json").read_text())
    del content["crc32"]
    if change:
        change(content)
    for entry in (content["samples"], *content["shards"]):
        data = (folder / entry["file"]).read_bytes()
        entry.update(bytes=len(data), crc32=zlib.crc32(data))
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    content["crc32"] = zlib.crc32(text.encode())
    (folder / "dataset.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _problems(report):
    return [str(finding) for finding in report.findings]


def _members(path):
    with tarfile.open(path) as tar:
        return {member.name: member for member in tar}


def test_a_set_as_written_is_fine(any_set):
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in any_set.iterdir()}
    for decode in (False, True):
        report = verify(any_set, decode=decode, workers=1)
        assert report.ok, _problems(report)
        assert (report.samples, report.shards, report.decoded) == (12, 3, decode)
        assert report.bytes == sum(
            len(data) for name, (data, _) in before.items() if name.startswith("shard-0") and not name.endswith("idx")
        )
    assert before == {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in any_set.iterdir()}


@pytest.mark.parametrize("name", CONTAINERS)
@pytest.mark.parametrize(
    "options", [{"raw": True}, {"check": False}, {"shuffle": False, "shard_samples": 1}, {"quality": 80}]
)
def test_sets_made_in_other_ways_are_fine(tmp_path, image_folder, name, options):
    source = image_folder()
    bad = source / "class1" / "002.png"
    bad.write_bytes(b"hello, world")
    convert(source, tmp_path / "set", ShardOptions(format=name, **options), workers=1, max_bad=1)
    report = verify(tmp_path / "set", decode=True, workers=1)
    assert report.ok, _problems(report)
    listed = tmp_path / "set" / "bad.json"
    text = listed.read_text()
    listed.write_text(text.replace("class1", "class2"))
    (problem,) = _problems(verify(tmp_path / "set", workers=1))
    assert problem.startswith("bad.json: CRC-32 must be")
    listed.unlink()
    assert _problems(verify(tmp_path / "set", workers=1)) == ["bad.json: file must exist, got none"]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM", "JPEG2000"])
def test_sizes_in_headers_are_those_of_the_table(tmp_path, image_folder, kind):
    convert(image_folder(kind=kind, size=(33, 20)), tmp_path / "set", workers=1)
    assert verify(tmp_path / "set", workers=1).ok


def test_a_parquet_set_is_fine(tmp_path, parquet_file, encoded):
    source = parquet_file(images=[encoded(seed) for seed in range(9)], labels=[0, 1, 2] * 3)
    convert(source, tmp_path / "set", workers=1)
    assert verify(tmp_path / "set", workers=1).ok


def test_workers_find_the_same(shard_set):
    data = bytearray((shard_set / "samples.npy").read_bytes())
    data[300] ^= 1
    (shard_set / "samples.npy").write_bytes(data)
    calls = []
    one, two = verify(shard_set, workers=1), verify(shard_set, workers=2, progress=lambda *call: calls.append(call))
    assert one.findings == two.findings
    assert len(one.findings) == 2
    assert [call[:3] for call in calls] == [("verifying", 5, 12), ("verifying", 10, 12), ("verifying", 12, 12)]
    with pytest.raises(ValueError, match="workers must be positive, got 0"):
        verify(shard_set, workers=0)


def test_a_problem_has_file_offset_sample_and_name(shard_set):
    path = shard_set / "shard-000001.tar"
    member = _members(path)["00000007.cls"]
    data = bytearray(path.read_bytes())
    data[member.offset_data] = ord("2" if data[member.offset_data] != ord("2") else "1")
    path.write_bytes(data)
    report = verify(shard_set, workers=1)
    assert {finding.file for finding in report.findings} == {"shard-000001.tar"}
    differing = [finding for finding in report.findings if "member .label" in finding.problem]
    (finding,) = differing
    label = _members(path)["00000007.label"]
    assert finding.offset == label.offset_data
    assert finding.sample == 7
    assert finding.name == load(shard_set).sample_name(7)
    crc = [finding for finding in report.findings if "CRC-32 must be" in finding.problem]
    assert len(crc) == 1


def test_problems_of_a_file_are_capped_and_counted(tmp_path, image_folder):
    convert(image_folder(classes=2, each=20), tmp_path / "set", ShardOptions(shard_samples=40), workers=1)
    path = tmp_path / "set" / "shard-000000.idx"
    path.write_text(path.read_text().replace("cls", "clz"))
    report = verify(tmp_path / "set", workers=1)
    assert len(report.findings) == MOST_PER_FILE
    assert report.unlisted == {"shard-000000.idx": 40 - MOST_PER_FILE}


def test_people_are_told_what_to_do_about_a_damaged_shard(shard_set, capsys):
    path = shard_set / "shard-000001.tar"
    data = bytearray(path.read_bytes())
    data[int(load(shard_set).samples["offset"][6]) + 40] ^= 1
    path.write_bytes(data)
    copied = "copy shard-000001.tar anew from where the set came from, or convert again\n"
    assert main(["verify", str(shard_set)]) == 1
    assert capsys.readouterr().out.endswith(f"\nwhat to do  {copied}")
    assert main(["verify", str(shard_set), "--repair"]) == 1
    assert capsys.readouterr().out.endswith(f"\nwhat to do  --repair never changes shards: {copied}")


def test_people_are_told_what_repair_does(shard_set, capsys):
    (shard_set / "shard-000000.idx").unlink()
    assert main(["verify", str(shard_set)]) == 1
    advice = (
        f"what to do  softfeed verify --repair {shard_set} writes shard-000000.idx anew, as far as whole shards prove"
    )
    assert advice in capsys.readouterr().out
    assert main(["verify", str(shard_set), "--repair"]) == 0
    assert "what to do" not in capsys.readouterr().out


def test_a_manifest_is_not_blamed_for_records_that_a_shard_has_lost(shard_set):
    entry = load(shard_set).manifest.shards[0]
    path = shard_set / entry.file
    data = bytearray(path.read_bytes())
    header = int(load(shard_set).samples["offset"][2]) - 512
    data[header : header + 2048] = b"junk" * 512
    path.write_bytes(data)
    report = verify(shard_set, workers=1)
    assert {finding.file for finding in report.findings} == {entry.file}
    counts = [problem for problem in _problems(report) if "records that can be read" in problem]
    assert counts == [f"{entry.file}: shard has 2 records that can be read, dataset.json says {entry.samples}"]


def test_image_bits_need_decoding_when_checksums_were_computed_anew(tmp_path, image_folder):
    convert(image_folder(size=(90, 60)), tmp_path / "set", ShardOptions(shard_samples=5), workers=1)
    path = tmp_path / "set" / "shard-000000.tar"
    data = bytearray(path.read_bytes())
    table = load(tmp_path / "set").samples
    data[int(table["offset"][2] + table["size"][2] // 2)] ^= 0x40
    path.write_bytes(data)
    (problem,) = _problems(verify(tmp_path / "set", workers=1))
    assert problem.startswith("shard-000000.tar: CRC-32 must be")
    assert "every record in it is whole" in problem
    _sign(tmp_path / "set")
    assert verify(tmp_path / "set", workers=1).ok  # nothing is left that could tell
    (problem,) = _problems(verify(tmp_path / "set", decode=True, workers=1))
    assert problem.startswith(f"shard-000000.tar at byte {table['offset'][2]}, sample 2 (class")
    assert "image must decode, got png cut short or damaged" in problem


def test_class_names_are_compared_with_what_the_samples_say(any_set):
    _sign(any_set, lambda content: content["classes"].__setitem__(1, "cat"))
    report = verify(any_set, workers=1)
    assert not report.ok
    assert any("must begin with the class 'cat' of its label 1" in problem for problem in _problems(report))


def test_a_changed_class_name_breaks_the_manifests_own_checksum(tmp_path, parquet_file, encoded):
    convert(
        parquet_file(images=[encoded(0), encoded(1)], labels=[0, 1], names=["ant", "bee"]), tmp_path / "set", workers=1
    )
    path = tmp_path / "set" / "dataset.json"
    path.write_text(path.read_text().replace("bee", "fly"))
    (problem,) = _problems(verify(tmp_path / "set", workers=1))
    assert problem.startswith("dataset.json: content must have the CRC-32 that it ends with")
    _sign(tmp_path / "set")
    assert verify(tmp_path / "set", workers=1).ok  # nothing is left that could tell


def test_duplicate_originals_are_found(tmp_path, image_folder, monkeypatch):
    source = image_folder()
    from softfeed.pipelines.shards.sources.opening import FolderSource

    names = FolderSource.names
    monkeypatch.setattr(
        FolderSource, "names", lambda self, rows: [name.replace("001", "000") for name in names(self, rows)]
    )
    convert(source, tmp_path / "set", ShardOptions(format="tfrecord", shard_samples=5), workers=1)
    problems = _problems(verify(tmp_path / "set", workers=1))
    assert len(problems) == 3
    assert all("original name must be of one sample only, got that of sample" in problem for problem in problems)


def test_a_decompression_bomb_is_refused(tmp_path, image_folder):
    """An image whose header now claims 65,000 x 65,000 pixels: the memory stays bounded, with or without decoding."""
    source = image_folder(classes=2, each=2)
    convert(source, tmp_path / "set", workers=1)
    path = tmp_path / "set" / "shard-000000.tar"
    data, table = bytearray(path.read_bytes()), load(tmp_path / "set").samples
    start = int(table["offset"][1]) + 12  # of the first chunk's name
    data[start + 4 : start + 12] = (65000).to_bytes(4, "big") * 2
    data[start + 17 : start + 21] = zlib.crc32(data[start : start + 17]).to_bytes(4, "big")
    path.write_bytes(data)
    code = (
        "import resource, sys\nfrom softfeed.pipelines.shards.verification.verify import verify\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "reports = [verify(sys.argv[1], workers=1, decode=decode) for decode in (False, True)]\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
        "for report in reports: print(report.findings[0])"
    )
    run = subprocess.run([sys.executable, "-c", code, tmp_path / "set"], capture_output=True, text=True, check=True)
    used, *problems = run.stdout.splitlines()
    assert int(used) < 200_000  # kB; its pixels would take 12.7 GB
    for problem in problems:
        assert "sample 1 (class" in problem
        assert "image must decode, got 65000 x 65000 pixels, more than" in problem


def _outside(tmp_path):
    """A file outside of a set, as it is and as it must stay."""
    path = tmp_path / "outside"
    path.write_bytes(b"precious")
    return path, path.stat().st_mtime_ns


@pytest.mark.parametrize("format_name", ["ustar", "gnu", "pax"])
def test_hostile_archives_write_nothing_and_are_named(tmp_path, shard_set, format_name):
    outside, modified = _outside(tmp_path)
    path = shard_set / "shard-000002.tar"
    members = []
    for name, kind, link in (
        (f"{tmp_path}/absolute.jpg", tarfile.REGTYPE, ""),
        ("../../up.jpg", tarfile.REGTYPE, ""),
        ("00000010.jpg", tarfile.SYMTYPE, str(outside)),
        ("00000010.cls", tarfile.LNKTYPE, "../outside"),
        ("00000010.label", tarfile.CHRTYPE, ""),
        ("00000010.name", tarfile.BLKTYPE, ""),
        ("00000011.jpg", tarfile.FIFOTYPE, ""),
    ):
        member = tarfile.TarInfo(name)
        member.type, member.linkname, member.devmajor, member.devminor = kind, link, 1, 5
        members.append(member)
    kinds = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
    listing = sorted(tmp_path.rglob("*"))
    for member in members:
        with tarfile.open(path, "w", format=kinds[format_name]) as tar:
            tar.addfile(member)
        _sign(shard_set)
        report = verify(shard_set, decode=True, workers=1)
        (first, *_) = [finding for finding in report.findings if finding.offset is not None]
        assert first.file == "shard-000002.tar"
        assert "is a " in first.problem or "leads out" in first.problem
        load(shard_set)  # looks at no member
    assert sorted(tmp_path.rglob("*")) == listing
    assert (outside.read_bytes(), outside.stat().st_mtime_ns) == (b"precious", modified)


@pytest.mark.parametrize("kind", ["link", "broken link", "loop", "pipe", "folder", "device"])
def test_what_is_no_file_is_not_opened(tmp_path, any_set, kind):
    outside, _ = _outside(tmp_path)
    for path in sorted(any_set.iterdir()):
        data = path.read_bytes()
        path.unlink()
        if kind == "link":
            outside.write_bytes(data)  # even what has the right content
            path.symlink_to(outside)
        elif kind == "broken link":
            path.symlink_to(tmp_path / "nowhere")
        elif kind == "loop":
            path.symlink_to(path)
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        else:
            path.symlink_to("/dev/zero")
        report = verify(any_set, workers=1)
        assert any(
            finding.file == path.name and "must be a file in the set's folder, got" in finding.problem
            for finding in report.findings
        )
        with pytest.raises((ValueError, FileNotFoundError)):
            load(any_set)
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        path.write_bytes(data)
    assert not (tmp_path / "nowhere").exists()
    assert verify(any_set, workers=1).ok


@pytest.mark.parametrize("name", ["/etc/hostname", "../outside", "..", "a/../../outside"])
def test_names_in_the_manifest_do_not_lead_outside(tmp_path, shard_set, name):
    _outside(tmp_path)
    path = shard_set / "dataset.json"
    path.write_text(path.read_text().replace("shard-000001.tar", name))
    report = verify(shard_set, workers=1)
    assert any("where a plain one belongs" in finding.problem for finding in report.findings)
    assert not any("precious" in problem for problem in _problems(report))


def test_a_huge_file_is_not_read(shard_set):
    with (shard_set / "shard-000001.idx").open("r+b") as file:
        file.truncate(1 << 40)
    with (shard_set / "shard-000000.tar").open("r+b") as file:
        file.truncate(1 << 40)
    problems = _problems(verify(shard_set, workers=1))
    assert sum("it was not read" in problem for problem in problems) == 2


def test_names_with_control_characters_do_not_reach_the_terminal(tmp_path, image_folder):
    source = image_folder(classes=1, each=2)
    (source / "class0" / "000.png").rename(source / "class0" / "a\x1b[2J\nb.png")
    convert(source, tmp_path / "set", workers=1)
    path = tmp_path / "set" / "shard-000000.tar"
    data = bytearray(path.read_bytes())
    for member in _members(path).values():
        if member.name.endswith(".label"):
            data[member.offset_data] ^= 1
    path.write_bytes(data)
    assert all(problem.isprintable() for problem in _problems(verify(tmp_path / "set", workers=1)))


def test_an_unfinished_conversion_is_called_so(shard_set, capsys):
    (shard_set / ".partial").mkdir()
    (problem,) = _problems(verify(shard_set, workers=1))
    assert problem.startswith(".partial: conversion must have cleaned up, got its work folder; run softfeed convert")
    (shard_set / "dataset.json").unlink()
    assert main(["verify", str(shard_set)]) == 1
    shown = capsys.readouterr().out
    assert "got an unfinished conversion; run the same softfeed convert command again to finish it" in shown


def test_the_command(tmp_path, shard_set, capsys):
    assert main(["verify", str(shard_set), "--workers", "1"]) == 0
    shown = capsys.readouterr()
    assert "12 samples in 3 shards" in shown.out
    assert "of images only the headers read" in shown.out
    assert "problems    none" in shown.out
    assert shown.err == "verifying: 12 of 12 images" + shown.err.removeprefix("verifying: 12 of 12 images")
    data = (shard_set / "shard-000001.idx").read_bytes()
    (shard_set / "shard-000001.idx").write_bytes(data.replace(b"cls", b"clz"))
    assert main(["verify", str(shard_set), "--decode"]) == 1
    assert "shard-000001.idx at byte 7, sample 5: line 2 must be 'png " in capsys.readouterr().out
    for wrong in (tmp_path / "nowhere", tmp_path / "images", tmp_path / "set" / "dataset.json"):
        assert main(["verify", str(wrong)]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert main(["verify", str(tmp_path)]) == 2
    assert f"; name one of the sets in it, such as {shard_set}\n" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["verify", str(shard_set), "--nonsense"])


def test_the_report_as_json(shard_set, capsys):
    (shard_set / "samples.npy").unlink()
    (shard_set / "notes.txt").write_text("mine")
    assert main(["verify", str(shard_set), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    elapsed = report.pop("elapsed_s")
    assert elapsed > 0
    entry = {"offset": None, "sample": None, "name": None}
    assert report == {
        "set": str(shard_set),
        "ok": False,
        "findings": [
            {"file": "samples.npy", "problem": "file must exist, got none", **entry},
            {"file": "notes.txt", "problem": "file must not be in a shard set, dataset.json does not name it", **entry},
        ],
        "unlisted": {},
        "samples": 12,
        "shards": 3,
        "bytes": sum(path.stat().st_size for path in shard_set.glob("*.tar")),
        "decoded": False,
        "repaired": [],
        "unrepaired": [],
    }


def _rebuild(folder):
    """Make indexes, table and manifest fit the shards, as an attacker or a careless script would."""
    for _ in range(2):  # an index is only called wrong when the manifest agrees that it is
        found = survey(folder, decode=False, workers=1, progress=None)
        for entry, shard in zip(found.manifest.shards, found.shards, strict=True):
            if shard.index is not None:
                (folder / entry.index).write_bytes(shard.index)
        (folder / "samples.npy").write_bytes(samples_bytes(table_of(found.shards)))
        (folder / "dataset.json").write_text(to_json(manifest_of(found.manifest, found.shards)))


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("webdataset", "double_record", "has a second member"),
        ("webdataset", "swap_records", "key must be greater than"),
        ("webdataset", "swap_files", "the images of the source up to there, got"),
        ("webdataset", "drop_record", "the images of the source up to there, got"),
        ("tfrecord", "double_record", "original name must be of one sample only, got that of sample"),
    ],
)
def test_records_moved_with_everything_rebuilt_are_found(tmp_path, image_folder, mutations, name, kind, message):
    folder = tmp_path / "set"
    convert(image_folder(), folder, ShardOptions(shard_samples=4, format=name), workers=1)
    files = original = {path.name: path.read_bytes() for path in folder.iterdir()}
    moved = 0
    for seed in range(6):
        files = dict(original)
        getattr(mutations, kind)(np.random.default_rng(seed), files, tmp_path)
        if files["shard-000000.idx"] != original["shard-000000.idx"] or files == original:
            continue  # indexes were swapped, or a file with itself
        for file, data in files.items():
            (folder / file).write_bytes(data)
        moved += 1
        _rebuild(folder)
        problems = _problems(verify(folder, decode=True, workers=1))
        assert any(message in problem for problem in problems), problems
        assert not any("CRC-32" in problem for problem in problems)
    assert moved


@pytest.mark.parametrize("number", [10**30, 1 << 63, (1 << 53) - 1, 1 << 33])
def test_huge_numbers_in_the_manifest_are_named(any_set, mutations, number):
    text = (any_set / "dataset.json").read_bytes()
    paths = [path for path in mutations.leaves_of(json.loads(text)) if path[0] not in ("created", "crc32")]
    tried = 0
    for path in paths:
        content = json.loads(text)
        parent = content
        for key in path[:-1]:
            parent = parent[key]
        if not isinstance(parent[path[-1]], int):
            continue
        parent[path[-1]] = number
        (any_set / "dataset.json").write_bytes(mutations.signed(content))
        report = verify(any_set, workers=1)
        assert any("dataset.json" in str(finding) for finding in report.findings), path
        assert not repair(any_set, workers=1).repaired
        with suppress(ValueError):
            load(any_set)
        tried += 1
    assert tried > 15


def test_a_key_of_64_bits_is_named(tmp_path, image_folder):
    convert(image_folder(), tmp_path / "set", ShardOptions(shard_samples=5, format="recordio"), workers=1)
    path = tmp_path / "set" / "shard-000000.rec"
    data = bytearray(path.read_bytes())
    data[8 + 15] |= 0x80  # the first part's head, then flag, label and the top byte of the key
    path.write_bytes(data)
    problems = _problems(verify(tmp_path / "set", workers=1))
    rule = f"key must be at most {2**63 - 1}, got {2**63}"
    assert any(problem.startswith("shard-000000.rec at byte 0, sample 0 (") and rule in problem for problem in problems)


def test_a_label_beyond_the_table_is_named_without_a_manifest(shard_set):
    path = shard_set / "shard-000000.tar"
    member = next(member for name, member in _members(path).items() if name.endswith(".cls"))
    label = b"99999999999"
    data = bytearray(path.read_bytes())
    data[member.offset : member.offset + 512] = tar_header(member.name, len(label))
    data[member.offset_data : member.offset_data + len(label)] = label
    path.write_bytes(data)
    (shard_set / "dataset.json").unlink()
    problems = _problems(verify(shard_set, workers=1))
    assert any("label must be in [0, 2147483648), got 99999999999" in problem for problem in problems)


@pytest.mark.parametrize("bits", [31, 40])
def test_a_label_beyond_the_table_is_named_in_tfrecords(tmp_path, image_folder, bits):
    folder = tmp_path / "set"
    convert(image_folder(), folder, ShardOptions(format="tfrecord"), workers=1)
    path = folder / "shard-000000.tfrecord"
    sample = StoredSample(0, path.read_bytes()[:9], "png", 1 << bits, "a", "a/1.png", 1, 1)
    writer = CONTAINERS["tfrecord"].open_writer(ShardFile(path))
    writer.add(sample._replace(image=next((tmp_path / "images").rglob("*.png")).read_bytes()))
    writer.finish()
    (folder / "dataset.json").unlink()
    problems = _problems(verify(folder, workers=1))
    assert any(f"label must be in [0, 2147483648), got {1 << bits}" in problem for problem in problems)


def test_a_huge_table_is_not_read_without_a_manifest(shard_set):
    (shard_set / "dataset.json").unlink()
    most = (1 << 20) + 2 * sum(path.stat().st_size for path in shard_set.glob("*.tar"))
    with (shard_set / "samples.npy").open("r+b") as file:
        file.truncate(most + 1)
    rule = f"samples.npy: file must be at most {most} bytes without dataset.json, got {most + 1}; it was not read"
    assert rule in _problems(verify(shard_set, workers=1))
    with (shard_set / "samples.npy").open("r+b") as file:
        file.truncate(most)
    assert not any("it was not read" in problem for problem in _problems(verify(shard_set, workers=1)))


@pytest.mark.parametrize(("bad", "key"), [(0, 5), (0, 1 << 61), (3, 1 << 61)])
def test_of_two_shards_whose_keys_disagree_the_wrong_one_is_named(tmp_path, image_folder, bad, key):
    """The last key of the first shard is 4; as 5 or more it collides with that of the second, which is right."""
    folder = tmp_path / "set"
    source = image_folder()
    for number in range(bad):
        (source / "class0" / f"zz{number}.png").write_bytes(b"none")
    convert(source, folder, ShardOptions(shard_samples=5, format="recordio"), workers=1, max_bad=bad)
    path = folder / "shard-000000.rec"
    start = int(load(folder).samples["offset"][4]) - 16  # of the key; a number of 8 bytes is between it and the image
    path.write_bytes(path.read_bytes()[:start] + key.to_bytes(8, "little") + path.read_bytes()[start + 8 :])
    _sign(folder)
    (finding,) = verify(folder, workers=1).findings
    assert (finding.file, finding.sample) == ("shard-000000.rec", 4)
    assert finding.problem == f"key must be below {5 + bad}, the images of the source up to there, got {key}"
