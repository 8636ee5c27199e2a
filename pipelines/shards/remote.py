"""Sources and shard sets that lie elsewhere, through fsspec: object stores, HTTP, SSH and what else it speaks.

A conversion reads and writes files of this machine: sources are fetched first, finished sets are copied afterwards.
Both go on where they stopped, and believe nothing to be whole that was not compared.
"""

import json
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import fsspec

from . import atomic, manifest
from .manifest import MANIFEST_FILE, Manifest

_BLOCK = 4 << 20  # bytes in memory at a time
_NOTES_FILE = ".fetched.json"  # what was fetched, beside it
_LISTS = ("bad.json", "odd.json")  # files of a set that the manifest gives no checksum of

_FileSystem = Any  # fsspec.AbstractFileSystem, whose types say bytes or text where only bytes come

Report = Callable[[int, int], None]
"""Called with the number of files done and of all files."""


def is_url(location: str | os.PathLike[str]) -> bool:
    """Whether a location names a file system, as in "s3://bucket/images"."""
    return "://" in os.fspath(location)


def fetch(url: str, folder: Path, report: Report | None = None) -> Path:
    """Copy a file, or all files below a folder, to this machine.

    What was fetched before and has not changed at its origin (by what the file system tells apart versions by, such as
    an ETag) is not fetched again.

    Args:
        url: of the file or folder.
        folder: to copy to; made if missing.
        report: called after every file.

    Returns:
        path of the copy, of the same name as the last part of the URL.

    Raises:
        FileNotFoundError: if there is nothing at the URL.
        OSError: if a file arrives cut.
        ValueError: if nothing known speaks the protocol, or a name leads out of the folder.
    """
    fs, root = _opened(url)
    root = root.rstrip("/")
    files = [root] if fs.isfile(root) else sorted(fs.find(root))
    if not files:
        raise FileNotFoundError(f"source must exist, got nothing at {url}; check the URL")
    target = folder / root.rpartition("/")[2]
    notes_file = folder / _NOTES_FILE
    folder.mkdir(parents=True, exist_ok=True)
    notes = json.loads(notes_file.read_text(encoding="utf-8")) if notes_file.exists() else {}
    for done, file in enumerate(files, 1):
        path = target if file == root else _below(target, file[len(root) + 1 :])
        size, version = fs.info(file)["size"], fs.ukey(file)
        if notes.get(file) != version or not path.is_file() or path.stat().st_size != size:
            path.parent.mkdir(parents=True, exist_ok=True)
            _fetch_file(fs, file, path, size)
            notes[file] = version
            atomic.write_file(notes_file, json.dumps(notes).encode())
        if report:
            report(done, len(files))
    return target


def _below(folder: Path, name: str) -> Path:
    if name.startswith("/") or ".." in name.split("/"):
        raise ValueError(f"names must lead into the folder, got {name!r}; nothing was written there")
    return folder / name


def _fetch_file(fs: _FileSystem, file: str, path: Path, size: int | None) -> None:
    temporary = path.with_name(path.name + ".tmp")
    with fs.open(file, "rb") as source, temporary.open("wb") as copy:
        while block := source.read(_BLOCK):
            copy.write(block)
        copy.flush()
        atomic.flush(copy.fileno())
        if size is not None and copy.tell() != size:
            raise OSError(f"file must arrive whole, got {copy.tell()} of {size} bytes of {file}; try again")
    atomic.rename(temporary, path)


def _opened(url: str) -> tuple[_FileSystem, str]:
    try:
        return fsspec.url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise ValueError(f"URL must be of a file system that fsspec can open, got {url} ({error})") from None


class _Checksum(NamedTuple):
    bytes: int
    crc32: int


@dataclass(frozen=True)
class Copy:
    """Outcome of copying a shard set.

    Attributes:
        files: of the set, its manifest included.
        copied: of them in this run; the others were there already.
        bytes: copied in this run.
    """

    files: int
    copied: int
    bytes: int


