"""Checking the files of a set that are not shards: manifest, table of samples, names, bad images, and strays."""

import itertools
import json
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..containers.container import name_text
from ..destination import BAD_FILE, ODD_FILE
from ..manifest import (
    MANIFEST_FILE,
    NAMES_FILE,
    PARTIAL_FOLDER,
    SAMPLE_DTYPE,
    SAMPLES_FILE,
    Manifest,
    SetFile,
    from_json,
    own_checksum,
    samples_header,
    to_json,
)
from .file_check import FileTrouble, file_bytes, file_size, first_difference
from .findings import Findings

_MOST_MANIFEST = 1 << 27  # bytes
_MOST_UNRECORDED = 1 << 30  # bytes of what no manifest speaks of; a table of 20 million samples
_SLACK = 1 << 20  # bytes
_LISTS = {BAD_FILE: "bad", ODD_FILE: "odd"}  # of images, with what the manifest calls their number
_MOST_BAD = 1 << 28
_FEW = 20  # unexpected files that are named


def read_manifest(folder: Path, findings: Findings) -> tuple[Manifest | None, int | None]:
    """Read and check `dataset.json`.

    Returns:
        the manifest, None if it cannot be read; and the checksum of its own that it ends with, None if it has none.
    """
    try:
        text = file_bytes(folder / MANIFEST_FILE, _MOST_MANIFEST).decode()
        manifest = from_json(text)
        recorded = own_checksum(text)
    except FileTrouble as trouble:
        findings.add(MANIFEST_FILE, str(trouble))
    except ValueError as error:
        findings.add(MANIFEST_FILE, str(error).removesuffix("; convert again"))
    else:
        _compare_text(text, manifest, recorded, findings)
        return manifest, recorded
    return None, None


def _compare_text(text: str, manifest: Manifest, recorded: int | None, findings: Findings) -> None:
    """Compare the manifest with its own checksum and with the way it is written."""
    expected = to_json(manifest)
    checksum = own_checksum(expected)
    if recorded is None:
        findings.add(MANIFEST_FILE, f"last entry must be crc32, its own checksum, got none; it may be {checksum}")
    elif recorded != checksum:
        rule = f"content must have the CRC-32 that it ends with, {recorded}, got {checksum}"
        findings.add(MANIFEST_FILE, f"{rule}: an entry was changed")
    elif text != expected:
        offset = first_difference(text.encode(), expected.encode("utf-8", "surrogatepass"))
        findings.add(MANIFEST_FILE, "must be as softfeed writes it, got other characters or entries", offset=offset)


def check_folder(folder: Path, manifest: Manifest, findings: Findings) -> None:
    """Find files that belong to nothing, and lists of bad and odd images that are not those of the manifest."""
    lists = {name: count for name, key in _LISTS.items() if (count := manifest.created.get(key, 0))}
    expected = {MANIFEST_FILE, manifest.samples.file}
    expected |= {name for shard in manifest.shards for name in (shard.file, shard.index) if name}
    expected |= {file.file for file in (manifest.index, manifest.names, *manifest.lists) if file}
    expected |= set(lists)
    with os.scandir(folder) as listing:
        others = sorted(entry.name for entry in listing if entry.name not in expected)
    if PARTIAL_FOLDER in others:
        findings.add(PARTIAL_FOLDER, "conversion must have cleaned up, got its work folder; run softfeed convert again")
    others = [name for name in others if not name.startswith(".")]  # file systems leave those
    for name in others[:_FEW]:
        findings.add(name, f"file must not be in a shard set, {MANIFEST_FILE} does not name it")
    if len(others) > _FEW:
        findings.add(".", f"folder must hold nothing else, got {len(others) - _FEW} more files that do not belong here")
    for file in manifest.lists:
        checked_bytes(folder, file, findings)
    for name, count in lists.items():
        if not findings.about(name):
            _check_list(folder, name, count, findings)


def _check_list(folder: Path, name: str, count: Any, findings: Findings) -> None:
    try:
        listed = json.loads(file_bytes(folder / name, _MOST_BAD))
    except FileTrouble as trouble:
        findings.add(name, str(trouble))
        return
    except (ValueError, RecursionError) as error:
        findings.add(name, f"must be JSON, got {error}")
        return
    found = len(listed) if isinstance(listed, list) else type(listed).__name__
    if found != count:
        findings.add(name, f"must list {count} images as {MANIFEST_FILE} says, got {found}")


