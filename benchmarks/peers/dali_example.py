"""DALI's own ImageNet example: its file reader, its random crop while decoding, its resize and normalisation.

Regime: as many threads as there are cores, two batches ahead; the example's graph with RandomResizedCrop's usual
window and a linear, antialiased resize; batches are handed over without the copy that its iterator makes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from .job import AREA, ASPECT, MEAN, STD, Epoch, Job


def hard(job: Job) -> Epoch:
    """RandomResizedCrop."""
    from nvidia.dali import fn, types
    from nvidia.dali.pipeline import pipeline_def

    on_gpu = job.device != "cpu"
    device_id: Any = 0 if on_gpu else None  # DALI's types leave out the None that its documentation names

    @pipeline_def(batch_size=job.batch_size, num_threads=job.workers, device_id=device_id, prefetch_queue_depth=2)
    def graph() -> tuple:
        encoded, labels = fn.readers.file(
            file_root=str(job.folder), random_shuffle=True, pad_last_batch=True, name="reader"
        )
        images: Any = fn.decoders.image_random_crop(
            encoded,
            device="mixed" if on_gpu else "cpu",
            random_area=list(AREA),
            random_aspect_ratio=list(ASPECT),
            num_attempts=100,
        )
        images = fn.resize(
            images, size=[job.image_size] * 2, interp_type=types.DALIInterpType.INTERP_LINEAR, antialias=True
        )
        images = fn.crop_mirror_normalize(
            images,
            mirror=fn.random.coin_flip(),
            mean=[255 * value for value in MEAN],
            std=[255 * value for value in STD],
            dtype=types.DALIDataType.FLOAT,
            output_layout="CHW",
        )
        return images, labels

    pipeline = graph()
    pipeline.build()
    steps = pipeline.reader_meta("reader")["epoch_size"] // job.batch_size

    def epoch() -> Iterator[tuple[Any, Any]]:
        for _ in range(steps):
            images, labels = pipeline.run()
            yield torch.from_dlpack(images.as_tensor()), torch.from_dlpack(labels.as_tensor()).flatten()

    return epoch
