"""What numbers were measured on and with."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from ..pipelines import cores

_PACKAGES = (
    "softfeed",
    "torch",
    "torchvision",
    "numpy",
    "pillow",
    "nvidia-dali-cuda130",
    "nvidia-dali-cuda120",
    "nvidia-nvjpeg",
)


def machine(*packages: str) -> dict[str, Any]:
    """Processor, cores, memory, GPU, versions and commit, for a result to be believed.

    Args:
        packages: Further packages whose versions matter.
    """
    import torch

    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": _commit(),
        "processor": _processor(),
        "cores": cores.available(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "load_before": round(os.getloadavg()[0], 2),
        "gpu": _gpu() if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": versions(*_PACKAGES, *packages),
    }


def _gpu() -> dict[str, Any]:
    """The first GPU, and the nvJPEG in use, which need not be the one installed; why it is slow, if it is."""
    import torch

    from ..pipelines import nvjpeg, roi_probe

    gpu, version = torch.cuda.get_device_properties(0), nvjpeg.version()
    return {
        "name": gpu.name,
        "memory_gb": round(gpu.total_memory / 1e9, 1),
        "nvjpeg": None if version is None else ".".join(map(str, version)),
        "slow_decoding": roi_probe.left_to_the_cpu(fancy_upsampling=True),
    }


def versions(*packages: str) -> dict[str, str]:
    """Versions of those of some packages that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _commit() -> str | None:
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"], capture_output=True, text=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + (" with changes" if changed.stdout.strip() else "")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
