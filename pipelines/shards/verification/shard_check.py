"""Checking one shard: its file, every record in it, its index, and its rows of the table of samples."""

import hashlib
import zlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..containers.container import FileReader, Placed, name_bytes
from ..manifest import SAMPLE_DTYPE, Shard
from .file_check import FileTrouble, file_size
from .findings import Finding, Findings
from .found import Complaints, FoundSample, ShardCheck, ShardReading
from .replay import Replay
from .shard_comparison import check_index, check_rows, compare_summary

_CHUNK = 1 << 20  # bytes at a time
_GREATEST_KEY = (1 << 63) - 1  # RecordIO has room for more, but no set as many samples


@dataclass(frozen=True)
class ShardFound:
    """What a check found in a shard.

    Attributes:
        findings: what is wrong.
        unlisted: how many findings are not listed, by file.
        shard: the entry of the manifest that the shard and the index it should have would get; None if there is none.
        is_sound: every record is as the converter writes it.
        index: content of the index that the shard should have, if another lies there.
        rows: rows of the table of samples, dtype `SAMPLE_DTYPE`, of the good samples.
        records: offsets of the records, int64.
        multipart: (position, parts) of the images in several parts.
        keys: of the good samples, int64.
        names: hashes of their original names, uint64.
        classes: name of the class of each label, as its records or the folders in its original names say; None where
            they say nothing, or several.
    """

    findings: tuple[Finding, ...]
    unlisted: Counter[str]
    shard: Shard | None = None
    is_sound: bool = False
    index: bytes | None = None
    rows: NDArray[Any] = field(default_factory=lambda: np.zeros(0, SAMPLE_DTYPE))
    records: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    multipart: tuple[tuple[int, int], ...] = ()
    keys: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    names: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))
    classes: dict[int, str | None] = field(default_factory=dict)


def check_shard(check: ShardCheck) -> ShardFound:
    """Check one shard with its index and its rows of the table."""
    findings = Findings()
    path, expected = check.folder / check.file, check.expected
    try:
        file_size(path, expected and expected.bytes)
        with FileReader(path) as read:
            content = _Content(check, read, findings)
            size, checksum = read.size, _checksum(read)
    except OSError as error:
        findings.add(check.file, f"file must be readable, got {error.strerror}")
    except FileTrouble as trouble:
        findings.add(check.file, str(trouble))
    else:
        return content.found(size, checksum)
    return ShardFound(tuple(findings.listed), findings.unlisted)


def _checksum(read: FileReader) -> int:
    checksum = 0
    for start in range(0, read.size, _CHUNK):
        checksum = zlib.crc32(read(start, _CHUNK), checksum)
    return checksum


class _Content:
    """What one pass over a shard gathers."""

    def __init__(self, check: ShardCheck, read: FileReader, findings: Findings) -> None:
        self._check = check
        self._findings = findings
        self._complaints = Complaints(check, findings)
        self._reading = ShardReading(check, read, self._complaints)
        self._replay = Replay(check, read, self._complaints)
        self._rows: dict[int, tuple[int, ...]] = {}
        self._multipart: list[tuple[int, int]] = []
        self._keys: list[int] = []
        self._names: list[int] = []
        self._classes: dict[int, str | None] = {}
        for sample in self._reading.samples():
            placed = self._replay.add(sample)
            if placed is not None:
                self._note(sample, placed)
        if self._reading.broken_at is None:
            self._replay.finish(self._reading.end)

    def _note(self, sample: FoundSample, placed: Placed) -> None:
        name, label = placed.name, sample.content.label
        if self._check.names is not None:
            name = name._replace(offset=self._check.names[sample.position][0])
        row = (self._check.number, *placed.image, label, sample.height, sample.width, *name)
        self._rows[sample.position] = row
        if placed.parts > 1:
            self._multipart.append((sample.position, placed.parts))
        if sample.content.key is not None:
            self._note_key(sample, sample.content.key)
        digest = hashlib.blake2b(name_bytes(sample.name), digest_size=8).digest()
        self._names.append(int.from_bytes(digest, "little"))
        folder, slash, _ = sample.name.partition("/")
        found = sample.content.class_name or (folder if slash else None)
        self._classes[label] = found if self._classes.setdefault(label, found) == found else None

    def _note_key(self, sample: FoundSample, key: int) -> None:
        if key > _GREATEST_KEY:
            problem = f"key must be at most {_GREATEST_KEY}, got {key}"
        elif self._keys and key <= self._keys[-1]:
            problem = f"key must be greater than {self._keys[-1]}, that of the sample before, got {key}"
        else:
            problem = None
        if problem is not None:
            self._complaints.add(problem, sample.entry.offset, sample.position, sample.name)
        if key <= _GREATEST_KEY:
            self._keys.append(key)

    def found(self, size: int, checksum: int) -> ShardFound:
        """Compare with the manifest, the index and the table, and sum up."""
        check, records = self._check, self._reading.records
        is_sound = not self._complaints.any and len(self._rows) > 0
        if not records and self._reading.broken_at is None:
            self._findings.add(check.file, "shard must hold a sample, got none")
        text = self._replay.index_text().encode() if check.index else b""
        shard = Shard(check.file, check.index, len(records), size, checksum, len(text), zlib.crc32(text) if text else 0)
        compare_summary(check, shard, is_sound=is_sound, findings=self._findings)
        is_index_right = check.index is None or check_index(check, text, is_sound=is_sound, findings=self._findings)
        check_rows(check, self._rows, len(records), self._reading.broken_at, self._findings)
        return ShardFound(
            findings=tuple(self._findings.listed),
            unlisted=self._findings.unlisted,
            shard=shard,
            is_sound=is_sound,
            index=None if is_index_right else text,
            rows=np.array(list(self._rows.values()), SAMPLE_DTYPE),
            records=np.array(records, np.int64),
            multipart=tuple(self._multipart),
            keys=np.array(self._keys, np.int64),
            names=np.array(self._names, np.uint64),
            classes=self._classes,
        )