def checked_bytes(folder: Path, file: SetFile, findings: Findings) -> tuple[bytes | None, bool]:
    """Content of a file of the whole set, None if it cannot be read; and whether the manifest describes it."""
    try:
        data = file_bytes(folder / file.file, file.bytes)
    except FileTrouble as trouble:
        findings.add(file.file, str(trouble))
        return None, False
    checksum = zlib.crc32(data)
    if len(data) != file.bytes:
        findings.add(file.file, f"file must be {file.bytes} bytes as {MANIFEST_FILE} says, got {len(data)}")
    elif checksum != file.crc32:
        rule = f"CRC-32 must be {file.crc32:08x} as {MANIFEST_FILE} says, got {checksum:08x}"
        findings.add(file.file, rule)
    return data, (len(data), checksum) == (file.bytes, file.crc32)


def read_table(
    folder: Path, manifest: Manifest | None, shards: Sequence[str], findings: Findings
) -> tuple[NDArray[Any] | None, bool]:
    """Read and check the table of samples.

    Args:
        folder: the set.
        manifest: None if it cannot be read; the sizes of the shards then bound that of the table.
        shards: names of their files.
        findings: where problems go.

    Returns:
        its rows, dtype `SAMPLE_DTYPE`, as far as they can be made out, else None; and whether it is the table that
        the manifest describes.
    """
    if manifest is not None:
        data, is_recorded = checked_bytes(folder, manifest.samples, findings)
    else:
        # A row is hardly longer than the shortest record, of one pixel.
        most = _SLACK + 2 * sum((folder / file).lstat().st_size for file in shards)
        data, is_recorded = _unrecorded_bytes(folder, SAMPLES_FILE, most, findings), False
    if data is None:
        return None, False
    start = len(samples_header(0))
    count, rest = divmod(max(len(data) - start, 0), SAMPLE_DTYPE.itemsize)
    header = samples_header(count)
    if rest or not data.startswith(header):
        offset = len(data) if rest else first_difference(data, header)
        findings.add(
            SAMPLES_FILE, f"must be a NumPy file of whole rows, got {len(data)} bytes of others", offset=offset
        )
        is_recorded = False
    if manifest is not None and count != manifest.num_samples:
        findings.add(SAMPLES_FILE, f"must hold num_samples = {manifest.num_samples} rows, got {count}")
    return np.frombuffer(data, SAMPLE_DTYPE, count, start) if len(data) >= start else None, is_recorded


def read_names(
    folder: Path, manifest: Manifest | None, table: NDArray[Any] | None, findings: Findings
) -> tuple[tuple[int, str], ...]:
    """Read the original names that lie in a file of their own, with the offset of each.

    A name may hold line breaks, so the table says how long each is, if it can be believed.
    """
    file = manifest.names.file if manifest and manifest.names else NAMES_FILE
    if manifest is not None and manifest.names is not None:
        data, _ = checked_bytes(folder, manifest.names, findings)
    else:
        data = _unrecorded_bytes(folder, file, _MOST_UNRECORDED, findings)
    if data is None:
        return ()
    sizes = [] if table is None else table["name_size"].tolist()
    ends = list(itertools.accumulate((size + 1 for size in sizes), initial=0))
    if ends[-1] != len(data) or any(size < 1 for size in sizes) or any(data[end - 1] != 10 for end in ends[1:]):
        sizes = [len(line) for line in data.removesuffix(b"\n").split(b"\n")]
        ends = list(itertools.accumulate((size + 1 for size in sizes), initial=0))
    count = manifest.num_samples if manifest else len(sizes)
    if len(sizes) != count or ends[-1] != len(data):
        findings.add(file, f"must hold {count} names, each with a line break, got {len(sizes)} lines")
    return tuple((start, name_text(data[start : start + size])) for start, size in zip(ends, sizes, strict=False))


def _unrecorded_bytes(folder: Path, file: str, most: int, findings: Findings) -> bytes | None:
    """Content of a file of the set when there is no manifest to say how large it is, of at most `most` bytes."""
    most = min(most, _MOST_UNRECORDED)
    try:
        size = file_size(folder / file, None)
        if size > most:
            raise FileTrouble(f"file must be at most {most} bytes without {MANIFEST_FILE}, got {size}; it was not read")
        return file_bytes(folder / file, size)
    except FileTrouble as trouble:
        findings.add(file, str(trouble))
        return None
