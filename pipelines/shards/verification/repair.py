"""Repairing what follows from whole shards: indexes, the table of samples, and what other files tell of the manifest.

Shards are never touched, and nothing is written whose checksum is not the recorded one, so what is repaired is what was
there before. The manifest's own checksum proves the same of the manifest: when entries that follow from the shards are
put right, it must hold again. Only a manifest that is missing, or has no checksum of its own, is taken on trust.
"""

import os
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ... import atomic
from ..manifest import INDEX_FILE, MANIFEST_FILE, SAMPLES_FILE, Manifest, SetFile, own_checksum, samples_bytes, to_json
from ..progress import Progress
from .derived import index_of, manifest_of, table_of
from .findings import printable
from .rebuilding import rebuilt_manifest
from .survey import Survey, survey
from .verify import Report, report, require_set, unfinished_findings

_Say = Callable[[str], None]


def repair(
    folder: str | os.PathLike[str],
    *,
    decode: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Report:
    """Verify a shard set, write anew what can be, and verify again.

    A missing `dataset.json` is rebuilt if all else is there and the records or the original names tell the classes;
    every image is decoded before that. How the set was made is then lost.

    Args:
        folder: as for `verify`.
        decode: as for `verify`.
        workers: as for `verify`.
        progress: as for `verify`; the second time the stage is "verifying again".

    Returns:
        what is wrong after the repair; what was repaired and what could not be.

    Raises:
        FileNotFoundError, ValueError: as `verify`.
        OSError: if a file cannot be written; every file is then as it was or repaired.
    """
    begin = time.perf_counter()
    folder = Path(folder)
    require_set(folder, workers)
    if (unfinished := unfinished_findings(folder)) is not None:
        return report(Survey(folder, unfinished), begin, decoded=False)
    decode = decode or not os.path.lexists(folder / MANIFEST_FILE)
    found = survey(folder, decode=decode, workers=workers, progress=progress)
    repaired: list[str] = []
    unrepaired: list[str] = []
    if found.findings:
        _repair_files(found, repaired.append, unrepaired.append)
    if repaired:
        found = survey(folder, decode=decode, workers=workers, progress=progress and _again(progress))
    return report(found, begin, decoded=decode, repaired=repaired, unrepaired=unrepaired)


def _again(progress: Progress) -> Progress:
    def call(stage: str, done: int, total: int, bad: int, written: int) -> None:
        progress(f"{stage} again", done, total, bad, written)

    return call


def _repair_files(found: Survey, did: _Say, failed: _Say) -> None:
    manifest = _true_manifest(found, failed)
    if manifest is None:
        return
    for entry, shard in zip(manifest.shards, found.shards, strict=True):
        if entry.index is not None and shard.index is not None:
            recorded = SetFile(entry.index, entry.index_bytes, entry.index_crc32)
            _write(found.folder, recorded, shard.index, f"from {entry.file}", did, failed)
    if found.is_sound:
        index = index_of(manifest.format, found.shards)
        for recorded, content in ((manifest.index, index), (manifest.samples, samples_bytes(table_of(found.shards)))):
            if recorded is not None and content is not None and _content(found.folder / recorded.file) != content:
                _write(found.folder, recorded, content, "from the shards", did, failed)
    elif found.findings.about(SAMPLES_FILE, INDEX_FILE):
        failed(f"{SAMPLES_FILE} and an index of the whole set follow only from shards that are all whole")
    text = to_json(manifest).encode("utf-8", "surrogatepass")
    if _content(found.folder / MANIFEST_FILE) != text:
        atomic.write_bytes(found.folder / MANIFEST_FILE, text)
        did(f"{MANIFEST_FILE}: written anew")


def _true_manifest(found: Survey, failed: _Say) -> Manifest | None:
    """The manifest that the set had, as far as that can be proved; None if it cannot."""
    manifest = found.manifest
    if manifest is None:
        try:
            return rebuilt_manifest(found)
        except ValueError as error:
            failed(printable(str(error)))
            return None
    recorded = found.own_checksum
    if recorded == _checksum(manifest):
        return manifest
    if not found.is_sound:
        failed(f"{MANIFEST_FILE}: an entry was changed, and only shards that are all whole tell which; restore a copy")
        return None
    whole = manifest_of(manifest, found.shards)
    # The checksum of a shard is never made to fit: the manifest's own must show that it is the one that was there.
    distrusted = replace(
        whole,
        shards=tuple(
            replace(entry, bytes=before.bytes, crc32=before.crc32)
            for entry, before in zip(whole.shards, manifest.shards, strict=True)
        ),
    )
    if recorded is None:
        return distrusted
    proved = next((candidate for candidate in (whole, distrusted) if _checksum(candidate) == recorded), None)
    if proved is None:
        failed(
            f"{MANIFEST_FILE}: something that the shards do not tell was changed (classes, created, softfeed, or the "
            "checksum of a shard); restore a copy, or remove its last entry, crc32, to accept it as it is"
        )
    return proved


def _checksum(manifest: Manifest) -> int | None:
    return own_checksum(to_json(manifest))


def _write(folder: Path, recorded: SetFile, content: bytes, source: str, did: _Say, failed: _Say) -> None:
    """Write a file if the content is what the manifest records."""
    if (len(content), zlib.crc32(content)) != (recorded.bytes, recorded.crc32):
        failed(f"{recorded.file}: what follows {source} has not the checksum in {MANIFEST_FILE}")
        return
    atomic.write_bytes(folder / recorded.file, content)
    did(f"{recorded.file}: written anew {source}")


def _content(path: Path) -> bytes | None:
    """Content of a file; None for what is none."""
    return path.read_bytes() if path.is_file() and not path.is_symlink() else None
