"""Whether a GPU's decoder survives decoding parts of images: tried once in a child process, and remembered.

With some releases of NVIDIA's decoder on some GPUs, decoding an ordinary part of a JPEG ends the process, or fails
(https://github.com/NVIDIA/nvImageCodec/issues/55). That cannot be caught, so a child tries it, see `roi_trial`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from . import nvjpeg, roi_trial

_SECONDS = 60  # for the child, most of which is the import of torch and DALI
_PASSED_ON = "SOFTFEED_ROI_DECODE"  # environment variable with this process's verdicts, for the processes it starts

# nvJPEG before this does not interpolate chroma at the edges of parts, and nvImageCodec does not have it do so
_INTERPOLATES_PARTS = (13, 2)


@dataclass(frozen=True)
class Verdict:
    """What a trial showed.

    Attributes:
        works: Whether parts of images decode.
        reason: What happened.
        lasting: Whether another trial on the same GPU, driver and decoder would show the same.
    """

    works: bool
    reason: str
    lasting: bool = True


def left_to_the_cpu(*, fancy_upsampling: bool) -> str | None:
    """Why a GPU's decoder would leave parts of images to the CPU; None if it would not."""
    version = nvjpeg.version() if fancy_upsampling else None
    if version is None or version >= _INTERPOLATES_PARTS:
        return None
    return (
        f"nvJPEG {'.'.join(map(str, version))} leaves those with subsampled chroma to the CPU, "
        f"{'.'.join(map(str, _INTERPOLATES_PARTS))} does not"
    )


def roi_decode_works(device: torch.device, *, fancy_upsampling: bool = True) -> bool:
    """Whether to decode parts of images on a device; warns, and says why, where that fails or is left to the CPU.

    The verdict is kept in `$XDG_CACHE_HOME/softfeed` (or `~/.cache/softfeed`) for this kind of GPU, driver, decoder and
    way to upsample, so that there is one trial of a few seconds per machine. One that may be otherwise next time is
    kept for this process and those that it starts.
    """
    if device.type == "cpu":
        return True
    slow = left_to_the_cpu(fancy_upsampling=fancy_upsampling)
    if slow is not None:
        verdict = Verdict(works=False, reason=slow)
    else:
        upsampling = "fancy" if fancy_upsampling else "simple"
        trial = [sys.executable, "-m", roi_trial.__name__, str(device), upsampling]
        verdict = remembered_verdict(_cache_file(), f"{_machine(device)}, {upsampling} upsampling", trial)
    if not verdict.works:
        warnings.warn(
            f"decoding parts of images does not work on {torch.cuda.get_device_name(device)}: {verdict.reason}; whole "
            "images are decoded and cut instead, which gives the same pixels more slowly (roi_decode=True insists)",
            RuntimeWarning,
            stacklevel=3,
        )
    return verdict.works


def remembered_verdict(cache: Path, machine: str, command: Sequence[str]) -> Verdict:
    """The verdict on a machine: from a file, from this process or one that started it, or from a trial.

    Args:
        cache: JSON file of verdicts by machine; need not exist or be writable.
        machine: What the verdict depends on.
        command: The trial.
    """
    lasting, passed_on = _read(cache), _verdicts(os.environ.get(_PASSED_ON, ""))
    try:
        return Verdict(**(passed_on | lasting)[machine])
    except (KeyError, TypeError):
        verdict = tried(command)
    if verdict.lasting:
        _write(cache, lasting | {machine: asdict(verdict)})
    os.environ[_PASSED_ON] = json.dumps(passed_on | {machine: asdict(verdict)})
    return verdict


def tried(command: Sequence[str]) -> Verdict:
    """Run a trial and judge how it ended."""
    try:
        child = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        return Verdict(works=False, reason=f"a trial did not end in {_SECONDS} s", lasting=False)
    if child.returncode == 0:
        return Verdict(works=True, reason="a trial succeeded")
    last_words = (child.stderr.strip().splitlines() or ["no reason given"])[-1]
    # what fails before any part of an image is decoded is not the fault of that: no memory left, a GPU in use
    blamed = roi_trial.WHOLE_IMAGES_DECODED in child.stdout
    if child.returncode < 0:
        return Verdict(
            works=False, reason=f"a trial was ended by {signal.Signals(-child.returncode).name}", lasting=blamed
        )
    return Verdict(works=False, reason=f"a trial failed with {last_words!r}", lasting=blamed)


def _read(cache: Path) -> dict[str, Any]:
    try:
        return _verdicts(cache.read_text())
    except (OSError, ValueError):
        return {}


def _verdicts(text: str) -> dict[str, Any]:
    """Verdicts by machine; none if the text is not as this module writes it."""
    try:
        known = json.loads(text)
    except ValueError:
        return {}
    return known if isinstance(known, dict) else {}


def _write(cache: Path, verdicts: dict[str, Any]) -> None:
    scratch = cache.with_name(f"{cache.name}.{os.getpid()}")
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_text(json.dumps(verdicts, indent=1))
        scratch.replace(cache)  # at once, as several ranks may do this
    except OSError:
        return  # without a place to keep it, the next process makes the trial again


def _cache_file() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "softfeed", "roi-decode.json")


def _machine(device: torch.device) -> str:
    """The trial, GPU, driver, and versions of DALI and its decoder."""
    try:
        driver = Path("/sys/module/nvidia/version").read_text().strip()
    except OSError:
        driver = "unknown"
    packages = sorted(
        f"{name} {distribution.version}"
        for distribution in metadata.distributions()
        if (name := distribution.metadata["Name"] or "").startswith(
            ("nvidia-dali", "nvidia-nvimgcodec", "nvidia-nvjpeg")
        )
    )
    version = nvjpeg.version()  # not always that of a package
    loaded = "no nvJPEG" if version is None else f"nvJPEG {'.'.join(map(str, version))}"
    return ", ".join(
        [torch.cuda.get_device_name(device), f"driver {driver}", *packages, loaded, f"trial {roi_trial.VERSION}"]
    )
