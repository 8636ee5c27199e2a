import io
import struct
import tarfile

import pytest
from softfeed.pipelines.shards.convert import convert
from softfeed.pipelines.shards.sources.archive import is_tar
from softfeed.pipelines.shards.sources.opening import SourceOptions, open_source

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is not installed; it comes with softfeed[test]")
given, settings, st = hypothesis.given, hypothesis.settings, hypothesis.strategies

_TYPES = {
    "link": tarfile.SYMTYPE,
    "hard link": tarfile.LNKTYPE,
    "device": tarfile.CHRTYPE,
    "block device": tarfile.BLKTYPE,
    "pipe": tarfile.FIFOTYPE,
}


def _tar(path, files, *, format=tarfile.GNU_FORMAT):
    """Writes a tar of (name, content) or (TarInfo, content)."""
    with tarfile.open(path, "w", format=format) as tar:
        for name, content in files:
            info = tarfile.TarInfo(name) if isinstance(name, str) else name
            if content is not None:
                info.size = len(content)
            tar.addfile(info, None if content is None else io.BytesIO(content))
    return path


def _odd(name, kind):
    info = tarfile.TarInfo(name)
    info.type = _TYPES[kind]
    info.linkname = "/etc/passwd"
    return info


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_of_every_kind_of_tar(tmp_path, encoded, stored, format):
    files = {"a/1.png": 1, "d" * 99 + "/" + "x" * 90 + ".png": 2, "./b/größe.png": 3}
    path = _tar(tmp_path / "x.tar", [(name, encoded(seed)) for name, seed in files.items()], format=format)
    convert(path, tmp_path / "set", workers=1)
    expected = [(name.removeprefix("./"), encoded(seed)) for name, seed in files.items()]
    assert [(name, image) for name, _, image in stored(tmp_path / "set")] == sorted(expected)


def test_hidden_files_and_folders_are_passed_over(tmp_path):
    folder = tarfile.TarInfo("a")
    folder.type = tarfile.DIRTYPE
    files = [(folder, None), ("a/._1.jpg", b"x"), ("a/.cache/1.jpg", b"x"), ("a/1.jpg", b"y")]
    assert open_source(_tar(tmp_path / "x.tar", files)).names([0]) == ["a/1.jpg"]


@pytest.mark.parametrize("name", ["/etc/cron.d/evil.jpg", "../../evil.jpg", "a/../../evil.jpg"])
def test_names_that_lead_outside_are_refused_and_write_nothing(tmp_path, encoded, content, name):
    (tmp_path / "in").mkdir()
    path = _tar(tmp_path / "in" / "x.tar", [("a/1.png", encoded(0)), (name, encoded(1))])
    before = content(tmp_path)
    with pytest.raises(ValueError, match=rf"at byte \d+, '{name}' leads out of the folder .*; nothing was unpacked"):
        convert(path, tmp_path / "in" / "set", workers=1)
    assert content(tmp_path) == before


@pytest.mark.parametrize("kind", list(_TYPES))
def test_links_and_devices_are_refused_and_write_nothing(tmp_path, encoded, content, kind):
    path = _tar(tmp_path / "x.tar", [("a/1.png", encoded(0)), (_odd("a/2.png", kind), None), ("a/2.png/3", b"x")])
    before = content(tmp_path)
    with pytest.raises(ValueError, match=r"at byte \d+, 'a/2.png' is a .*, not a file; nothing was unpacked"):
        convert(path, tmp_path / "set", workers=1)
    assert content(tmp_path) == before


def test_sparse_files_are_refused(tmp_path):
    info = tarfile.TarInfo("a/1.jpg")
    info.type = tarfile.GNUTYPE_SPARSE
    path = _tar(tmp_path / "x.tar", [(info, None)])
    with pytest.raises(ValueError, match=r"'a/1.jpg' is a sparse file"):
        open_source(path)


@settings(max_examples=60)
@given(end=st.integers(600, 6 * 512 - 1))
def test_an_archive_cut_anywhere_is_refused_with_the_place(tmp_path_factory, end):
    path = _tar(tmp_path_factory.mktemp("cut") / "x.tar", [("a/a.jpg", b"1" * 700), ("a/b.jpg", b"2" * 30)])
    path.write_bytes(path.read_bytes()[:end])  # 512 + 1024 + 512 + 512, then zeros
    with pytest.raises(ValueError, match=r"archive must be whole .*: at byte \d+, .*(was cut short|must fit the file)"):
        open_source(path)


@pytest.mark.parametrize("place", [1536, 1536 + 124, 1536 + 148])
def test_a_damaged_header_is_not_taken_for_the_end(tmp_path, place):
    path = _tar(tmp_path / "x.tar", [("a/a.jpg", b"1" * 700), ("a/b.jpg", b"2" * 3000), ("a/c.jpg", b"3")])
    data = bytearray(path.read_bytes())
    data[place] ^= 0x41
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"archive must be whole .*x.tar: at byte 1536, must be a tar header"):
        open_source(path)


def test_a_name_of_gigabytes_is_not_read(tmp_path):
    info = tarfile.TarInfo("././@LongLink")
    info.type = tarfile.GNUTYPE_LONGNAME
    info.size = 5 << 30
    path = tmp_path / "x.tar"
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT))
    with path.open("r+b") as file:
        file.truncate(6 << 30)  # sparse
    with pytest.raises(ValueError, match=rf"header of type L must be at most \d+ bytes, got {5 << 30}"):
        open_source(path)


def test_other_files_are_no_tar(tmp_path):
    path = tmp_path / "x.tar"
    path.write_bytes(struct.pack("<I", 7) * 300)
    assert not is_tar(path)
    assert not is_tar(tmp_path)
    with pytest.raises(ValueError, match=r"archive must be whole .* at byte 0, must be a tar header"):
        open_source(path, SourceOptions("tar"))
