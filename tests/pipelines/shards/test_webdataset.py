import tarfile
import zlib

import pytest
from softfeed.pipelines.shards.webdataset import Member, ShardWriter, tar_header


def _write(path, samples):
    with ShardWriter(path) as writer:
        places = [writer.add(key, [Member(*member) for member in members]) for key, members in samples]
        return places, writer.finish(), writer.index_text()


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
    samples = [("00000000", [("jpg", data[:size]), ("cls", b"3")]), ("00000001", [("jpg", data[1:7]), ("cls", b"42")])]
    places, summary, _ = _write(path, samples)
    written = path.read_bytes()
    assert (summary.bytes, summary.crc32) == (len(written), zlib.crc32(written))
    assert len(written) % 10240 == 0
    with tarfile.open(path, "r:", errorlevel=2) as tar:
        read = {member.name: tar.extractfile(member).read() for member in tar}
    assert read == {f"{key}.{extension}": value for key, members in samples for extension, value in members}
    for (_, members), found in zip(samples, places, strict=True):
        for (_, value), place in zip(members, found, strict=True):
            assert written[place.offset : place.offset + place.size] == value


def test_index_names_every_member(tmp_path):
    samples = [("00000000", [("jpg", b"abc"), ("cls", b"3")]), ("00000001", [("png", b"d" * 600), ("cls", b"42")])]
    _, _, index = _write(tmp_path / "s.tar", samples)
    assert index == (
        "v1.2 2\njpg 512 3 00000000.jpg cls 1536 1 00000000.cls\npng 2560 600 00000001.png cls 4096 2 00000001.cls\n"
    )
