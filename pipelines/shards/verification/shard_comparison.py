"""Comparing what a shard holds with what its index, the table of samples and the manifest say."""

import itertools
import zlib
from collections.abc import Mapping

from ..manifest import MANIFEST_FILE, SAMPLE_DTYPE, SAMPLES_FILE, Shard, samples_header
from .file_check import FileTrouble, file_bytes
from .findings import Findings
from .found import ShardCheck


def compare_summary(check: ShardCheck, shard: Shard, *, is_sound: bool, findings: Findings) -> None:
    """Compare the shard's entry in the manifest with the one that it should have."""
    expected = check.expected
    if expected is None:
        return
    if shard.bytes != expected.bytes:
        findings.add(check.file, f"file must be {expected.bytes} bytes as {MANIFEST_FILE} says, got {shard.bytes}")
    elif shard.crc32 != expected.crc32:
        rule = f"CRC-32 must be {expected.crc32:08x} as {MANIFEST_FILE} says, got {shard.crc32:08x}"
        seen = "every record in it is whole, so an image was changed or the manifest" if is_sound else ""
        findings.add(check.file, f"{rule}; {seen}" if seen else rule)
    if expected.index is None and (expected.index_bytes or expected.index_crc32):
        rule = f"index_bytes and index_crc32 of {check.file} must be 0, it has no index of its own"
        findings.add(MANIFEST_FILE, f"{rule}, got {expected.index_bytes} and {expected.index_crc32}")
    if shard.samples != expected.samples and (shard.bytes, shard.crc32) == (expected.bytes, expected.crc32):
        rule = f"samples of {check.file} must be {shard.samples}, the number of its records"
        findings.add(MANIFEST_FILE, f"{rule}, got {expected.samples}")
    elif shard.samples != expected.samples:  # it is the shard that was changed, and maybe the manifest too
        problem = f"shard has {shard.samples:,} records that can be read, {MANIFEST_FILE} says {expected.samples:,}"
        findings.add(check.file, problem)


def check_index(check: ShardCheck, text: bytes, *, is_sound: bool, findings: Findings) -> bool:
    """Compare the shard's index with the one that it should have.

    Args:
        check: the shard.
        text: what the index should hold if the shard is sound.
        is_sound: whether it is.
        findings: where problems go.

    Returns:
        whether nothing is wrong with the index.
    """
    name, expected = check.index or "", check.expected
    try:
        found = file_bytes(check.folder / name, expected.index_bytes if expected else len(text))
    except FileTrouble as trouble:
        findings.add(name, str(trouble))
        return False
    is_recorded = expected is None or (len(found), zlib.crc32(found)) == (expected.index_bytes, expected.index_crc32)
    if found != text and (is_sound or not is_recorded):
        _compare_lines(check, found, text, findings)
        return False
    if not is_recorded and expected is not None:
        rule = f"index_bytes and index_crc32 of {check.file} must be {len(found)} and {zlib.crc32(found)}"
        findings.add(MANIFEST_FILE, f"{rule}, as {name} has, got {expected.index_bytes} and {expected.index_crc32}")
    return True


def _compare_lines(check: ShardCheck, found: bytes, text: bytes, findings: Findings) -> None:
    """Name the lines of an index that are not as they should be."""
    offset = 0
    head = text.startswith(b"v")  # a line that counts the samples
    for number, (is_line, line) in enumerate(
        itertools.zip_longest(found.splitlines(keepends=True), text.splitlines(keepends=True))
    ):
        if is_line != line:
            position = number - head
            sample = check.first_sample + position if position >= 0 and check.first_sample is not None else None
            rule = "line must be left out" if line is None else f"line {number + 1} must be {_shown(line)}"
            findings.add(
                check.index or "",
                f"{rule}, got {'none' if is_line is None else _shown(is_line)}",
                offset=offset,
                sample=sample,
            )
        offset += len(is_line or b"")


def _shown(line: bytes) -> str:
    return repr(line.decode("utf-8", "backslashreplace"))


def check_rows(
    check: ShardCheck, rows: Mapping[int, tuple[int, ...]], records: int, broken_at: int | None, findings: Findings
) -> None:
    """Compare the table of samples with the samples of a shard.

    Args:
        check: the shard and its rows of the table.
        rows: the row that each sample should have, by its position in the shard.
        records: how many records the shard has.
        broken_at: offset behind which it could not be read; None if there is none.
        findings: where problems go.
    """
    if check.rows is None:
        return
    table = check.rows.tolist()
    by_offset = {row[1]: position for position, row in enumerate(table)}
    matched = set(range(len(table))) if records == len(table) else set()
    for position, row in rows.items():
        place = position if records == len(table) else by_offset.get(row[1])
        if place is None:
            findings.add(check.file, f"sample must be in {SAMPLES_FILE}, got no row for it", offset=row[1])
            continue
        matched.add(place)
        if tuple(table[place]) != row:
            _compare_row(check, place, table[place], row, findings)
    if broken_at is not None:
        left = len(table) - records
        if left > 0:
            findings.add(check.file, f"{left} samples behind it could not be read", offset=broken_at)
        return
    for place in range(len(table)):
        if place not in matched:
            row = check.first_row + place
            findings.add(
                SAMPLES_FILE,
                f"row must point to a sample in {check.file}, got offset {table[place][1]}",
                offset=_row_offset(row),
                sample=row,
            )


def _compare_row(
    check: ShardCheck, place: int, found: tuple[int, ...], row: tuple[int, ...], findings: Findings
) -> None:
    """Name what differs, in the table if that is not the one that belongs here, else in the shard."""
    number = check.first_row + place
    for name, is_value, value in zip(SAMPLE_DTYPE.names or (), found, row, strict=True):
        if is_value == value:
            continue
        if check.is_table_sound:
            problem = f"{name} must be {is_value} as {SAMPLES_FILE} says, got {value}"
            findings.add(check.file, problem, offset=row[1], sample=number)
        else:
            problem = f"{name} must be {value} as {check.file} says, got {is_value}"
            offset = _row_offset(number) + (SAMPLE_DTYPE.fields or {})[name][1]
            findings.add(SAMPLES_FILE, problem, offset=offset, sample=number)


def _row_offset(row: int) -> int:
    return len(samples_header(row)) + row * SAMPLE_DTYPE.itemsize
