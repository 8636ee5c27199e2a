"""Checkpoints that are whole or absent, and the folder of a run that holds them."""

from __future__ import annotations

import pickle
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from ..pipelines import atomic

FORMAT = "softfeed-checkpoint-1"
LAST, BEST = "last.pt", "best.pt"
# What zipfile and torch.load raise, depending on where a file ends or differs.
_UNREADABLE = (
    *(zipfile.BadZipFile, zlib.error, pickle.UnpicklingError, EOFError, OSError),
    *(RuntimeError, ValueError, KeyError, IndexError, AttributeError, NotImplementedError),
)


@dataclass(frozen=True)
class Checkpoint:
    """Everything needed to go on with a run, or to use the model.

    torch's generators are not in it: every step seeds them anew from (seed, epoch, step, rank). Neither is the
    learning rate: it is a function of the step.

    Attributes:
        settings: what shapes the run (model, recipe, seed, ...): plain values by name. A resumed run must
            have the same.
        classes: names of the classes, in label order.
        epoch: number of finished epochs.
        model: `state_dict` of the network, without DDP's prefix.
        optimizer: `state_dict` of the optimiser.
        history: one row of numbers by name for each finished epoch.
        running: the epoch under way: its `step`, sums, and the state of its `batches`; None between epochs.
    """

    settings: dict[str, Any]
    classes: tuple[str, ...]
    epoch: int
    model: dict[str, Any]
    optimizer: dict[str, Any]
    history: list[dict[str, float]]
    running: dict[str, Any] | None = None


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint atomically; its folder must exist."""
    # Not asdict, which copies every tensor.
    content = {field.name: getattr(checkpoint, field.name) for field in fields(checkpoint)}
    content["classes"] = list(checkpoint.classes)
    atomic.write(path, lambda file: torch.save({"format": FORMAT, **content}, file))


def load(path: Path | str) -> Checkpoint:
    """Read a checkpoint onto the CPU; only plain values and tensors are unpickled, never code.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a checkpoint of softfeed, or is cut short or damaged.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"checkpoint must be a file, got the folder {path}; name {path / BEST} or {path / LAST}")
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint must exist, got {path}")
    with path.open("rb") as file:
        try:
            damaged = zipfile.ZipFile(file).testzip()  # torch.load does not look at the checksums it wrote
            file.seek(0)
            content = None if damaged else torch.load(file, map_location="cpu", weights_only=True)
        except _UNREADABLE as error:
            raise ValueError(f"checkpoint must be whole and written by softfeed train, got {path}") from error
    if damaged:
        raise ValueError(f"checkpoint must be undamaged, got a wrong checksum in {path}; use an older checkpoint")
    if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
        raise ValueError(f"checkpoint must be written by softfeed train ({FORMAT}), got {path}")
    content["classes"] = tuple(content["classes"])
    return Checkpoint(**content)


def require_same(checkpoint: Checkpoint, settings: Mapping[str, Any], classes: tuple[str, ...]) -> None:
    """Refuse to resume with what would silently train something else.

    A setting that the checkpoint does not have is one that its version did not record, and is not compared.

    Raises:
        ValueError: naming the first difference, in sorted order.
    """
    for name in sorted({*settings, *checkpoint.settings}):
        saved, given = checkpoint.settings.get(name), settings.get(name)
        if name in checkpoint.settings and saved != given:
            raise ValueError(
                f"{name} must be {saved!r} as in the run to resume, got {given!r}; "
                "give the same data and settings or choose another --output"
            )
    if checkpoint.classes != classes:
        raise ValueError(
            f"classes must be the {len(checkpoint.classes)} of the run to resume, got {len(classes)} classes"
            f"{_first_difference(checkpoint.classes, classes)}; check the data or choose another --output"
        )


def _first_difference(saved: tuple[str, ...], given: tuple[str, ...]) -> str:
    for index, (old, new) in enumerate(zip(saved, given, strict=False)):
        if old != new:
            return f" (class {index} is {new!r}, was {old!r})"
    return ""


def open_run(output: Path, *, resume: bool) -> Checkpoint | None:
    """The checkpoint to go on from, or None for a fresh start. Creates nothing.

    A run that died before its first checkpoint leaves nothing that stands in the way. `resume` where nothing
    is there yet is a fresh start, so that one command serves a job that may be restarted.

    Args:
        output: folder of the run.
        resume: go on from its `last.pt`.

    Raises:
        ValueError: if the folder holds a run and `resume` is False, or holds something else.
        OSError: if nothing can be written there.
    """
    if output.exists() and not output.is_dir():
        raise ValueError(f"output must be a folder, got the file {output}; choose another --output")
    atomic.require_writable(output, name="output")
    entries = {entry.name for entry in output.iterdir()} if output.is_dir() else set()
    if LAST in entries:
        if resume:
            return load(output / LAST)
        raise ValueError(
            f"output must be new, got {output}, which holds a run; continue it with --resume or choose another --output"
        )
    foreign = sorted(entries - {BEST, BEST + atomic.PARTIAL, LAST + atomic.PARTIAL})
    if foreign:
        raise ValueError(
            f"output must be empty or hold a run, got {output}, which holds {foreign[0]}; choose another --output"
        )
    return None
