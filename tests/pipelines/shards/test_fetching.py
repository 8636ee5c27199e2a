import functools
import http.server
import io
import os
import threading

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from softfeed.pipelines.shards.convert import convert
from softfeed.pipelines.shards.fetching import fetch


def _put(memory, files):
    fs, root = fsspec.url_to_fs(memory)
    for name, data in files.items():
        fs.pipe_file(f"{root}/{name}", data)


def test_a_source_is_fetched_once(tmp_path, memory, encoded, monkeypatch, stored):
    files = {f"photos/{kind}/{n}.png": encoded(n) for kind in ("ant", "bee") for n in (1, 2)}
    _put(memory, files)
    folder = fetch(f"{memory}/photos", tmp_path / "fetched")
    assert folder == tmp_path / "fetched" / "photos"
    convert(folder, tmp_path / "set", workers=1)
    assert stored(tmp_path / "set") == [
        (name.removeprefix("photos/"), int("bee" in name), data) for name, data in sorted(files.items())
    ]
    opened = []
    read = MemoryFileSystem._open
    monkeypatch.setattr(
        MemoryFileSystem, "_open", lambda fs, path, *a, **k: (opened.append(path), read(fs, path, *a, **k))[1]
    )
    fetch(f"{memory}/photos", tmp_path / "fetched")
    assert opened == []
    _put(memory, {"photos/bee/2.png": encoded(99)})
    (folder / "ant" / "1.png").write_bytes(b"cut")
    fetch(f"{memory}/photos", tmp_path / "fetched")
    assert {path.rpartition("photos/")[2] for path in opened if "tmp" not in path} == {"ant/1.png", "bee/2.png"}
    assert (folder / "bee" / "2.png").read_bytes() == encoded(99)
    assert (folder / "ant" / "1.png").read_bytes() == encoded(1)


def test_names_that_lead_outside_are_refused(tmp_path, memory, monkeypatch):
    _put(memory, {"photos/a/1.png": b"x"})
    _, root = fsspec.url_to_fs(memory)
    monkeypatch.setattr(MemoryFileSystem, "find", lambda *_, **__: [f"{root}/photos/../../../evil.png"])
    with pytest.raises(ValueError, match=r"names must lead into the folder, got '../../../evil.png'"):
        fetch(f"{memory}/photos", tmp_path / "a" / "b" / "c")
    assert not list(tmp_path.rglob("evil.png"))


def test_what_arrives_cut_is_refused(tmp_path, memory, monkeypatch):
    _put(memory, {"x.parquet": b"x" * 100})
    monkeypatch.setattr(MemoryFileSystem, "_open", lambda *_, **__: io.BytesIO(b"x" * 40))
    with pytest.raises(OSError, match=r"file must arrive whole, got 40 of 100 bytes of .*x.parquet; try again"):
        fetch(f"{memory}/x.parquet", tmp_path)
    assert not (tmp_path / "x.parquet").exists()


@pytest.mark.parametrize(
    ("url", "error", "message"),
    [
        ("nonsense://a/b", ValueError, "URL must be of a file system that fsspec can open, got nonsense://a/b"),
        ("memory:///nothing-here", FileNotFoundError, "source must exist, got nothing at memory:///nothing-here"),
    ],
)
def test_other_urls_are_refused(tmp_path, url, error, message):
    with pytest.raises(error, match=message):
        fetch(url, tmp_path)


def _fetched(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.png")}


def test_two_origins_do_not_mix(tmp_path, memory):
    _put(memory, {"a/train/x/1.png": b"a1", "b/train/x/1.png": b"b1"})
    fetch(f"{memory}/a/train", tmp_path / "fetched")
    with pytest.raises(
        FileExistsError, match=r"must be new, or fetched from .*/b/train before, got .* from .*/a/train"
    ):
        fetch(f"{memory}/b/train", tmp_path / "fetched")
    assert _fetched(fetch(f"{memory}/a/train/", tmp_path / "fetched")) == {"x/1.png": b"a1"}
    (tmp_path / "mine" / "train" / "x").mkdir(parents=True)
    (tmp_path / "mine" / "train" / "x" / "1.png").write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="from elsewhere"):
        fetch(f"{memory}/a/train", tmp_path / "mine")
    assert _fetched(tmp_path / "mine") == {"train/x/1.png": b"mine"}


def test_what_is_gone_at_the_origin_goes_here(tmp_path, memory):
    files = {f"photos/{kind}/{n}.png": b"x" for kind in ("ant", "bee") for n in (1, 2)}
    _put(memory, files)
    folder = fetch(f"{memory}/photos", tmp_path)
    (folder / "ant" / "own.png").write_bytes(b"own")
    fs, root = fsspec.url_to_fs(memory)
    for name in ("ant/2.png", "bee/1.png", "bee/2.png"):
        fs.rm_file(f"{root}/photos/{name}")
    fetch(f"{memory}/photos", tmp_path)
    assert set(_fetched(folder)) == {"ant/1.png", "ant/own.png"}
    assert not (folder / "bee").exists()


def test_notes_grow_by_lines_and_outlive_a_cut_one(tmp_path, memory, monkeypatch):
    _put(memory, {f"photos/x/{n:03d}.png": b"x" for n in range(50)})
    fetch(f"{memory}/photos", tmp_path)
    notes = tmp_path / ".fetched.jsonl"
    assert notes.read_text().count("[") == 101  # the origin, and the begin and the end of each file
    notes.write_bytes(notes.read_bytes()[:-5])
    opened = []
    read = MemoryFileSystem._open
    monkeypatch.setattr(
        MemoryFileSystem, "_open", lambda fs, path, *a, **k: (opened.append(path[-7:]), read(fs, path, *a, **k))[1]
    )
    for expected in (["049.png"], []):
        fetch(f"{memory}/photos", tmp_path)
        assert opened == expected
        opened.clear()


def test_credentials_are_not_noted(tmp_path, monkeypatch, memory):
    _put(memory, {"photos/x/1.png": b"x"})
    fs, root = fsspec.url_to_fs(memory)
    monkeypatch.setattr("softfeed.pipelines.shards.fetching.opened", lambda url: (fs, f"{root}/photos"))
    fetch("ftp://me:secret@host/photos", tmp_path)
    assert "ftp://host/photos" in (tmp_path / ".fetched.jsonl").read_text()
    assert "secret" not in (tmp_path / ".fetched.jsonl").read_text()


@pytest.mark.parametrize("tells_time", [True, False])
def test_a_file_that_changed_behind_the_same_url_is_fetched_again(tmp_path, tells_time):
    pytest.importorskip("aiohttp", reason="fsspec speaks HTTP through aiohttp")
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            asked.append(self.command)

        def send_header(self, name, value):
            if tells_time or name != "Last-Modified":
                super().send_header(name, value)

    (tmp_path / "served").mkdir()
    path = tmp_path / "served" / "x.png"
    path.write_bytes(b"old")
    os.utime(path, (1e9, 1e9))
    handler = functools.partial(Handler, directory=tmp_path / "served")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            url = f"http://127.0.0.1:{server.server_port}/x.png"
            copy = fetch(url, tmp_path / "fetched")
            first = asked.count("GET")
            assert fetch(url, tmp_path / "fetched").read_bytes() == b"old"
            assert (asked.count("GET") - first < first) == tells_time
            path.write_bytes(b"new")
            fetch(url, tmp_path / "fetched")
            assert copy.read_bytes() == b"new"
        finally:
            server.shutdown()
