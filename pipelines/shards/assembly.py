"""Putting finished shards together to a set: its table of samples, indexes and lists, and last the manifest."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import manifest
from .containers import recordio
from .containers.container import name_bytes
from .containers.formats import CONTAINERS
from .destination import BAD_FILE, ODD_FILE
from .job import ShardRecord
from .layout import ShardOptions, rewrites, samples_per_shard
from .manifest import INDEX_FILE, NAMES_FILE, Manifest, SetFile
from .sources.opening import Source
from .sources.subset import Subset


def assemble(source: Source, options: ShardOptions, dest: Path, records: Sequence[ShardRecord]) -> Manifest:
    """Make a shard set of the shards in a folder.

    Args:
        source: what was converted.
        options: with which it was.
        dest: folder of the shards.
        records: of all shards, in order.

    Raises:
        ValueError: if no image was good.
    """
    kept = [record for record in records if record.shard.samples]
    if not kept:
        raise ValueError(f"source must hold an image that decodes, got none in {source.root}")
    for record in records:
        if not record.shard.samples:  # all its images were bad: DALI refuses an empty shard
            for name in filter(None, (record.shard.file, record.shard.index)):
                (dest / name).unlink()
    table = np.concatenate([record.rows for record in kept])
    table["shard"] = np.repeat(np.arange(len(kept)), [len(record.rows) for record in kept])
    first_rows = np.cumsum([0, *(len(record.rows) for record in kept)])
    by_shard = CONTAINERS[options.format].is_indexed_by_shard
    index, names = (None, None) if by_shard else _files_of_set(dest, kept, table)
    bad = [image._asdict() for record in records for image in record.bad]
    odd = [image._asdict() for record in records for image in record.odd]
    lists = tuple(
        manifest.write_set_file(dest, name, (json.dumps(images, indent=1) + "\n").encode())
        for name, images in ((BAD_FILE, bad), (ODD_FILE, odd))
        if images
    )
    largest = int(table["height"].max()), int(table["width"].max())
    made = Manifest(
        encoding="raw" if options.raw else "rewritten" if rewrites(source, options) else "original",
        raw_shape=(*largest, 3) if options.raw else None,
        classes=source.classes,
        num_samples=len(table),
        largest=largest,
        samples=manifest.write_samples(dest, table),
        shards=tuple(record.shard for record in kept),
        created={
            "source": str(source.root),
            "source_format": source.format,
            "seed": options.seed,
            "options": asdict(options) | {"shard_samples": samples_per_shard(options, len(source.labels))},
            "bad": len(bad),
            "odd": len(odd),
            **({"split": source.split} if isinstance(source, Subset) else {}),
        },
        format=options.format,
        index=index,
        names=names,
        multipart=tuple(
            (int(first) + row, parts)
            for first, record in zip(first_rows, kept, strict=False)
            for row, parts in record.multipart
        ),
        lists=lists,
    )
    manifest.write(dest, made)
    return made


def _files_of_set(dest: Path, kept: Sequence[ShardRecord], table: NDArray[Any]) -> tuple[SetFile, SetFile]:
    """Write the index of all shards and the names, and set the names' offsets in the table."""
    starts = np.cumsum([0, *(record.shard.bytes for record in kept)])[:-1]
    records = starts[table["shard"]] + table["offset"] - recordio.CONTAINER.first_offset
    index = manifest.write_set_file(dest, INDEX_FILE, recordio.set_index(records.tolist()).encode())
    lines = b"".join(name_bytes(name) + b"\n" for record in kept for name in record.names)
    table["name_offset"] = np.cumsum(np.concatenate([[0], table["name_size"][:-1].astype(np.int64) + 1]))
    return index, manifest.write_set_file(dest, NAMES_FILE, lines)
