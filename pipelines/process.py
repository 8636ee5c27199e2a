"""What this process is: its device, its rank, its share of the cores."""

from __future__ import annotations

import os

import torch
from torch.utils.data import get_worker_info

from . import checks, cores


def pick_device(device: str | torch.device | None) -> torch.device:
    """The device that is meant; None is the GPU if there is one, else the CPU.

    Raises:
        ValueError: if it is no CPU or NVIDIA GPU, or not there.
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(device)
    except RuntimeError:
        raise ValueError(f"device must be 'cpu', 'cuda' or 'cuda:N', got {device!r}") from None
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device must be a CPU or an NVIDIA GPU, got {str(device)!r}")
    if device.type == "cpu":
        return device
    if not torch.cuda.is_available():
        raise ValueError(f"device must be there, got {str(device)!r} but torch sees no GPU; use 'cpu'")
    index = torch.cuda.current_device() if device.index is None else device.index
    if index >= torch.cuda.device_count():
        raise ValueError(f"device must be one of {torch.cuda.device_count()} GPU(s), got {str(device)!r}")
    return torch.device("cuda", index)


def place_among_ranks(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """This process's rank and the number of ranks; where not given, those of torch.distributed, else 0 and 1.

    Raises:
        ValueError: if one is given without the other, or none while there are several processes that would all play the
            same: of a torch.distributed that is not initialised yet, or workers of a `DataLoader`.
    """
    if (rank is None) != (world_size is None):
        raise ValueError(f"rank and world_size must be given together, got {rank} and {world_size}")
    if rank is not None and world_size is not None:
        return checks.whole("rank", rank, least=0), checks.whole("world_size", world_size)
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    processes, worker = os.environ.get("WORLD_SIZE", "1"), get_worker_info()
    if processes not in ("", "1"):
        raise ValueError(
            f"rank must be known before a loader is made, got WORLD_SIZE={processes} and no process group; call "
            "torch.distributed.init_process_group first, or give rank and world_size (0 and 1 for all data in each)"
        )
    if worker is not None and worker.num_workers > 1:
        raise ValueError(
            f"rank must be given in each of {worker.num_workers} workers of a DataLoader, which would all play the "
            "same; better use the loader without a DataLoader around it, as it reads ahead by itself"
        )
    return 0, 1


def default_threads(*, raw: bool) -> int:
    """Threads for a graph: this process's share of the cores.

    Raw images cost so little that Python's part, which runs beside the graph, needs a core of its own: on two cores one
    thread played raw CIFAR-100 faster than two (`softfeed bench RAW_SET --recipe soft-cifar`, without and with
    `--threads 2`).
    """
    return max(1, cores.share() - 1) if raw else cores.share()


def default_prefetch(device: torch.device) -> int:
    """Batches to keep ahead.

    One of them is the consumer's. On a GPU, where DALI blocks a thread of the CPU while it decodes, three leave two to
    work on meanwhile: one is decoded while the other is resized, and a batch of large images can be made up for. The
    third takes the memory of its output, 154 MB for 256 float32 images of 224 pixels, and of its decoded parts while it
    is worked on. That is reasoned, not measured; `softfeed tune` tries one to four. On a CPU the threads are busy with
    one batch at a time.
    """
    return 2 if device.type == "cpu" else 3
