"""Going through a whole shard set: its folder, manifest, table of samples, and every shard."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..containers.formats import CONTAINERS
from ..manifest import MANIFEST_FILE, Manifest
from ..progress import Progress
from ..workers import default_workers, ordered_results, worker_processes
from .findings import Findings
from .found import ShardCheck
from .set_comparison import compare_set
from .set_files import check_folder, read_manifest, read_names, read_table
from .shard_check import ShardFound, check_shard

_SHARD = re.compile(r"shard-\d{6,}(\.\w+)")
_UNDECODED = 8  # images that are as much work to look through as one is to decode


@dataclass
class Survey:
    """What was found out about a set.

    Attributes:
        folder: the set.
        findings: what is wrong.
        manifest: content of `dataset.json`; None if it is missing or cannot be read.
        own_checksum: the CRC-32 that `dataset.json` ends with; None if it has none.
        table: the table of samples; None if it is missing or no table.
        names: original names that lie in a file of their own, with their offsets; else None.
        raw_shape: (height, width, 3) if the images are pixels.
        shards: what each shard holds, in order.
    """

    folder: Path
    findings: Findings
    manifest: Manifest | None = None
    own_checksum: int | None = None
    table: NDArray[Any] | None = None
    names: tuple[tuple[int, str], ...] | None = None
    raw_shape: tuple[int, int, int] | None = None
    shards: Sequence[ShardFound] = ()

    @property
    def is_sound(self) -> bool:
        """Whether every shard is there and as the converter writes it."""
        return bool(self.shards) and all(shard.is_sound for shard in self.shards)


def survey(folder: Path, *, decode: bool, workers: int | None, progress: Progress | None) -> Survey:
    """Look at everything in a set.

    Args:
        folder: the set; a conversion into it must have ended, but any of its files may be missing.
        decode: decode every image whole.
        workers: processes, positive; None for one per core, fewer for a small set.
        progress: called after every shard.

    Raises:
        FileNotFoundError: if it holds neither a manifest nor shards.
    """
    findings = Findings()
    result = Survey(folder, findings)
    result.manifest, result.own_checksum = read_manifest(folder, findings)
    files = shard_files(folder)
    if result.manifest is None and not files:
        inside = sorted(path.parent for path in folder.glob(f"*/{MANIFEST_FILE}"))
        advice = f"name one of the sets in it, such as {inside[0]}" if inside else "check the path"
        raise FileNotFoundError(f"shard set must hold {MANIFEST_FILE} and shards, got neither in {folder}; {advice}")
    result.table, is_table_sound = read_table(folder, result.manifest, files, findings)
    result.raw_shape = raw_shape_of(result)
    if result.manifest is not None:
        check_folder(folder, result.manifest, findings)
    if not CONTAINERS[format_of(result, files)].is_indexed_by_shard:
        result.names = read_names(folder, result.manifest, result.table, findings)
    checks = _checks(result, files, decode=decode, is_table_sound=is_table_sound)
    result.shards = _checked(checks, findings, decode=decode, workers=workers, progress=progress)
    if result.manifest is not None:
        compare_set(folder, result.manifest, result.shards, findings)
    return result


def _checked(
    checks: list[ShardCheck], findings: Findings, *, decode: bool, workers: int | None, progress: Progress | None
) -> list[ShardFound]:
    """Check all shards and gather what is wrong."""
    total = sum(check.expected.samples if check.expected else len(_rows(check)) for check in checks)
    workers = workers or default_workers(total if decode else total // _UNDECODED + 1)
    shards = []
    done = size = 0
    with worker_processes(workers) as executor:
        for shard in ordered_results(executor, check_shard, checks, ahead=4 * workers):
            findings.extend(shard.findings, shard.unlisted)
            shards.append(shard)
            done += len(shard.records)
            size += shard.shard.bytes if shard.shard else 0
            if progress:
                progress("verifying", done, max(total, done), findings.count, size)
    return shards


def _rows(check: ShardCheck) -> Sequence[Any] | NDArray[Any]:
    return () if check.rows is None else check.rows


def shard_files(folder: Path) -> list[str]:
    """Names of the files in a folder that are called as shards are, by their numbers."""
    suffixes = {container.suffix for container in CONTAINERS.values()}
    names = (path.name for path in folder.iterdir())
    shards = (name for name in names if (match := _SHARD.fullmatch(name)) and match[1] in suffixes)
    return sorted(shards, key=lambda name: (len(name), name))  # from the millionth on, numbers are longer


def format_of(found: Survey, files: Sequence[str]) -> str:
    """Name of the container format; without a manifest by the name of the first shard."""
    if found.manifest is not None:
        return found.manifest.format
    return next(name for name, container in CONTAINERS.items() if files[0].endswith(container.suffix))


def raw_shape_of(found: Survey) -> tuple[int, int, int] | None:
    """Shape of every image of a raw set; without a manifest by the table: every image has the size of its pixels."""
    if found.manifest is not None:
        return found.manifest.raw_shape
    table = found.table
    if table is None or not len(table):
        return None
    height, width = int(table["height"][0]), int(table["width"][0])
    is_raw = (table["height"] == height) & (table["width"] == width) & (table["size"] == 3 * height * width)
    return (height, width, 3) if is_raw.all() else None


def _checks(found: Survey, files: list[str], *, decode: bool, is_table_sound: bool) -> list[ShardCheck]:
    manifest = found.manifest
    name = format_of(found, files)
    if manifest is not None:
        shards = [(entry.file, entry.index, entry) for entry in manifest.shards]
    elif CONTAINERS[name].is_indexed_by_shard:
        shards = [(file, f"{Path(file).stem}.idx", None) for file in files]
    else:
        shards = [(file, None, None) for file in files]
    firsts, rows = _first_rows(found, len(shards))
    return [
        ShardCheck(
            folder=found.folder,
            number=number,
            file=file,
            index=index,
            format=name,
            expected=entry,
            rows=None if found.table is None else found.table[rows[number] : rows[number + 1]],
            first_sample=None if manifest is None and found.table is None else firsts[number],
            first_row=rows[number],
            is_table_sound=is_table_sound,
            names=None if found.names is None else found.names[firsts[number] : firsts[number + 1]],
            classes=manifest.classes if manifest else None,
            raw_shape=found.raw_shape,
            has_class_folders=manifest is not None and manifest.created.get("source_format") == "folder",
            decode=decode,
        )
        for number, (file, index, entry) in enumerate(shards)
    ]


def _first_rows(found: Survey, shards: int) -> tuple[list[int], list[int]]:
    """First sample of each shard, and behind them the number of samples; and the same for the rows of the table.

    They differ if manifest and table do not agree. What neither tells is taken for 0.
    """
    counts = [entry.samples for entry in found.manifest.shards] if found.manifest else []
    by_manifest = np.cumsum([0, *counts]) if counts else np.zeros(shards + 1, int)
    if found.table is None:
        return by_manifest.tolist(), by_manifest.tolist()
    by_table = np.searchsorted(np.maximum.accumulate(found.table["shard"]), np.arange(shards + 1))
    if counts and by_manifest[-1] == len(found.table):
        by_table = by_manifest
    if found.manifest is None or by_manifest[-1] != found.manifest.num_samples:
        by_manifest = by_table
    return by_manifest.tolist(), by_table.tolist()
