"""Timing several things in turn, and the facts a result needs to be believed."""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Rate:
    """Images per second of one contender over some repeats.

    Attributes:
        name: The contender.
        images_per_s: One value per repeat.
    """

    name: str
    images_per_s: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle of the repeats."""
        return statistics.median(self.images_per_s)

    def __str__(self) -> str:
        low, high = min(self.images_per_s), max(self.images_per_s)
        return f"{self.name:<44} {self.median:>10,.0f} img/s   ({low:,.0f} to {high:,.0f})"


# A contender plays one epoch and yields the number of images of each batch.
Contender = Callable[[], Iterable[int]]


def measure(contenders: dict[str, Contender], *, repeats: int, report: Callable[[str], None]) -> dict[str, Rate]:
    """Time one epoch of each contender after another, `repeats` times over, after one epoch of each to warm up.

    Taking turns is what makes the ratios mean something on a machine that others use too.

    Args:
        contenders: What to time, by name.
        repeats: How often, >= 1; five give a median with some meaning.
        report: Told what is going on.
    """
    for contender in contenders.values():
        sum(contender())
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for repeat in range(repeats):
        for name, contender in contenders.items():
            start = time.perf_counter()
            images = sum(contender())
            rates[name].append(images / (time.perf_counter() - start))
        report(
            f"repeat {repeat + 1}/{repeats}: " + ", ".join(f"{name} {rate[-1]:,.0f}" for name, rate in rates.items())
        )
    return {name: Rate(name, tuple(values)) for name, values in rates.items()}


def machine() -> dict[str, Any]:
    """What the numbers were measured on and with."""
    import torch

    versions = {}
    for package in ("torch", "torchvision", "numpy", "pillow", "nvidia-dali-cuda130", "nvidia-dali-cuda120"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": _commit(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "versions": versions,
    }


def write_result(path: Path, command: str, rates: dict[str, Rate], facts: dict[str, Any]) -> None:
    """Write a result as JSON, with the command that repeats it."""
    rows = [asdict(rate) | {"median": rate.median} for rate in rates.values()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"command": command, **facts, "machine": machine(), "rates": rows}, indent=1) + "\n")


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
