import io

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from softfeed.pipelines.shards.convert import convert
from softfeed.pipelines.shards.layout import ShardOptions
from softfeed.pipelines.shards.remote import copy_set
from softfeed.pipelines.shards.shard_set import load
from softfeed.train.cli import main


@pytest.fixture
def shard_set(tmp_path, image_folder):
    source = image_folder(classes=3, each=4)
    (source / "class1" / "002.png").write_bytes(b"hello, world")  # so that there is a bad.json
    convert(source, tmp_path / "set", ShardOptions(shard_samples=5), workers=1)
    return tmp_path / "set"


class _Watched:
    """Lets the store fail after some files, and counts what is opened for writing."""

    def __init__(self, monkeypatch, fail_at=None):
        self.written = []
        open_before = MemoryFileSystem._open

        def open_after(fs, path, mode="rb", **more):
            if mode == "wb":
                if len(self.written) == fail_at:
                    raise OSError("connection lost")
                self.written.append(path.rpartition("/")[2])
            return open_before(fs, path, mode, **more)

        monkeypatch.setattr(MemoryFileSystem, "_open", open_after)


def test_a_set_goes_there_and_back(tmp_path, shard_set, memory, content):
    there = copy_set(str(shard_set), f"{memory}/set")
    back = copy_set(f"{memory}/set", str(tmp_path / "back"))
    assert content(tmp_path / "back") == content(shard_set)
    assert len(load(tmp_path / "back").samples) == 11
    size = sum(path.stat().st_size for path in shard_set.iterdir())
    assert there == back == (there.__class__)(files=9, copied=9, bytes=size)


@pytest.mark.parametrize("fail_at", [0, 1, 4, 8])
def test_a_copy_that_was_stopped_goes_on(tmp_path, shard_set, memory, content, monkeypatch, fail_at):
    with monkeypatch.context() as patch:
        _Watched(patch, fail_at)
        with pytest.raises(OSError, match="connection lost"):
            copy_set(str(shard_set), memory)
        with pytest.raises(FileNotFoundError, match=r"must hold dataset.json, got none in memory"):
            copy_set(memory, str(tmp_path / "half"))
    with monkeypatch.context() as patch:
        watched = _Watched(patch)
        assert copy_set(str(shard_set), memory).copied == 9 - fail_at
        assert watched.written[-1] == "dataset.json"
    copy_set(memory, str(tmp_path / "back"))
    assert content(tmp_path / "back") == content(shard_set)
    assert copy_set(str(shard_set), memory).copied == 0


def test_what_lies_there_damaged_is_copied_again(shard_set, memory):
    copy_set(str(shard_set), memory)
    fs, root = fsspec.url_to_fs(memory)
    data = bytearray(fs.cat_file(f"{root}/shard-000001.tar"))
    data[700] ^= 1
    fs.pipe_file(f"{root}/shard-000001.tar", bytes(data))
    assert copy_set(str(shard_set), memory).copied == 1
    assert fs.cat_file(f"{root}/shard-000001.tar") == (shard_set / "shard-000001.tar").read_bytes()


def test_a_damaged_set_is_not_passed_on(shard_set, memory):
    path = shard_set / "shard-000001.tar"
    data = bytearray(path.read_bytes())
    data[700] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"must have the checksum in dataset.json, got another in .*shard-000001.tar"):
        copy_set(str(shard_set), memory)
    fs, root = fsspec.url_to_fs(memory)
    assert not fs.exists(f"{root}/dataset.json")
    assert not fs.exists(f"{root}/shard-000001.tar")


def test_a_store_that_mangles_is_noticed(shard_set, memory, monkeypatch):
    read = MemoryFileSystem._open

    def mangle(fs, path, mode="rb", **more):
        file = read(fs, path, mode, **more)
        return io.BytesIO(b"x" + file.getvalue()[1:]) if mode == "rb" and path.endswith("0.tar") else file

    monkeypatch.setattr(MemoryFileSystem, "_open", mangle)
    with pytest.raises(OSError, match=r"must read back as it was written, got other bytes in .*shard-000000.tar"):
        copy_set(str(shard_set), memory)


def test_other_files_are_not_touched(tmp_path, image_folder, shard_set, memory, content):
    fs, root = fsspec.url_to_fs(memory)
    fs.pipe_file(f"{root}/thesis.tex", b"precious")
    with pytest.raises(FileExistsError, match=r"must be new or empty, got 1 other entries in .* \(first: thesis.tex\)"):
        copy_set(str(shard_set), memory, overwrite=True)
    fs.rm_file(f"{root}/thesis.tex")
    convert(tmp_path / "images", tmp_path / "other", ShardOptions(shard_samples=2), workers=1)
    copy_set(str(tmp_path / "other"), memory)
    with pytest.raises(FileExistsError, match="got another shard set in memory"):
        copy_set(str(shard_set), memory)
    copy_set(str(shard_set), memory, overwrite=True)
    assert {path.rpartition("/")[2] for path in fs.ls(root, detail=False)} == set(content(shard_set))


