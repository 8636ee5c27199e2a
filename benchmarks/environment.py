"""What a GPU's numbers depend on beside the code: driver, CUDA, the nvJPEG library in use, JPEG engines, CPU cores.

`python -m softfeed.benchmarks.environment DATA` decodes a batch of an image folder or shard set with DALI, so that the
libraries which it finds on this machine are in memory, and looks which they are. `--output` writes JSON for
`benchmarks/results/`. Nothing that is missing is an error; it is null.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from ..pipelines import cores, nvjpeg
from .machine import machine
from .program import Program, in_one_line

# what of decoding is in libraries of its own, of which a machine may have several
_LIBRARIES = re.compile(r"lib(nvjpeg|nvimgcodec|cudart|dali)\b.*\.so.*")
_NVJPEG = re.compile(r"libnvjpeg\..*")  # copies that others bring along, too, as torchvision does
_HARDWARE = 3  # NVJPEG_BACKEND_HARDWARE
_SMI = ("driver_version", "pcie.link.gen.current", "pcie.link.width.current", "clocks.max.sm", "power.limit")


def environment() -> dict[str, Any]:
    """Everything; of libraries those that this process has in memory."""
    import torch

    return {
        "machine": machine(),
        "cuda": {"torch": torch.version.cuda, "driver": _driver_cuda()},
        "gpu": _smi(),
        "nvjpeg": [about(path) for path in nvjpeg.loaded_libraries(_NVJPEG)],
        "libraries": [short(path) for path in nvjpeg.loaded_libraries(_LIBRARIES)],
        "cpu": {
            "cores": os.cpu_count(),
            "usable": cores.available(),
            "quota": cores.quota(),
        },
        "shared_memory_gb": round(shutil.disk_usage("/dev/shm").total / 1e9, 1) if Path("/dev/shm").is_dir() else None,
    }


def short(path: str) -> str:
    """A library's path from its package on, or what is not a package's in full but for a home folder."""
    _, packages, rest = path.rpartition("-packages/")
    return rest if packages else path.replace(str(Path.home()), "~", 1)


def about(path: str) -> dict[str, Any]:
    """Version of an nvJPEG library, and the JPEG engines that it sees; None for what it cannot tell."""
    version = nvjpeg.version_of(path)
    told = None if version is None else ".".join(map(str, version))
    return {"library": short(path), "version": told} | _engines(ctypes.CDLL(path))


def _engines(library: Any) -> dict[str, int | None]:
    nothing: dict[str, int | None] = {"engines": None, "cores_per_engine": None}
    handle, engines, cores = ctypes.c_void_p(), ctypes.c_uint(), ctypes.c_uint()
    if not hasattr(library, "nvjpegGetHardwareDecoderInfo"):  # new in CUDA 12
        return nothing
    if library.nvjpegCreateEx(_HARDWARE, None, None, 0, ctypes.byref(handle)) != 0:  # no such engines, or no GPU
        return nothing
    status = library.nvjpegGetHardwareDecoderInfo(handle, ctypes.byref(engines), ctypes.byref(cores))
    library.nvjpegDestroy(handle)
    return nothing if status else {"engines": engines.value, "cores_per_engine": cores.value}


def _driver_cuda() -> str | None:
    """Newest version of CUDA that the driver knows."""
    version = ctypes.c_int()
    try:
        status = ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))
    except OSError:
        return None
    return None if status else f"{version.value // 1000}.{version.value % 1000 // 10}"


def _smi() -> dict[str, str] | None:
    """What nvidia-smi tells of the first GPU."""
    query = ["nvidia-smi", "--id=0", f"--query-gpu={','.join(_SMI)}", "--format=csv,noheader"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return dict(zip(_SMI, map(str.strip, told.split(",")), strict=False))


def _program() -> Program:
    program = Program("environment", __doc__)
    program.add_data()
    program.add_argument("--device", help="cpu or cuda (default: the GPU where there is one)")
    return program


@in_one_line
def main(arguments: list[str] | None = None) -> int:
    """Run it; returns the exit status."""
    from ..pipelines import Loader, presets

    options = _program().parsed(arguments)
    with Loader(
        options.data, presets.by_name("soft-imagenet"), 16, 224, device=options.device, last_batch="fill"
    ) as one:
        next(iter(one))
        text = json.dumps(environment(), indent=1) + "\n"
    print(text)
    if options.output:
        options.output.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
