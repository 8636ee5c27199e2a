"""Sources that lie elsewhere, through fsspec: object stores, HTTP, SSH and what else it speaks.

A conversion reads files of this machine: sources are fetched first. That goes on where it stopped.
"""

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from .. import atomic
from .remote import BLOCK, FileSystem, Report, opened

_NOTES_FILE = ".fetched.jsonl"  # what was fetched, beside it: a line per event
_WEB_VERSIONS = ("ETag", "Content-MD5", "Digest", "Last-Modified")
_CREDENTIALS = re.compile(r"://[^/@]*@")  # of a URL


def fetch(url: str, folder: Path, report: Report | None = None) -> Path:
    """Copy a file, or all files below a folder, to this machine.

    What was fetched before and has not changed at its origin (by what the file system tells apart versions by, such as
    an ETag) is not fetched again; over HTTP, every file is for which the server tells neither that nor a time. What was
    fetched before and is gone at its origin is removed.

    Args:
        url: of the file or folder.
        folder: to copy to; made if missing.
        report: called after every file.

    Returns:
        path of the copy, of the same name as the last part of the URL.

    Raises:
        FileExistsError: if something else lies at the path of the copy, or what was fetched from another URL.
        FileNotFoundError: if there is nothing at the URL.
        OSError: if a file arrives cut.
        ValueError: if nothing known speaks the protocol, or a name leads out of the folder.
    """
    fs, root = opened(url)
    root = root.rstrip("/")
    files = [root] if fs.isfile(root) else sorted(fs.find(root))
    if not files:
        raise FileNotFoundError(f"source must exist, got nothing at {url}; check the URL")
    target = folder / root.rpartition("/")[2]
    folder.mkdir(parents=True, exist_ok=True)
    with _Notes(folder / _NOTES_FILE, target, _CREDENTIALS.sub("://", url.rstrip("/"))) as notes:
        names = {file[len(root) + 1 :]: file for file in files}
        for name in notes.versions.keys() - names.keys():
            _remove(_below(target, name) if name else target, target)
        for done, (name, file) in enumerate(names.items(), 1):
            path = _below(target, name) if name else target
            info = fs.info(file)
            version = _version(fs, file, info)
            if version is None or notes.versions.get(name) != version or not _has_size(path, info["size"]):
                path.parent.mkdir(parents=True, exist_ok=True)
                notes.add(name, None)
                _fetch_file(fs, file, path, info["size"])
                notes.add(name, version)
            if report:
                report(done, len(files))
    return target


class _Notes:
    """What was fetched to one path, and from where, in a file that only grows: all of it is there after a kill.

    Args:
        file: of the notes on all that lies in its folder.
        target: path that is fetched to.
        url: where it comes from.

    Attributes:
        versions: of the files below the target, by name; None for one that may not have arrived.

    Raises:
        FileExistsError: if the target came from elsewhere.
    """

    def __init__(self, file: Path, target: Path, url: str) -> None:
        self._target = target.name
        self.versions: dict[str, str | None] = {}
        origin = None
        for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
            with suppress(ValueError):  # a line that was cut by a kill
                noted, name, value = json.loads(line)
                if noted == target.name and name is None:
                    origin = value
                elif noted == target.name:
                    self.versions[name] = value
        if target.exists() and origin != url:
            raise FileExistsError(
                f"what is fetched must be new, or fetched from {url} before, got {target} from "
                f"{origin or 'elsewhere'}; name another folder with --fetch-to, or remove it"
            )
        if not target.exists():
            self.versions = {}
        self._file = file.open("a", encoding="utf-8", buffering=1)
        if origin != url:
            self.add(None, url)

    def __enter__(self) -> "_Notes":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, name: str | None, value: str | None) -> None:
        """Note the version of a file below the target, or, of None, where the target comes from."""
        self._file.write(f"\n{json.dumps([self._target, name, value])}\n")  # at first to end a line that was cut


def _remove(path: Path, target: Path) -> None:
    """Remove a file, and the folders up to the target that it was the last in."""
    path.unlink(missing_ok=True)
    with suppress(OSError):  # not empty
        while path != target:
            path = path.parent
            path.rmdir()


def _has_size(path: Path, size: int | None) -> bool:
    return path.is_file() and size in (None, path.stat().st_size)


def _version(fs: FileSystem, file: str, info: dict[str, Any]) -> str | None:
    """What tells the versions of a file apart; None if nothing does."""
    if {"http", "https"}.isdisjoint([fs.protocol] if isinstance(fs.protocol, str) else fs.protocol):
        return fs.ukey(file)
    told = {name: info[name] for name in _WEB_VERSIONS if info.get(name)}  # there, `ukey` looks at the URL only
    return json.dumps({"size": info["size"], **told}) if told else None


def _below(folder: Path, name: str) -> Path:
    if name.startswith("/") or ".." in name.split("/"):
        raise ValueError(f"names must lead into the folder, got {name!r}; nothing was written there")
    return folder / name


def _fetch_file(fs: FileSystem, file: str, path: Path, size: int | None) -> None:
    temporary = path.with_name(path.name + ".tmp")
    with fs.open(file, "rb") as source, temporary.open("wb") as copy:
        while block := source.read(BLOCK):
            copy.write(block)
        copy.flush()
        atomic.flush(copy.fileno())
        if size is not None and copy.tell() != size:
            raise OSError(f"file must arrive whole, got {copy.tell()} of {size} bytes of {file}; try again")
    atomic.rename(temporary, path)