@pytest.fixture
def other_set(tmp_path, shard_set):
    convert(tmp_path / "images", tmp_path / "other", ShardOptions(shard_samples=2), workers=1)
    return tmp_path / "other"


def test_a_set_among_files_of_others_stays_whole(tmp_path, shard_set, other_set, content):
    copy_set(str(other_set), str(tmp_path / "copy"))
    (tmp_path / "copy" / "thesis.tex").write_text("precious")
    before = content(tmp_path / "copy")
    with pytest.raises(FileExistsError, match=r"got 1 other entries in .* \(first: thesis.tex\)"):
        copy_set(str(shard_set), str(tmp_path / "copy"), overwrite=True)
    assert content(tmp_path / "copy") == before


@pytest.mark.parametrize("kept", [0, 1, 4, 7])
def test_a_replacement_that_was_stopped_goes_on(tmp_path, shard_set, other_set, memory, content, monkeypatch, kept):
    copy_set(str(other_set), memory)
    removed = []
    remove = MemoryFileSystem.rm_file

    def stop(fs, path):
        if len(removed) == kept:
            raise OSError("connection lost")
        removed.append(path)
        remove(fs, path)

    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "rm_file", stop)
        with pytest.raises(OSError, match="connection lost"):
            copy_set(str(shard_set), memory, overwrite=True)
    with pytest.raises(FileExistsError, match="got another shard set in memory"):
        copy_set(str(shard_set), memory)
    copy_set(str(shard_set), memory, overwrite=True)
    copy_set(memory, str(tmp_path / "back"))
    assert content(tmp_path / "back") == content(shard_set)
    fs, root = fsspec.url_to_fs(memory)
    assert {path.rpartition("/")[2] for path in fs.ls(root, detail=False)} == set(content(shard_set))


@pytest.mark.parametrize("length", [0, 100, -1])
def test_a_cut_manifest_is_an_unfinished_copy(tmp_path, shard_set, content, length):
    copy_set(str(shard_set), str(tmp_path / "copy"))
    manifest = tmp_path / "copy" / "dataset.json"
    manifest.write_bytes(manifest.read_bytes()[:length])
    (tmp_path / "copy" / "dataset.json.tmp").write_bytes(b"{")
    assert copy_set(str(shard_set), str(tmp_path / "copy")).copied == 1
    assert content(tmp_path / "copy") == content(shard_set)


def test_a_manifest_of_something_else_is_not_replaced(tmp_path, shard_set):
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "dataset.json").write_text('{"name": "mine"}')
    with pytest.raises(FileExistsError, match=r"got a dataset.json of something else in"):
        copy_set(str(shard_set), str(tmp_path / "copy"), overwrite=True)
    assert (tmp_path / "copy" / "dataset.json").read_text() == '{"name": "mine"}'


def test_a_local_manifest_is_whole_or_absent(tmp_path, shard_set, monkeypatch):
    def fail(*_):
        raise OSError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr("softfeed.pipelines.atomic.rename", fail)
        with pytest.raises(OSError, match="power cut"):
            copy_set(str(shard_set), str(tmp_path / "copy"))
    assert not (tmp_path / "copy" / "dataset.json").exists()
    assert copy_set(str(shard_set), str(tmp_path / "copy")).copied == 1


def test_lists_of_images_are_compared_too(tmp_path, shard_set, content):
    data = content(shard_set)["bad.json"]
    (shard_set / "bad.json").write_text("[]")
    with pytest.raises(ValueError, match=r"must have the checksum in dataset.json, got another in .*bad.json"):
        copy_set(str(shard_set), str(tmp_path / "copy"))
    (shard_set / "bad.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"bad.json"):
        copy_set(str(shard_set), str(tmp_path / "copy"))
    (shard_set / "bad.json").write_bytes(data)
    copy_set(str(shard_set), str(tmp_path / "copy"))
    assert content(tmp_path / "copy") == content(shard_set)


def _put(memory, files):
    fs, root = fsspec.url_to_fs(memory)
    for name, data in files.items():
        fs.pipe_file(f"{root}/{name}", data)


def test_the_commands(tmp_path, memory, encoded, content, capsys):
    _put(memory, {f"photos/{kind}/{n}.png": encoded(n) for kind in ("ant", "bee") for n in (1, 2)})
    fetched = ["--fetch-to", str(tmp_path / "fetched")]
    assert main(["convert", f"{memory}/photos", str(tmp_path / "set"), *fetched, "--workers=1"]) == 0
    assert "fetching: 4 of 4 files\n" in capsys.readouterr().err
    assert main(["copy", str(tmp_path / "set"), f"file://{tmp_path}/copy"]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("copied      4 of 4 files, ")
    assert shown.err == "copying: 4 of 4 files\n"
    assert content(tmp_path / "copy") == content(tmp_path / "set")
    assert main(["convert", f"{memory}/photos", str(tmp_path / "set2")]) == 2
    assert "--fetch-to must name a folder for a source that lies elsewhere" in capsys.readouterr().err
    assert main(["convert", str(tmp_path), str(tmp_path / "set2"), *fetched]) == 2
    assert "--fetch-to must be left out for a source of this machine" in capsys.readouterr().err
