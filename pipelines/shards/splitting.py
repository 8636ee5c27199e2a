"""A validation set set aside from a source that has none: a share of every class, drawn once and recorded."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import atomic
from .convert import Conversion, convert
from .destination import locked, make_folder, require_apart, require_free
from .layout import ShardOptions, fitting, plan
from .manifest import MANIFEST_FILE
from .sources.opening import Source, open_source
from .sources.subset import Subset

PARTS = ("train", "val")
_PLAN_FILE = ".split.json"  # beside the two sets while they are made
_STREAM = 0x5EED  # sets these draws apart from those of the shuffle with the same seed


def stratified(labels: NDArray[np.int64], val_share: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows for training and for validation, each class in proportion.

    Every class gives its share rounded down or up, so that together they give the share of all, rounded; those with the
    largest remainders round up. No class is left without a training image, so that classes of one image may leave
    validation with fewer.

    Args:
        labels: int64 (num_samples,).
        val_share: of the images, in (0, 1).
        seed: of the draw, 0 or more.

    Returns:
        rows of both parts, int64, each in the order of the source, together all and none twice.

    Raises:
        ValueError: if the share is out of range, or so small that validation would get no image.
    """
    if not 0 < val_share < 1:
        raise ValueError(f"val_share must be in (0, 1), got {val_share}")
    counts = np.bincount(labels)
    wanted = counts * val_share
    taken = np.floor(wanted).astype(np.int64)
    missing = round(len(labels) * val_share) - int(taken.sum())
    room = np.flatnonzero((taken + 1 < counts) & (taken < wanted))
    most = room[np.argsort(taken[room] - wanted[room], kind="stable")]
    taken[most[: max(missing, 0)]] += 1
    if not taken.any():
        raise ValueError(f"val_share must give validation an image, got {val_share} of {len(labels)}")
    order = np.random.default_rng([seed, _STREAM]).permutation(len(labels))
    grouped = order[np.argsort(labels[order], kind="stable")]
    first = np.cumsum(counts) - counts
    place = np.arange(len(labels)) - np.repeat(first, counts)
    is_val = np.zeros(len(labels), bool)
    is_val[grouped[place < np.repeat(taken, counts)]] = True
    return np.flatnonzero(~is_val), np.flatnonzero(is_val)


def convert_split(
    source: Source | str | os.PathLike[str],
    dest: str | os.PathLike[str],
    options: ShardOptions | None = None,
    *,
    val_share: float,
    overwrite: bool = False,
    **settings: Any,
) -> dict[str, Conversion | None]:
    """Convert a source to two shard sets, `dest/train` and `dest/val`, that share no image.

    Which image goes where depends on the labels, the share and the seed of `options` only. A run that was interrupted
    is finished by the same call. A source that must be spooled is read once for each set.

    Args:
        source: what `open_source` returns, or a path for it.
        dest: folder of the two sets.
        options: what the sets look like; None for the defaults.
        val_share: of the images for validation, in (0, 1); see `stratified`.
        overwrite: as `convert`.
        **settings: others of `convert`.

    Returns:
        outcome of each set; None for one that an earlier, interrupted run had finished.

    Raises:
        ValueError, OSError: as `convert`.
    """
    source = open_source(source) if isinstance(source, (str, os.PathLike)) else source
    options = fitting(source, options or ShardOptions())
    parts = {}
    for part, rows in zip(PARTS, stratified(source.labels, val_share, options.seed), strict=True):
        parts[part] = Subset(source, rows, {"part": part, "val_share": val_share, "seed": options.seed})
    plans = {part: plan(subset, options) for part, subset in parts.items()}
    dest = Path(dest)
    for part in PARTS:
        require_apart(source.root, dest / part)
    plan_file = dest / _PLAN_FILE
    finished = () if overwrite else _finished(plan_file, plans)
    for part in set(PARTS) - set(finished):
        require_free(dest / part, overwrite=overwrite)
    make_folder(dest, dest)
    outcomes: dict[str, Conversion | None] = dict.fromkeys(PARTS)
    with locked(dest, dest):
        atomic.write_bytes(plan_file, json.dumps(plans).encode())
        for part in PARTS:
            if part not in finished:
                outcomes[part] = convert(parts[part], dest / part, options, overwrite=overwrite, **settings)
        plan_file.unlink()
    return outcomes


def _finished(plan_file: Path, plans: Mapping[str, Any]) -> tuple[str, ...]:
    """Sets that an interrupted run of the same plans has finished."""
    try:
        earlier = json.loads(plan_file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return ()
    if earlier != json.loads(json.dumps(plans)):
        return ()
    return tuple(part for part in PARTS if (plan_file.parent / part / MANIFEST_FILE).exists())
