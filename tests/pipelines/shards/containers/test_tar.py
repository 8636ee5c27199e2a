"""Scanning of tars against Python's tarfile, and what it must not believe."""

import io
import tarfile

import pytest
from softfeed.pipelines.shards.containers.container import Problem
from softfeed.pipelines.shards.containers.tar import BLOCK, tar_members

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is not installed; it comes with softfeed[test]")
given, st = hypothesis.given, hypothesis.strategies

STYLES = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)


def _tar(path, members, style=tarfile.PAX_FORMAT):
    with tarfile.open(path, "w", format=style) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


_names = st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=60).map(
    lambda name: f"a/{name.strip('.') or 'x'}"
)


@given(st.dictionaries(_names, st.binary(max_size=1500), max_size=5), st.sampled_from(STYLES))
def test_members_are_those_of_tarfile(tmp_path_factory, members, style):
    if style == tarfile.USTAR_FORMAT:
        members = {name: data for name, data in members.items() if len(name.encode()) <= 100}
    path = _tar(tmp_path_factory.mktemp("any") / "a.tar", members.items(), style)
    data = path.read_bytes()
    found = list(tar_members(path))
    assert [(member.name, data[member.offset : member.offset + member.size]) for member in found] == list(
        members.items()
    )
    with tarfile.open(path) as tar:
        assert [member.offset for member in found] == [info.offset_data for info in tar]


@pytest.mark.parametrize("style", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("length", [100, 101, 155, 256, 257, 5000])
def test_long_names(tmp_path, style, length):
    """DALI's own tool takes the block of a GNU long name for the image."""
    name = ("folder/" * 1000)[: length - 6] + "/a.jpg"
    path = _tar(tmp_path / "a.tar", [(name, b"image"), ("b.jpg", b"next")], style)
    first, second = tar_members(path)
    assert (first.name, second.name) == (name, "b.jpg")
    assert path.read_bytes()[first.offset : first.offset + 5] == b"image"
    assert (first.header, second.header) == (0, first.end)


def test_a_large_size_in_base_256(tmp_path):
    path = _tar(tmp_path / "a.tar", [("a.jpg", b"image")])
    data = bytearray(path.read_bytes())
    data[124:136] = b"\x80" + (5).to_bytes(11, "big")
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:BLOCK])
    path.write_bytes(data)
    (member,) = tar_members(path)
    assert (member.name, member.size) == ("a.jpg", 5)


def _edited(path, start, value):
    """The first header with other bytes and a right checksum."""
    data = bytearray(path.read_bytes())
    data[start : start + len(value)] = value
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:BLOCK])
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("start", "value", "words"),
    [
        (124, b"77777777777\0", "member must fit the file of 10240 bytes, got a size of 8589934591"),
        (124, b"\x80" + b"\xff" * 11, "member must fit the file of 10240 bytes, got a size of"),
        (124, b"\xff" * 12, "got a size of None"),
        (124, b"12x45678901\0", "got a size of None"),
        (124, b"00000010770\0", "'a.jpg' of 4600 bytes reaches beyond the end"),
        (156, b"S", "'a.jpg' is a sparse file, not a file"),
        (156, b"V", "is of the unknown type b'V', not a file"),
    ],
)
def test_headers_are_not_believed(tmp_path, start, value, words):
    path = _tar(tmp_path / "a.tar", [("a.jpg", b"image" * 300)])
    if value == b"00000010770\0":
        path.write_bytes(path.read_bytes()[: 9 * BLOCK])
    _edited(path, start, value)
    problem = next(found for found in tar_members(path) if isinstance(found, Problem))
    assert words in problem.reason
    assert problem.offset == 0


@pytest.mark.parametrize(
    ("kind", "size", "words"),
    [(b"L", 1 << 17, "must be at most 65536 bytes, got 131072"), (b"x", 2 << 20, "must be at most 1048576 bytes")],
)
def test_long_headers_are_bounded(tmp_path, kind, size, words):
    info = tarfile.TarInfo("long")
    info.type, info.size = kind, size
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.USTAR_FORMAT) + bytes(3 << 20))
    (problem,) = tar_members(tmp_path / "a.tar")
    assert words in problem.reason


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "ends without its end marker"),
        (b"x" * 511, "ends in the middle of a header"),
        (b"x" * 512, "must be a tar header, got other bytes or a wrong checksum"),
        (bytes(512), "ends within its end marker"),
        (bytes(1024) + b"x", "goes on behind its end; it may be several archives in one file"),
    ],
)
def test_ends_are_checked(tmp_path, data, words):
    whole = _tar(tmp_path / "a.tar", [("a.jpg", b"image")]).read_bytes()[: 2 * BLOCK]
    (tmp_path / "a.tar").write_bytes(whole + data)
    member, problem = tar_members(tmp_path / "a.tar")
    assert (member.name, problem.is_end) == ("a.jpg", True)
    assert words in problem.reason


@given(st.binary(max_size=64), st.integers(0, 2 * BLOCK))
def test_any_change_of_headers_ends_or_is_read(tmp_path_factory, change, start):
    path = _tar(tmp_path_factory.mktemp("any") / "a.tar", [("a" * 150, b"image"), ("b", b"c")], tarfile.GNU_FORMAT)
    data = bytearray(path.read_bytes())
    data[start : start + len(change)] = change
    path.write_bytes(data)
    for found in tar_members(path):
        if not isinstance(found, Problem):
            assert found.offset + found.size <= len(data)
