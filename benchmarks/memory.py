"""Memory of this process and its children, and of the GPU."""

from __future__ import annotations

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
    own, files = 0, 0
    for member in [process, *process.children(recursive=True)]:
        try:
            fields = Path(f"/proc/{member.pid}/smaps_rollup").read_text().splitlines()[1:]
            kilobytes = {name: int(rest.split()[0]) for name, rest in (line.split(":") for line in fields)}
            files = max(files, member.memory_info().shared - 1024 * kilobytes["Pss_Shmem"])
        except (psutil.Error, OSError):  # it has ended, or is of another user
            continue
        own += 1024 * (kilobytes["Pss_Anon"] + kilobytes["Pss_Shmem"])
    return own + files


def gpu_bytes() -> int | None:
    """Bytes of the GPU's memory that are in use, by DALI, torch and any other program; None where there is no GPU."""
    torch: Any = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    free, total = torch.cuda.mem_get_info()
    return total - free


class PeakMemory:
    """Watches memory while a block runs; `host` and `gpu` are then the largest values seen, in bytes."""

    def __init__(self) -> None:
        self.host, self.gpu = 0, 0
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
        self.gpu = max(self.gpu, gpu_bytes() or 0)

    def facts(self) -> dict[str, float | None]:
        """In MB, for a result."""
        return {"host_mb": round(self.host / 1e6, 1), "gpu_mb": round(self.gpu / 1e6, 1) if self.gpu else None}
