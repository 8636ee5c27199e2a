"""How the cores of a machine are shared between reading data and computing."""

from __future__ import annotations

import os

import torch

from ..pipelines import cores
from .distributed import Process


def share_cores(process: Process, data_threads: int | None = None) -> int:
    """Set torch's CPU threads for this process and return the number of threads for the loader.

    With a GPU the loader gets this process's share of the cores. On a CPU torch gets that share, for the network
    takes nearly all the time, and the loader half as many threads, which sleep while a batch is waiting: on two
    cores, one thread for data and two for the network. Ranks on one machine share its cores evenly.

    OMP_NUM_THREADS goes before the rule for torch's threads; only a 1 under torchrun does not, which is what torchrun
    sets where the user has set nothing.

    Args:
        process: this process.
        data_threads: the loader's threads, at least 1; None for the rule above.

    Raises:
        ValueError: if `data_threads` is below 1.
    """
    if data_threads is not None and data_threads < 1:
        raise ValueError(f"threads must be at least 1, got {data_threads}")
    if not _threads_are_set():
        torch.set_num_threads(cores.share())
    return default_data_threads(process.device) if data_threads is None else data_threads


def default_data_threads(device: torch.device) -> int:
    """Threads that training gives the loader, by the rule of `share_cores`."""
    return cores.share() if device.type == "cuda" else max(1, cores.share() // 2)


def _threads_are_set() -> bool:
    """Whether the user chose torch's threads, which torch has then read from the environment by itself."""
    threads = os.environ.get("OMP_NUM_THREADS", "")
    return threads not in ("", "1" if cores.local_world_size() > 1 else "")
