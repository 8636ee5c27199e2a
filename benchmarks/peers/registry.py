"""The peers by name, and how one becomes a contender."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from typing import Any

from ..machine import versions
from ..measurement import Here
from .job import Job

# Module and function of each, by the name in the table
PEERS = {
    "softfeed, soft crop": ("softfeed_loader", "soft"),
    "softfeed, hard crop": ("softfeed_loader", "hard"),
    "softfeed, soft crop, shard set": ("softfeed_loader", "soft_shards"),
    "softfeed, full recipe, shard set": ("softfeed_loader", "full_shards"),
    "DALI example graph": ("dali_example", "hard"),
    "FFCV": ("ffcv_loader", "hard"),
    "SPDL": ("spdl_loader", "hard"),
    "torchvision, Pillow": ("torchvision_pillow", "hard"),
    "torchvision, Pillow, soft crop": ("torchvision_pillow", "soft"),
    "torchvision, tensors": ("torchvision_tensor", "hard"),
    "timm": ("timm_loader", "hard"),
    "webdataset": ("webdataset_loader", "hard"),
    "decoding whole images and nothing else": ("jpeg_loop", "decode_only"),
}
RAW = {
    "softfeed, soft shift": ("softfeed_loader", "soft_raw"),
    "softfeed, padded crop": ("softfeed_loader", "hard_raw"),
    "torchvision, Pillow, soft shift": ("torchvision_pillow", "soft_raw"),
}
# Those whose worker processes hand over batches in shared memory, where these lie until they are taken, also while
# others have their turn; bytes of a value there
SHARED = {name: 4 for name in PEERS | RAW if name.startswith("torchvision")} | {"timm": 1, "webdataset": 4}
MAPPED = ("FFCV",)  # those that map their files into memory instead of reading them


def _module(name: str) -> Any:
    return importlib.import_module(f".{(PEERS | RAW)[name][0]}", __package__)


def regime(name: str) -> str:
    """What a peer's file says about it."""
    return " ".join((_module(name).__doc__ or "").split())


def packages(name: str) -> dict[str, str]:
    """Versions of the packages that are a peer's own."""
    return versions(*getattr(_module(name), "PACKAGES", ()))


def contender(name: str, job: Job) -> Here:
    """A peer as a contender, in this process, which keeps to the job's number of cores from now on."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[: job.workers])
    batches = getattr(_module(name), (PEERS | RAW)[name][1])(job)

    def epoch() -> Iterator[int]:
        for images, _ in batches():
            yield len(images)

    return Here(epoch)
