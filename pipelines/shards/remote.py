"""Shard sets that are copied to where a conversion cannot write, or back, through fsspec.

A copy goes on where it stopped, and believes nothing to be whole that was not compared.
"""

import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import fsspec
from fsspec.implementations.local import LocalFileSystem

from .. import atomic
from . import manifest
from .manifest import MANIFEST_FILE, Manifest

BLOCK = 4 << 20  # bytes in memory at a time
_REPLACED_FILE = ".replaced.json"  # manifest of a set that is being replaced, until the last of its files is gone

FileSystem = Any  # fsspec.AbstractFileSystem, whose types say bytes or text where only bytes come

Report = Callable[[int, int], None]
"""Called with the number of files done and of all files."""


def is_url(location: str | os.PathLike[str]) -> bool:
    """Whether a location names a file system, as in "s3://bucket/images"."""
    return "://" in os.fspath(location)


def opened(url: str) -> tuple[FileSystem, str]:
    """File system of a URL or of a path of this machine, and the path in it.

    Raises:
        ValueError: if nothing known speaks the protocol.
    """
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
    (from_fs, from_root), (to_fs, to_root) = opened(source), opened(dest)
    if not from_fs.isfile(f"{from_root}/{MANIFEST_FILE}"):
        raise FileNotFoundError(
            f"shard set must hold {MANIFEST_FILE}, got none in {source}; finish its conversion first"
        )
    text = from_fs.cat_file(f"{from_root}/{MANIFEST_FILE}")
    expected = dict(_files(manifest.from_json(text.decode("utf-8"))))
    _make_room(to_fs, to_root, set(expected), text, dest, overwrite=overwrite)
    copied = sent = 0
    for done, (name, checksum) in enumerate(expected.items(), 1):
        if _checksum(to_fs, f"{to_root}/{name}") != checksum:
            _copy_file(from_fs, f"{from_root}/{name}", to_fs, f"{to_root}/{name}", checksum)
            copied, sent = copied + 1, sent + checksum.bytes
        if report:
            report(done, len(expected) + 1)
    if not to_fs.isfile(f"{to_root}/{MANIFEST_FILE}"):
        _write(to_fs, f"{to_root}/{MANIFEST_FILE}", text)
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
    for file in (content.samples, content.index, content.names, *content.lists):
        if file:
            yield file.file, _Checksum(file.bytes, file.crc32)


def _make_room(fs: FileSystem, root: str, ours: set[str], text: bytes, dest: str, *, overwrite: bool) -> None:
    """Raise unless nothing lies at the destination but parts of this set; remove another set that is to be replaced.

    Nothing is removed before all is looked at. A removal that is stopped can be told from other files by the manifest
    of the set that was removed, which is kept until the last.
    """
    if not fs.exists(root):
        fs.makedirs(root, exist_ok=True)
        return
    if fs.isfile(root):
        raise FileExistsError(f"destination must be a folder, got the file {dest}")
    there = {entry["name"].rstrip("/").rpartition("/")[2] for entry in fs.ls(root, detail=True)}
    found = fs.cat_file(f"{root}/{MANIFEST_FILE}") if MANIFEST_FILE in there else b""
    if found == text:
        return
    is_cut = text.startswith(found)  # or missing
    if not is_cut and b'"softfeed"' not in found:
        raise FileExistsError(f"destination must be new or empty, got a {MANIFEST_FILE} of something else in {dest}")
    if not overwrite and (not is_cut or _REPLACED_FILE in there):
        raise FileExistsError(f"destination must be new or empty, got another shard set in {dest}; --overwrite")
    replaced = fs.cat_file(f"{root}/{_REPLACED_FILE}") if is_cut and _REPLACED_FILE in there else found
    theirs = _names_of(replaced)
    notes = {MANIFEST_FILE, _REPLACED_FILE}
    others = sorted(there - ours - theirs - notes - {name + atomic.PARTIAL for name in notes})
    if others:
        raise FileExistsError(
            f"destination must be new or empty, got {len(others)} other entries in {dest} (first: {others[0]})"
        )
    if not is_cut:
        _write(fs, f"{root}/{_REPLACED_FILE}", found)
        there.add(_REPLACED_FILE)
    if MANIFEST_FILE in there:
        fs.rm_file(f"{root}/{MANIFEST_FILE}")  # from here on that is no set any more
    for name in [*sorted(there & (theirs - ours)), *({_REPLACED_FILE} & there)]:
        fs.rm_file(f"{root}/{name}")


def _names_of(text: bytes) -> set[str]:
    """Files that a manifest names; none if it is cut or damaged."""
    try:
        return {name for name, _ in _files(manifest.from_json(text.decode("utf-8")))}
    except ValueError:
        return set()


def _write(fs: FileSystem, path: str, content: bytes) -> None:
    """Write a small file, whole or not at all."""
    if isinstance(fs, LocalFileSystem):
        atomic.write_bytes(Path(path), content)
    else:
        fs.pipe_file(path, content)


def _checksum(fs: FileSystem, path: str) -> _Checksum | None:
    """Size and CRC-32 of a file, read whole; None if there is none."""
    if not fs.isfile(path):
        return None
    size = crc32 = 0
    with fs.open(path, "rb") as file:
        while block := file.read(BLOCK):
            crc32 = zlib.crc32(block, crc32)
            size += len(block)
    return _Checksum(size, crc32)


def _copy_file(from_fs: FileSystem, source: str, to_fs: FileSystem, dest: str, expected: _Checksum) -> None:
    """Copy a file and read it back; raises if it is not as expected here or there."""
    size = crc32 = 0
    with from_fs.open(source, "rb") as file, to_fs.open(dest, "wb") as copy:
        while block := file.read(BLOCK):
            copy.write(block)
            crc32 = zlib.crc32(block, crc32)
            size += len(block)
        if isinstance(to_fs, LocalFileSystem):
            copy.flush()
            atomic.flush(copy.fileno())
    if (size, crc32) != expected:
        to_fs.rm_file(dest)
        raise ValueError(
            f"file must have the checksum in {MANIFEST_FILE}, got another in {source}; run softfeed verify"
        )
    if _checksum(to_fs, dest) != expected:
        raise OSError(f"file must read back as it was written, got other bytes in {dest}; copy it again")
