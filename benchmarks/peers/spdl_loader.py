"""SPDL: a pipeline of threads around FFmpeg's decoder and filters.

Regime: one process and as many decoding threads as there are cores; each image is decoded whole, cropped, resized and
flipped by one FFmpeg filter graph, which is how SPDL's documentation augments images; batches become one buffer, which
torch makes float and normalises in a stage of its own.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from typing import Any

import torch

from ...pipelines.shards.sources.folder import scan_image_folder
from .job import AREA, ASPECT, MEAN, STD, Epoch, Job

PACKAGES = ("spdl", "spdl-io")


def window(width: int, height: int) -> str:
    """FFmpeg's filter for a random window, with RandomResizedCrop's distribution but for windows that do not fit."""
    area, aspect = random.uniform(*AREA) * width * height, math.exp(random.uniform(*map(math.log, ASPECT)))
    w, h = min(width, round(math.sqrt(area * aspect))), min(height, round(math.sqrt(area / aspect)))
    return f"crop={w}:{h}:{random.randint(0, width - w)}:{random.randint(0, height - h)}:exact=1"


def hard(job: Job) -> Epoch:
    """RandomResizedCrop."""
    import spdl.io  # pyright: ignore[reportMissingImports] - of the extra `peers`
    from spdl.pipeline import PipelineBuilder  # pyright: ignore[reportMissingImports] - of the extra `peers`

    paths, labels, _ = scan_image_folder(job.folder)
    spdl.io.demux_image(paths[0])  # a machine without FFmpeg's libraries should be known now
    samples = list(zip(paths, labels.tolist(), strict=True))
    mean, std = (torch.tensor(values).mul(255).view(1, 3, 1, 1) for values in (MEAN, STD))
    scale = f"scale={job.image_size}:{job.image_size}:flags=bilinear,format=rgb24"

    def shuffled() -> Iterator[tuple[str, int]]:
        yield from random.sample(samples, len(samples))

    def decode(sample: tuple[str, int]) -> tuple[Any, int]:
        flip = ",hflip" if random.random() < 0.5 else ""
        packets = spdl.io.demux_image(sample[0])
        crop = window(packets.width, packets.height)
        return spdl.io.decode_packets(packets, filter_desc=f"format=rgb24,{crop}{flip},{scale}"), sample[1]

    def batch(samples: list[tuple[Any, int]]) -> tuple[Any, Any]:
        frames, labels = zip(*samples, strict=True)
        pixels = spdl.io.to_torch(spdl.io.convert_frames(list(frames)))
        images = pixels.to(job.device).permute(0, 3, 1, 2).float()
        images = images.sub_(mean.to(images.device)).div_(std.to(images.device))
        return images.contiguous(), torch.tensor(labels)

    def epoch() -> Iterator[tuple[Any, Any]]:
        builder: Any = PipelineBuilder().add_source(shuffled())
        builder = builder.pipe(decode, concurrency=job.workers).aggregate(job.batch_size, drop_last=True)
        pipeline = builder.pipe(batch).add_sink(2).build(num_threads=job.workers + 1, max_failures=0)
        with pipeline.auto_stop():
            yield from pipeline.get_iterator(timeout=60)

    return epoch
