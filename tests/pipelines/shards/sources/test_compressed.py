import gzip
import io
import tarfile
import tracemalloc

import pytest
from softfeed.pipelines.shards.sources import compressed
from softfeed.pipelines.shards.sources.compressed import BoundedGzip, tar_gz_files

_MB = 1 << 20


def _tar_gz(path, files):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def _peak(function):
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_reads_what_is_wanted_by_its_name_without_folders(tmp_path):
    path = _tar_gz(tmp_path / "x.tar.gz", {"a/../../b/one": b"1", "/two": b"22", "a/three": b"333"})
    assert tar_gz_files(path, lambda name: name != "three") == {"one": b"1", "two": b"22"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.tar.gz"]


def test_reads_up_to_the_limit(tmp_path):
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(b"x" * 1000))
    with BoundedGzip(path, 1000) as file:
        assert file.read(600) + file.read(600) == b"x" * 1000
    with BoundedGzip(path, 999) as file, pytest.raises(ValueError, match="must hold at most 999 bytes, got more in"):
        file.read(5000)


def test_a_bomb_is_refused_within_bounded_memory(tmp_path):
    path = tmp_path / "x.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(64):
            file.write(bytes(_MB))

    def read():
        with BoundedGzip(path, 4 * _MB) as file, pytest.raises(ValueError, match="must hold at most 4194304 bytes"):
            file.read(1 << 40)

    assert _peak(read) < 12 * _MB


def test_an_archive_that_grows_too_large_is_refused(tmp_path, monkeypatch):
    path = _tar_gz(tmp_path / "x.tar.gz", {"bomb": bytes(40 * _MB), "wanted": b"1"})
    monkeypatch.setattr(compressed, "_LARGEST", 4 * _MB)

    def read():
        with pytest.raises(ValueError, match="must hold at most 4194304 bytes, got more in"):
            tar_gz_files(path, lambda name: name == "wanted")

    assert _peak(read) < 12 * _MB
    monkeypatch.setattr(compressed, "_LARGEST", 64 * _MB)
    monkeypatch.setattr(compressed, "_LARGEST_MEMBER", 4 * _MB)
    with pytest.raises(ValueError, match=r"file must be at most 4194304 bytes, got 41943040 for bomb in"):
        tar_gz_files(path, lambda name: name == "bomb")


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "x.tar.gz"
    path.write_bytes(gzip.compress(b"no tar" * 500))
    with pytest.raises(ValueError, match=r"archive must be a whole tar.gz, got .*; download it again"):
        tar_gz_files(path, lambda name: True)
    path.write_bytes(b"no gzip" * 100)
    with pytest.raises(ValueError, match="gzip file must be whole, got"):
        tar_gz_files(path, lambda name: True)
