"""Memory of this process and its children, and of the GPU."""

from __future__ import annotations

import gc
import sys
import threading
from pathlib import Path
from typing import Any

import psutil

_EVERY_S = 0.2


def host_bytes() -> int:
    """Bytes of memory of this process and its children; what several of them share counts once.

    The parts of libraries and other files that are in memory count in full, of the process that has most of them: the
    kernel's own share per process (PSS) shrinks by hundreds of megabytes while another program has torch loaded.
    """
    process = psutil.Process()
    members = [_own_and_files(process.pid)]
    for child in process.children(recursive=True):
        try:
            members.append(_own_and_files(child.pid))
        except OSError:  # it has ended
            continue
    return sum(own for own, _ in members) + max(files for _, files in members)


def _own_and_files(pid: int) -> tuple[int, int]:
    """Bytes of a process: its share of memory of no file (PSS), and the parts of files that are in memory."""
    parts, status = _kilobytes(f"/proc/{pid}/smaps_rollup"), _kilobytes(f"/proc/{pid}/status")
    # Linux tells the two shares since 5.4
    own = parts["Pss_Anon"] + parts["Pss_Shmem"] if "Pss_Anon" in parts else parts.get("Anonymous", 0)
    return 1024 * own, 1024 * status.get("RssFile", 0)  # a process that is ending has none


def _kilobytes(path: str) -> dict[str, int]:
    """The lines `NAME: NUMBER kB` of a file."""
    words = (line.split() for line in Path(path).read_text().splitlines())
    return {line[0].rstrip(":"): int(line[1]) for line in words if line[-1:] == ["kB"]}


def gpu_bytes() -> int | None:
    """Bytes of the GPU's memory that are in use, by DALI, torch and any other program; None where there is no GPU."""
    torch: Any = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    free, total = torch.cuda.mem_get_info()
    return total - free


def gpu_bytes_before(device: str) -> int:
    """What `gpu_bytes` says before anything is put on a device, what CUDA takes for this process included; 0 on a CPU.

    Another process, such as the one that this one was started by, may hold loaders and networks there.
    """
    if device == "cpu":
        return 0
    import torch

    torch.cuda.init()
    return gpu_bytes() or 0


def release_gpu_memory() -> None:
    """Give the GPU's memory back that torch and DALI keep for later, as far as nothing is in it."""
    import torch
    from nvidia.dali import backend

    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    backend.ReleaseUnusedMemory()  # pyright: ignore[reportAttributeAccessIssue]


class PeakMemory:
    """Watches memory while a block runs; `host` and `gpu` are then the largest values seen, in bytes.

    Args:
        gpu_before: Bytes of the GPU's memory that do not count, as they were in use before.
    """

    def __init__(self, gpu_before: int = 0) -> None:
        self.host, self.gpu = 0, 0
        self._gpu_before = gpu_before
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._look()
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._done.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._done.wait(_EVERY_S):
            self._look()

    def _look(self) -> None:
        self.host = max(self.host, host_bytes())
        self.gpu = max(self.gpu, (gpu_bytes() or 0) - self._gpu_before)

    def facts(self) -> dict[str, float | None]:
        """In MB, for a result."""
        return {"host_mb": round(self.host / 1e6, 1), "gpu_mb": round(self.gpu / 1e6, 1) if self.gpu else None}
