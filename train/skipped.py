"""Samples that loaders skipped: gathered from all ranks, and told at the end of a command."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch.distributed as dist

from .distributed import Process

if TYPE_CHECKING:
    from ..pipelines import Loader

_SHOWN = 20  # lines


def gathered(errors: list, process: Process) -> list:
    """The errors of all ranks, each sample once, in the order of the data set; all ranks must call it together."""
    lists: list[Any] = [errors]
    if process.world_size > 1:
        lists = [None] * process.world_size
        dist.all_gather_object(lists, errors)
    by_sample = {error[0]: list(error) for found in lists for error in found}
    return [by_sample[index] for index in sorted(by_sample)]


def report(loaders: Mapping[str, Loader | None], process: Process) -> list[str]:
    """Lines about what was skipped, none if nothing was; all ranks must call it together.

    Args:
        loaders: by what they are for, such as "training".
        process: this process.
    """
    lines = []
    for name, loader in loaders.items():
        errors = [] if loader is None else gathered(loader.errors, process)
        if errors:
            lines.append(f"{name}: skipped {len(errors)} sample(s) that could not be read or decoded")
            lines += [f"  {source}: {reason}" for _, source, reason in errors[:_SHOWN]]
            if len(errors) > _SHOWN:
                lines.append(f"  and {len(errors) - _SHOWN} more")
    return lines
