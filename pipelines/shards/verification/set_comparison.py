"""Comparing what all shards of a set hold together with its manifest, its one index, and each other."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..manifest import MANIFEST_FILE, Manifest
from .derived import index_of, manifest_of
from .findings import Findings
from .set_files import checked_bytes
from .shard_check import ShardFound

_UNIQUE_NAMES = ("folder", "parquet")  # sources whose names are of files and rows, so no two are alike


def compare_set(folder: Path, manifest: Manifest, shards: Sequence[ShardFound], findings: Findings) -> None:
    """Compare a manifest and what it names with the shards, and the shards with each other.

    What follows from all shards together can only be compared if every shard is sound.
    """
    is_sound = all(shard.is_sound for shard in shards)
    if is_sound:
        _compare_entries(manifest, manifest_of(manifest, shards), findings)
    if manifest.index is not None:
        _compare_index(folder, manifest, shards, is_sound=is_sound, findings=findings)
    _compare_keys(manifest, shards, findings, is_sound=is_sound)
    if manifest.created.get("source_format") in _UNIQUE_NAMES:
        _compare_names(manifest, shards, findings)


def _compare_entries(manifest: Manifest, derived: Manifest, findings: Findings) -> None:
    for name in ("num_samples", "largest", "multipart"):
        expected, found = getattr(derived, name), getattr(manifest, name)
        if found != expected:
            findings.add(MANIFEST_FILE, f"{name} must be {expected} as the shards have it, got {found}")
    if (manifest.samples.bytes, manifest.samples.crc32) != (derived.samples.bytes, derived.samples.crc32):
        expected = f"{derived.samples.bytes} bytes with CRC-32 {derived.samples.crc32}"
        found = f"{manifest.samples.bytes} with {manifest.samples.crc32}"
        findings.add(MANIFEST_FILE, f"samples must be {expected} as follows from the shards, got {found}")


def _compare_index(
    folder: Path, manifest: Manifest, shards: Sequence[ShardFound], *, is_sound: bool, findings: Findings
) -> None:
    """Compare the one index of a set with the one that it should have."""
    if manifest.index is None:
        return
    found, _ = checked_bytes(folder, manifest.index, findings)
    expected = index_of(manifest.format, shards)
    if found is None or expected is None or not is_sound or found == expected:
        return
    offset = 0
    lines = expected.splitlines(keepends=True)
    for number, line in enumerate(lines):
        if not found.startswith(line, offset):
            shown = found[offset:].partition(b"\n")[0][:40]
            problem = f"line {number + 1} must be {line.decode().strip()!r} as the shards have it, got {shown!r}"
            findings.add(manifest.index.file, problem, offset=offset, sample=number)
            return
        offset += len(line)
    problem = f"file must end after {len(lines)} lines, one for each record, got {len(found) - offset} more bytes"
    findings.add(manifest.index.file, problem, offset=offset)


def _compare_keys(manifest: Manifest, shards: Sequence[ShardFound], findings: Findings, *, is_sound: bool) -> None:
    """Keys number the images of the source in the order of the set, those that were left out included.

    So a key is at least the number of samples before it, and greater by no more than the bad images. That tells which
    of two shards is wrong whose keys contradict each other; but only if every record before was found.
    """
    bad = manifest.created.get("bad")
    last, file, row, is_beyond = -1, "", 0, False
    for entry, shard in zip(manifest.shards, shards, strict=True):
        first_row, row = row, row + len(shard.records)
        if not len(shard.keys):
            continue
        if shard.keys[0] <= last:
            problem = f"key must be greater than {last}, the last in {file}, got {shard.keys[0]}"
            findings.add(entry.file, problem, offset=int(shard.records[0]), sample=first_row)
        end = (row if is_sound else manifest.num_samples) + bad if isinstance(bad, int) else None
        if end is None or shard.keys[-1] < end:
            last, file = int(shard.keys[-1]), entry.file
        elif not is_beyond:  # a record left out moves all behind it
            is_beyond = True
            problem = f"key must be below {end}, the images of the source up to there, got {shard.keys[-1]}"
            findings.add(entry.file, problem, offset=int(shard.records[-1]), sample=row - 1)


def _compare_names(manifest: Manifest, shards: Sequence[ShardFound], findings: Findings) -> None:
    hashes = np.concatenate([shard.names for shard in shards])
    order = np.argsort(hashes, kind="stable")
    repeats = np.flatnonzero(hashes[order][1:] == hashes[order][:-1])
    bounds = np.cumsum([len(shard.names) for shard in shards])
    for first, second in zip(order[repeats].tolist(), order[repeats + 1].tolist(), strict=True):
        entry = manifest.shards[int(np.searchsorted(bounds, second, side="right"))]
        findings.add(entry.file, f"original name must be of one sample only, got that of sample {first}", sample=second)
