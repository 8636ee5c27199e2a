"""Whether a GPU's decoder survives decoding parts of images: tried once in a child process, and remembered.

With some releases of NVIDIA's decoder on some GPUs, decoding an ordinary part of a JPEG ends the process, or fails
(https://github.com/NVIDIA/nvImageCodec/issues/55). That cannot be caught, so a child tries it. `python -m
softfeed.pipelines.roi_probe cuda` makes the trial by hand.
"""

from __future__ import annotations

import io
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

import numpy as np
import torch

_SECONDS = 180  # for the child, most of which is the import of torch and DALI
_WHOLE_IMAGES_DECODED = "whole images decoded"
_WRONG_PIXELS = 3  # exit status
_TOLERANCE = 8.0  # mean difference of an image, out of 255, that engines of one GPU do not reach


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


def roi_decode_works(device: torch.device) -> bool:
    """Whether to decode parts of images on a device; warns, and says why, where that fails.

    The verdict is kept in `$XDG_CACHE_HOME/softfeed` (or `~/.cache/softfeed`) for this kind of GPU, driver and
    decoder, so that there is one trial of a few seconds per machine.
    """
    if device.type == "cpu":
        return True
    verdict = remembered_verdict(_cache_file(), _machine(device), [sys.executable, "-m", __name__, str(device)])
    if not verdict.works:
        warnings.warn(
            f"decoding parts of images does not work on {torch.cuda.get_device_name(device)}: {verdict.reason}; whole "
            "images are decoded and cut instead, which gives the same pixels more slowly (roi_decode=True insists)",
            RuntimeWarning,
            stacklevel=3,
        )
    return verdict.works


def remembered_verdict(cache: Path, machine: str, command: Sequence[str]) -> Verdict:
    """The verdict on a machine, from a file, or from a trial that is then remembered there.

    Args:
        cache: JSON file of verdicts by machine; need not exist or be writable.
        machine: What the verdict depends on.
        command: The trial.
    """
    known = _known(cache)
    try:
        return Verdict(**known[machine])
    except (KeyError, TypeError):
        verdict = tried(command)
    if verdict.lasting:
        _write(cache, known | {machine: asdict(verdict)})
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
    blamed = _WHOLE_IMAGES_DECODED in child.stdout
    if child.returncode < 0:
        return Verdict(
            works=False, reason=f"a trial was ended by {signal.Signals(-child.returncode).name}", lasting=blamed
        )
    return Verdict(works=False, reason=f"a trial failed with {last_words!r}", lasting=blamed)


def _known(cache: Path) -> dict[str, Any]:
    """Verdicts by machine; none if the file is not there or not as this module writes it."""
    try:
        known = json.loads(cache.read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _write(cache: Path, verdicts: dict[str, Any]) -> None:
    scratch = cache.with_name(f"{cache.name}.{os.getpid()}")
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_text(json.dumps(verdicts, indent=1))
        scratch.replace(cache)  # at once, as several ranks may do this
    except OSError:
        return  # without a place to remember it, the trial is made again


def _cache_file() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "softfeed", "roi-decode.json")


def _machine(device: torch.device) -> str:
    """GPU, driver, and versions of DALI and its decoder."""
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
    return ", ".join([torch.cuda.get_device_name(device), f"driver {driver}", *packages])


def _photographs(rng: np.random.Generator, count: int) -> list[np.ndarray]:
    """JPEGs of many sizes and of both usual chroma samplings, smooth enough to survive compression."""
    from PIL import Image

    encoded = []
    for number in range(count):
        height, width = rng.integers(40, 900, 2)
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8))
        file = io.BytesIO()
        image = coarse.resize((int(width), int(height)), Image.Resampling.BICUBIC)
        image.save(file, "JPEG", quality=90, subsampling=2 * (number % 2))
        encoded.append(np.frombuffer(file.getvalue(), np.uint8))
    return encoded


def _decoded(images: list[np.ndarray], inputs: dict[str, np.ndarray], device_id: int | None, *, roi: bool) -> list:
    from nvidia.dali import fn, types
    from nvidia.dali.pipeline import pipeline_def

    from .decoder import Decoder, visible_part

    @pipeline_def
    def graph() -> Any:
        encoded = fn.external_source(name="encoded", dtype=types.DALIDataType.UINT8, ndim=1)
        rectangle = {name: fn.external_source(name=name, dtype=types.DALIDataType.INT32, ndim=1) for name in inputs}
        return visible_part(encoded, rectangle, Decoder(device_id, roi=roi))

    pipeline = graph(batch_size=len(images), num_threads=4, device_id=device_id)
    for name, value in {"encoded": images, **inputs}.items():
        pipeline.feed_input(name, value)
    (parts,) = pipeline.run()
    parts = parts if device_id is None else parts.as_cpu()
    return [np.asarray(part) for part in parts]


def main(device: str = "cuda", *, rounds: int = 8, batch_size: int = 64) -> int:
    """Decode parts of images and compare them with parts of whole images; the exit status."""
    chosen = torch.device(device)
    device_id = None if chosen.type == "cpu" else chosen.index or 0
    rng = np.random.default_rng(0)
    for number in range(rounds):
        images = _photographs(rng, batch_size)
        sides = np.stack([_sides(image) for image in images])
        extent = np.ceil(sides * rng.uniform(0.1, 1, sides.shape)).astype(np.int32)
        start = np.floor((sides - extent) * rng.uniform(0, 1, sides.shape)).astype(np.int32)
        rectangles = {"start": start, "extent": extent}
        whole = _decoded(images, rectangles, device_id, roi=False)
        if number == 0:
            print(_WHOLE_IMAGES_DECODED, flush=True)  # noqa: T201 - for the parent
        for a, b in zip(_decoded(images, rectangles, device_id, roi=True), whole, strict=True):
            difference = np.abs(a.astype(np.float32) - b).mean() if a.shape == b.shape else np.inf
            if difference > _TOLERANCE:
                print(f"a part of an image differs by {difference:.0f} of 255", file=sys.stderr)  # noqa: T201
                return _WRONG_PIXELS
    return 0


def _sides(image: np.ndarray) -> np.ndarray:
    from PIL import Image

    return np.array(Image.open(io.BytesIO(image.tobytes())).size[::-1])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
