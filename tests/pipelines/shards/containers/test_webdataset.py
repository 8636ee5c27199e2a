import struct
import tarfile
import zlib

import pytest
from softfeed.pipelines.shards.containers import webdataset
from softfeed.pipelines.shards.containers.container import Problem, ShardFile, StoredSample
from softfeed.pipelines.shards.containers.tar import tar_header
from softfeed.pipelines.shards.containers.webdataset import ShardWriter


def _write(path, samples):
    writer = ShardWriter(ShardFile(path))
    return [writer.add(sample) for sample in samples], writer.finish(), writer.index_text()


def _sample(key, image, label=3, extension="jpg"):
    return StoredSample(key, image, extension, label, "cat", f"cats/{key} größe.jpg", 1, 1)


def test_header_is_a_plain_ustar_header():
    info = tarfile.TarInfo.frombuf(tar_header("00000007.jpg", 123456789), "ascii", "strict")
    assert (info.name, info.size, info.type) == ("00000007.jpg", 123456789, tarfile.REGTYPE)
    assert (info.mode, info.uid, info.gid, info.mtime, info.uname, info.gname) == (0o644, 0, 0, 0, "", "")


def test_header_refuses_what_it_cannot_hold():
    with pytest.raises(ValueError, match="must be 1 to 100 ASCII characters"):
        tar_header("x" * 101, 1)
    with pytest.raises(ValueError, match=f"below 8 GiB for a USTAR member, got {8**11}"):
        tar_header("a.jpg", 8**11)


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 20000])
def test_tarfile_reads_it_and_places_are_true(tmp_path, size):
    path = tmp_path / "s.tar"
    data = bytes(range(256)) * 100
    samples = [_sample(0, data[:size]), _sample(1, data[1:7], label=70000)]
    placed, summary, _ = _write(path, samples)
    written = path.read_bytes()
    assert (summary.bytes, summary.crc32) == (len(written), zlib.crc32(written))
    assert len(written) % 10240 == 0
    with tarfile.open(path, "r:", errorlevel=2) as tar:
        read = {member.name: tar.extractfile(member).read() for member in tar}
    assert read == {
        f"{sample.key:08d}.{extension}": value
        for sample in samples
        for extension, value in {
            "jpg": sample.image,
            "cls": str(sample.label).encode(),
            "label": struct.pack("<i", sample.label),
            "name": sample.name.encode(),
        }.items()
    }
    for sample, found in zip(samples, placed, strict=True):
        for place, value in ((found.image, sample.image), (found.name, sample.name.encode())):
            assert written[place.offset : place.offset + place.size] == value


def test_index_names_every_member(tmp_path):
    _, _, index = _write(tmp_path / "s.tar", [_sample(0, b"abc"), _sample(1, b"d" * 600, 42, "png")])
    assert index == (
        "v1.2 2\n"
        "jpg 512 3 00000000.jpg cls 1536 1 00000000.cls label 2560 4 00000000.label name 3584 18 00000000.name\n"
        "png 4608 600 00000001.png cls 6144 2 00000001.cls label 7168 4 00000001.label name 8192 18 00000001.name\n"
    )


def test_members_of_one_stem_are_bounded(tmp_path, monkeypatch):
    """A tar without end whose members all belong to one sample is not gathered in memory."""
    monkeypatch.setattr(webdataset, "_MOST_MEMBERS", 5)
    path = tmp_path / "s.tar"
    blocks = [tar_header(f"a.{number:03d}.cls", 0) for number in range(6)]
    path.write_bytes(b"".join(blocks[:5]) + tar_header("b.cls", 0) + bytes(1024))
    assert [len(entry.fields) for entry in webdataset.scan(path)] == [5, 1]
    path.write_bytes(b"".join(blocks) + tar_header("b.cls", 0) + bytes(1024))
    assert list(webdataset.scan(path)) == [Problem(5 * 512, "sample 'a' has more than 5 members", is_end=True)]
