"""The bound for everything on a CPU that decodes whole images: libjpeg-turbo in a loop, and nothing else.

Regime: threads, one per core, that read a file and decode it whole with simplejpeg, which is libjpeg-turbo without the
interpreter's lock; no crop, no resize, no batch. A loader that decodes only a part of each image may pass it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ...pipelines.shards.sources.folder import scan_image_folder
from .job import Epoch, Job

PACKAGES = ("simplejpeg",)


def decode_only(job: Job) -> Epoch:
    """Whole images of their own sizes, a list of arrays (height, width, 3) for each batch."""
    import simplejpeg

    paths, labels, _ = scan_image_folder(job.folder)
    executor = ThreadPoolExecutor(job.workers)

    def decoded(path: str) -> Any:
        return simplejpeg.decode_jpeg(Path(path).read_bytes(), fastdct=False, fastupsample=False)

    def epoch() -> Iterator[tuple[Any, Any]]:
        order = random.sample(range(len(paths)), len(paths))
        for first in range(0, len(order) - job.batch_size + 1, job.batch_size):
            rows = order[first : first + job.batch_size]
            yield list(executor.map(decoded, [paths[row] for row in rows])), labels[rows]

    return epoch
