"""Verifying a shard set: whether manifest, table, indexes and every record in the shards are right and agree."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..manifest import MANIFEST_FILE, PARTIAL_FOLDER
from ..progress import Progress
from .findings import Finding, Findings
from .survey import Survey, survey


@dataclass(frozen=True)
class Report:
    """Outcome of a verification.

    Attributes:
        folder: the set.
        findings: what is wrong, at most `findings.MOST_PER_FILE` of each file; nothing if the set is fine.
        unlisted: by file, how many findings there are beyond those.
        samples: records that were checked.
        shards: shards that were checked.
        bytes: size of those shards.
        decoded: every image was decoded whole, not only its header read.
        repaired: what was put right before, one line each.
        unrepaired: what could not be, and why, one line each.
        elapsed_s: wall time.
    """

    folder: Path
    findings: tuple[Finding, ...]
    unlisted: Mapping[str, int]
    samples: int
    shards: int
    bytes: int
    decoded: bool
    repaired: tuple[str, ...]
    unrepaired: tuple[str, ...]
    elapsed_s: float

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    def to_json(self) -> dict[str, Any]:
        """As `softfeed verify --json` prints it.

        The entries are those of this class, with "set" for the folder and "ok"; "findings" is a list of objects with
        "file", "problem", "offset" (bytes), "sample" (row of the table) and "name" (original), the last three null
        where they do not apply.
        """
        return {
            "set": str(self.folder),
            "ok": self.ok,
            "findings": [finding.to_json() for finding in self.findings],
            "unlisted": dict(self.unlisted),
            "samples": self.samples,
            "shards": self.shards,
            "bytes": self.bytes,
            "decoded": self.decoded,
            "repaired": list(self.repaired),
            "unrepaired": list(self.unrepaired),
            "elapsed_s": round(self.elapsed_s, 3),
        }


def verify(
    folder: str | os.PathLike[str],
    *,
    decode: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Report:
    """Look for anything that is wrong with a shard set.

    Checked are the manifest with its own checksum, presence, size and checksum of every file, files that do not belong
    there, the table of samples, every index, and every record of every shard, which is written again and compared byte
    by byte. Nothing is written, and no link is followed. Memory grows with the number of records, some hundred bytes
    for each, and with the size of the largest, up to 256 MiB; never with what a length in a file claims.

    What it cannot find are changes that fit all that the set says of itself, every checksum computed anew: in an image
    behind its header, unless `decode` fails for it (of bits flipped in PNGs nearly all do that, in JPEGs hardly
    any, in pixels none); in original names, labels or class names, where folders in the names or class names in the
    records do not tell; in how the set was made; and whole TFRecords that were moved or left out, or the last samples
    of any set, if table, index and manifest were made to fit.

    Several workers are fresh processes, which import the program: a script must call this below
    `if __name__ == "__main__":`, or with `workers=1`.

    Args:
        folder: a folder that `softfeed convert` wrote.
        decode: decode every image with the decoder used in training, instead of reading its header only.
        workers: processes, positive; None for one per core, fewer for a small set.
        progress: called after every shard.

    Raises:
        FileNotFoundError: if `folder` is no folder, or nothing in it makes it a shard set.
        ValueError: if `workers` is not positive.
    """
    begin = time.perf_counter()
    folder = Path(folder)
    require_set(folder, workers)
    if (unfinished := unfinished_findings(folder)) is not None:
        return report(Survey(folder, unfinished), begin, decoded=False)
    return report(survey(folder, decode=decode, workers=workers, progress=progress), begin, decoded=decode)


def require_set(folder: Path, workers: int | None) -> None:
    """Raise if there is no such folder, or the number of workers is not positive."""
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be positive, got {workers}")
    if not folder.is_dir():
        raise FileNotFoundError(f"shard set must be a folder, got {folder}; check the path")


def unfinished_findings(folder: Path) -> Findings | None:
    """The one finding about a conversion that was not finished; None if there is none."""
    if (folder / PARTIAL_FOLDER).is_dir() and not os.path.lexists(folder / MANIFEST_FILE):
        findings = Findings()
        advice = "run the same softfeed convert command again to finish it"
        findings.add(PARTIAL_FOLDER, f"shard set must be complete, got an unfinished conversion; {advice}")
        return findings
    return None


def report(
    found: Survey, begin: float, *, decoded: bool, repaired: Sequence[str] = (), unrepaired: Sequence[str] = ()
) -> Report:
    """Sum up a survey that began at `begin`, by `time.perf_counter`."""
    return Report(
        folder=found.folder,
        findings=tuple(found.findings.listed),
        unlisted=dict(found.findings.unlisted),
        samples=sum(len(shard.records) for shard in found.shards),
        shards=len(found.shards),
        bytes=sum(shard.shard.bytes for shard in found.shards if shard.shard),
        decoded=decoded,
        repaired=tuple(repaired),
        unrepaired=tuple(unrepaired),
        elapsed_s=time.perf_counter() - begin,
    )