def copy_set(source: str, dest: str, *, overwrite: bool = False, report: Report | None = None) -> Copy:
    """Copy a finished shard set from one place to another; either may be a folder of this machine.

    Every file is compared with the checksum in the manifest while it is read, and read back once it is written. The
    manifest comes last, so that nobody takes half a copy for a set; the same call finishes it.

    Args:
        source: folder or URL of the set.
        dest: folder or URL to copy to: new, empty, or an unfinished copy of this set.
        overwrite: replace another set in `dest`.
        report: called after every file.

    Raises:
        FileNotFoundError: if the source is no finished shard set.
        FileExistsError: if another set or other files lie in `dest`.
        ValueError: if a file differs from its checksum in the manifest, or nothing known speaks a protocol.
        OSError: if a file cannot be read or written, or what was written reads back differently.
    """
    (from_fs, from_root), (to_fs, to_root) = _opened(source), _opened(dest)
    if not from_fs.isfile(f"{from_root}/{MANIFEST_FILE}"):
        raise FileNotFoundError(
            f"shard set must hold {MANIFEST_FILE}, got none in {source}; finish its conversion first"
        )
    text = from_fs.cat_file(f"{from_root}/{MANIFEST_FILE}")
    expected = dict(_files(manifest.from_json(text.decode("utf-8"))))
    for name in _LISTS:
        if checksum := _checksum(from_fs, f"{from_root}/{name}"):
            expected[name] = checksum
    _require_free(to_fs, to_root, {*expected, MANIFEST_FILE}, text, dest, overwrite=overwrite)
    copied = sent = 0
    for done, (name, checksum) in enumerate(expected.items(), 1):
        if _checksum(to_fs, f"{to_root}/{name}") != checksum:
            _copy_file(from_fs, f"{from_root}/{name}", to_fs, f"{to_root}/{name}", checksum)
            copied, sent = copied + 1, sent + checksum.bytes
        if report:
            report(done, len(expected) + 1)
    if not to_fs.isfile(f"{to_root}/{MANIFEST_FILE}"):
        to_fs.pipe_file(f"{to_root}/{MANIFEST_FILE}", text)
        copied, sent = copied + 1, sent + len(text)
    if report:
        report(len(expected) + 1, len(expected) + 1)
    return Copy(len(expected) + 1, copied, sent)


def _files(content: Manifest) -> Iterator[tuple[str, _Checksum]]:
    """Name, size and checksum of every file but the manifest."""
    for shard in content.shards:
        yield shard.file, _Checksum(shard.bytes, shard.crc32)
        if shard.index:
            yield shard.index, _Checksum(shard.index_bytes, shard.index_crc32)
    for file in (content.samples, content.index, content.names):
        if file:
            yield file.file, _Checksum(file.bytes, file.crc32)


def _require_free(fs: _FileSystem, root: str, ours: set[str], text: bytes, dest: str, *, overwrite: bool) -> None:
    """Raise unless nothing lies at the destination but parts of this set; end another set that is to be replaced."""
    if not fs.exists(root):
        fs.makedirs(root, exist_ok=True)
        return
    if fs.isfile(root):
        raise FileExistsError(f"destination must be a folder, got the file {dest}")
    there = {entry["name"].rstrip("/").rpartition("/")[2] for entry in fs.ls(root, detail=True)}
    if MANIFEST_FILE in there:
        if fs.cat_file(f"{root}/{MANIFEST_FILE}") == text:
            return
        if not overwrite:
            raise FileExistsError(f"destination must be new or empty, got another shard set in {dest}; --overwrite")
        theirs = {
            name for name, _ in _files(manifest.from_json(fs.cat_file(f"{root}/{MANIFEST_FILE}").decode("utf-8")))
        }
        fs.rm_file(f"{root}/{MANIFEST_FILE}")  # from here on that is no set any more
        for name in sorted(there & ({*theirs, *_LISTS} - ours)):
            fs.rm_file(f"{root}/{name}")
            there.discard(name)
    others = sorted(there - ours)
    if others:
        raise FileExistsError(
            f"destination must be new or empty, got {len(others)} other entries in {dest} (first: {others[0]})"
        )


def _checksum(fs: _FileSystem, path: str) -> _Checksum | None:
    """Size and CRC-32 of a file, read whole; None if there is none."""
    if not fs.isfile(path):
        return None
    size = crc32 = 0
    with fs.open(path, "rb") as file:
        while block := file.read(_BLOCK):
            crc32 = zlib.crc32(block, crc32)
            size += len(block)
    return _Checksum(size, crc32)


def _copy_file(from_fs: _FileSystem, source: str, to_fs: _FileSystem, dest: str, expected: _Checksum) -> None:
    """Copy a file and read it back; raises if it is not as expected here or there."""
    size = crc32 = 0
    with from_fs.open(source, "rb") as file, to_fs.open(dest, "wb") as copy:
        while block := file.read(_BLOCK):
            copy.write(block)
            crc32 = zlib.crc32(block, crc32)
            size += len(block)
    if (size, crc32) != expected:
        to_fs.rm_file(dest)
        raise ValueError(
            f"file must have the checksum in {MANIFEST_FILE}, got another in {source}; run softfeed verify"
        )
    if _checksum(to_fs, dest) != expected:
        raise OSError(f"file must read back as it was written, got other bytes in {dest}; copy it again")
