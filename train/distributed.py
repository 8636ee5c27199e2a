"""The processes of one run, as torchrun starts them, and the few collectives the trainer needs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar, cast

import numpy as np
import torch
import torch.distributed as dist

from ..pipelines.cores import local_world_size

T = TypeVar("T")


class RankError(RuntimeError):
    """One rank failed where the others did not, so it has to speak for itself."""


@dataclass(frozen=True)
class Process:
    """This process's place in the run.

    Attributes:
        device: where this process computes.
        rank: in [0, world_size).
        world_size: number of processes, at least 1.
    """

    device: torch.device
    rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        """True on the one process that writes files and prints."""
        return self.rank == 0

    @classmethod
    def current(cls, device: torch.device | str = "cpu") -> Process:
        """The place that an initialised `torch.distributed` gives; alone when it is not initialised."""
        if dist.is_available() and dist.is_initialized():
            return cls(torch.device(device), dist.get_rank(), dist.get_world_size())
        return cls(torch.device(device))


def pick_device(device: str | None = None) -> torch.device:
    """The device of this process: "cpu", or the GPU numbered LOCAL_RANK.

    Args:
        device: "cpu", "cuda", or None for a GPU where PyTorch sees one.

    Raises:
        ValueError: if `device` is neither, or asks for a GPU that is not there.
    """
    if device not in (None, "cpu", "cuda"):
        raise ValueError(f"device must be 'cpu' or 'cuda', got {device!r}")
    available = torch.cuda.device_count() if device != "cpu" and torch.cuda.is_available() else 0
    if device == "cuda" and not available:
        raise ValueError("device must be present, got 'cuda' where PyTorch sees no GPU; use device 'cpu'")
    if not available:
        return torch.device("cpu")
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    processes = max(local_world_size(), local_rank + 1)
    if processes > available:  # the same on every rank, so that all of them fail, and with the same line
        raise ValueError(
            f"processes per machine must be at most its {available} GPUs, got {processes}; "
            "lower --nproc-per-node or use device 'cpu'"
        )
    return torch.device("cuda", local_rank)


@contextmanager
def joined(device: str | None = None) -> Iterator[Process]:
    """Join the run torchrun started (gloo on CPUs, nccl on GPUs), and leave it at the end.

    Without torchrun this is a run of one process and `torch.distributed` stays untouched; a group that
    is already initialised is used and left alone.

    Args:
        device: as for `pick_device`.
    """
    chosen = pick_device(device)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if dist.is_initialized() or "WORLD_SIZE" not in os.environ:
        yield Process.current(chosen)
        return
    if chosen.type == "cuda":
        dist.init_process_group("nccl", device_id=chosen)
    else:
        dist.init_process_group("gloo")
    try:
        yield Process.current(chosen)
    finally:
        dist.destroy_process_group()


def sum_over_ranks(values: torch.Tensor, process: Process) -> torch.Tensor:
    """`values` added up over all ranks, in a new tensor; any shape, on `process.device`."""
    total = values.clone()
    if process.world_size > 1:
        dist.all_reduce(total)
    return total


def share_buffers(model: torch.nn.Module, process: Process) -> None:
    """Give every rank the buffers of rank 0 (running means of BatchNorm differ between ranks)."""
    if process.world_size > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


def from_main(function: Callable[[], T], process: Process) -> T:
    """What `function()` returns on rank 0, on every rank; its user error is raised on every rank.

    Only rank 0 needs the file system then, and no rank waits for one that has given up.
    """
    if process.world_size == 1:
        return function()
    outcome: list = [None, None]
    if process.is_main:
        try:
            outcome[0] = function()
        except (ValueError, TypeError, OSError) as error:
            outcome[1] = error
    dist.broadcast_object_list(outcome, src=0, device=process.device)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


def agree(function: Callable[[], T], process: Process) -> T:
    """Run `function` on every rank; if it is a user error on any of them, raise the first one on all.

    For preparations: no rank is left waiting for one that has given up, and rank 0 can speak for all.
    """
    if process.world_size == 1:
        return function()
    result, problem = None, None
    try:
        result = function()
    except (ValueError, TypeError, OSError, ImportError) as error:
        problem = error
    problems: list = [None] * process.world_size
    dist.all_gather_object(problems, problem)
    for problem in problems:
        if problem is not None:
            raise problem
    return cast(T, result)


@contextmanager
def rank_errors(process: Process) -> Iterator[None]:
    """Name the rank in an error that need not happen on the others, such as one unreadable image.

    Raises:
        RankError: in place of a ValueError, OSError, lost connection or full GPU, when there are several ranks.
    """
    try:
        yield
    except (ValueError, OSError, RuntimeError) as error:
        if process.world_size == 1:
            raise
        name = f"rank {process.rank} of {process.world_size}"
        if isinstance(error, torch.OutOfMemoryError):
            raise RankError(f"{name}: {memory_message(error)}") from error
        if not isinstance(error, RuntimeError):
            raise RankError(f"{name}: {error}") from error
        # gloo has no exception of its own: a peer's death is a RuntimeError with its source path.
        if isinstance(error, dist.DistError) or "gloo" in str(error):
            raise RankError(f"{name}: lost another rank; see that rank's message") from error
        raise


def memory_message(error: torch.OutOfMemoryError) -> str:
    """What to do about a full GPU, in one line: torch's own first sentences, without its advice on the allocator."""
    text = " ".join(str(error).split()).partition(" Including non-PyTorch memory")[0].rstrip(".")
    return f"GPU memory must hold a step, got {text}; use a smaller --batch-size"


def seed_step(*, seed: int, epoch: int, step: int, rank: int) -> None:
    """Set torch's generators (dropout and the like) for one step of one rank.

    A pure function of its arguments, so a run that resumes at a step needs no stored generator state,
    on any number of ranks.
    """
    state = np.random.SeedSequence((seed, epoch, rank, step)).generate_state(1, np.uint64)
    torch.manual_seed(int(state[0]))


def any_rank(facts: Sequence[bool], process: Process) -> list[bool]:
    """Which of the facts are true on at least one rank; all ranks must ask together."""
    if process.world_size == 1:
        return list(facts)
    found = torch.tensor(facts, dtype=torch.int32, device=process.device)
    dist.all_reduce(found, op=dist.ReduceOp.MAX)
    return [bool(fact) for fact in found.tolist()]
