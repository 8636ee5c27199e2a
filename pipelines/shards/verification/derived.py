"""What a set's table, index and manifest must be, by what its shards hold."""

import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..containers import recordio
from ..containers.formats import CONTAINERS
from ..manifest import INDEX_FILE, SAMPLES_FILE, Manifest, SetFile, Shard, samples_bytes
from .shard_check import ShardFound


def table_of(shards: Sequence[ShardFound]) -> NDArray[Any]:
    """The table of samples, dtype `SAMPLE_DTYPE`, of shards that are sound."""
    return np.concatenate([shard.rows for shard in shards])


def index_of(format_name: str, shards: Sequence[ShardFound]) -> bytes | None:
    """The one index of all shards; None if the format has one for each."""
    if CONTAINERS[format_name].is_indexed_by_shard:
        return None
    starts = np.cumsum([0, *(shard.shard.bytes for shard in shards if shard.shard)])
    offsets = np.concatenate([shard.records + start for shard, start in zip(shards, starts, strict=False)])
    return recordio.set_index(offsets.tolist()).encode()


def multipart_of(shards: Sequence[ShardFound]) -> tuple[tuple[int, int], ...]:
    """Row of the table and number of parts of every image in several parts."""
    firsts = np.cumsum([0, *(len(shard.records) for shard in shards)]).tolist()
    return tuple(
        (first + position, parts)
        for first, shard in zip(firsts, shards, strict=False)
        for position, parts in shard.multipart
    )


def manifest_of(manifest: Manifest, shards: Sequence[ShardFound]) -> Manifest:
    """A manifest with all that follows from the shards put right; they must be sound.

    The names of classes and of samples, and how the set was made, are taken over.
    """
    table, index = table_of(shards), index_of(manifest.format, shards)
    entries: list[Shard] = [shard.shard for shard in shards if shard.shard is not None]
    return replace(
        manifest,
        num_samples=len(table),
        largest=(int(table["height"].max()), int(table["width"].max())),
        samples=_entry(SAMPLES_FILE, samples_bytes(table)),
        shards=tuple(entries),
        index=None if index is None else _entry(INDEX_FILE, index),
        multipart=multipart_of(shards),
    )


def _entry(name: str, data: bytes) -> SetFile:
    return SetFile(name, len(data), zlib.crc32(data))
