"""Making a manifest for a set that has lost it."""

import itertools
import json
import os
import zlib
from pathlib import Path
from typing import Any

from ..containers.formats import CONTAINERS
from ..destination import BAD_FILE, ODD_FILE
from ..manifest import MANIFEST_FILE, NAMES_FILE, SAMPLES_FILE, Manifest, SetFile, samples_bytes
from .derived import manifest_of, table_of
from .file_check import FileTrouble, file_bytes
from .survey import Survey, format_of, shard_files

_MOST_BAD = 1 << 28  # bytes
_RESTORE = "restore a copy, or convert again"


def rebuilt_manifest(found: Survey) -> Manifest:
    """A manifest for a set without one.

    The set must otherwise be whole, with its table, or nobody could say whether a shard is missing. Class names come
    from the records (TFRecord), or else from the folders that the original names begin with.

    Raises:
        ValueError: if the manifest cannot be rebuilt, with the reason.
    """
    folder = found.folder
    if found.findings.about(MANIFEST_FILE) and os.path.lexists(folder / MANIFEST_FILE):
        raise ValueError(
            f"{MANIFEST_FILE}: cannot be read, and classes and origin may be nowhere else; mend it, {_RESTORE}; or "
            "remove it to have it rebuilt from the rest"
        )
    if not found.is_sound:
        raise ValueError(f"{MANIFEST_FILE}: can only be rebuilt if every shard is whole; {_RESTORE}")
    table = table_of(found.shards)
    if found.findings.about(SAMPLES_FILE) or found.table is None or found.table.tobytes() != table.tobytes():
        raise ValueError(f"{MANIFEST_FILE}: can only be rebuilt if {SAMPLES_FILE} fits the shards; {_RESTORE}")
    bad, odd = _listed(found, BAD_FILE), _listed(found, ODD_FILE)
    name = format_of(found, shard_files(folder))
    draft = Manifest(
        encoding="original" if found.raw_shape is None else "raw",
        raw_shape=found.raw_shape,
        classes=_classes(found, bad),
        num_samples=len(table),
        largest=(0, 0),
        samples=SetFile(SAMPLES_FILE, len(samples_bytes(table)), 0),
        shards=(),
        created={"rebuilt": "softfeed verify --repair", "bad": len(bad), "odd": len(odd)},
        format=name,
        names=None if CONTAINERS[name].is_indexed_by_shard else _as_it_is(folder / NAMES_FILE),
        lists=tuple(_as_it_is(folder / file) for file in (BAD_FILE, ODD_FILE) if (folder / file).exists()),
    )
    return manifest_of(draft, found.shards)


def _as_it_is(path: Path) -> SetFile:
    content = path.read_bytes()
    return SetFile(path.name, len(content), zlib.crc32(content))


def _listed(found: Survey, name: str) -> list[dict[str, Any]]:
    """What `bad.json` lists: images that were left out, whose classes count too; or `odd.json`."""
    path = found.folder / name
    if not path.exists():
        return []
    try:
        listed = json.loads(file_bytes(path, _MOST_BAD))
        return [{"label": int(image["label"]), "name": str(image["name"])} for image in listed]
    except (FileTrouble, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{MANIFEST_FILE}: can only be rebuilt if {name} can be read, got {error}") from None


def _classes(found: Survey, bad: list[dict[str, Any]]) -> tuple[str, ...]:
    """Names of all classes from 0 on.

    Raises:
        ValueError: if one is unknown, or they cannot be those that the labels number.
    """
    names: dict[int, str | None] = {}
    told = [(label, name) for shard in found.shards for label, name in shard.classes.items()]
    told += [(image["label"], image["name"].partition("/")[0]) for image in bad]
    for label, name in told:
        names[label] = name if names.setdefault(label, name) == name else None
    unknown = [label for label in range(max(names) + 1) if not names.get(label)]
    if unknown:
        raise ValueError(
            f"{MANIFEST_FILE}: class names are nowhere else, got none for label {unknown[0]}; restore a copy, or "
            "convert again"
        )
    classes = tuple(str(names[label]) for label in range(len(names)))
    from_records = format_of(found, shard_files(found.folder)) == "tfrecord"
    if not from_records and not all(first < second for first, second in itertools.pairwise(classes)):
        raise ValueError(
            f"{MANIFEST_FILE}: class names are nowhere else: those at the beginning of original names, such as "
            f"{classes[0]!r}, are not of one class each in order; {_RESTORE}"
        )
    if not from_records and any(name.endswith(".parquet") for name in classes):
        raise ValueError(
            f"{MANIFEST_FILE}: class names are nowhere else; original names are of Parquet files; {_RESTORE}"
        )
    return classes
