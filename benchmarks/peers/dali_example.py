"""DALI's own ImageNet example: its file reader, its random crop while decoding, its resize and normalisation.

Regime: as many threads as there are cores, two batches ahead; the example's graph with RandomResizedCrop's usual
window and a linear, antialiased resize; batches are handed over without the copy that its iterator makes. A GPU
interpolates chroma, as softfeed has it do and unlike DALI's default; where it does not decode parts of images, whole
ones are decoded, and windows are cut in the resize.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from ...pipelines.roi_probe import roi_decode_works
from .job import AREA, ASPECT, MEAN, STD, Epoch, Job


def hard(job: Job) -> Epoch:
    """RandomResizedCrop."""
    from nvidia.dali import fn, types
    from nvidia.dali.pipeline import pipeline_def

    on_gpu = job.device != "cpu"
    device_id: Any = 0 if on_gpu else None  # DALI's types leave out the None that its documentation names
    decoder: dict[str, Any] = {"device": "mixed", "jpeg_fancy_upsampling": True} if on_gpu else {"device": "cpu"}
    window: dict[str, Any] = {"random_area": list(AREA), "random_aspect_ratio": list(ASPECT), "num_attempts": 100}
    parts = roi_decode_works(torch.device("cuda", 0) if on_gpu else torch.device("cpu"))

    @pipeline_def(batch_size=job.batch_size, num_threads=job.workers, device_id=device_id, prefetch_queue_depth=2)
    def graph() -> tuple:
        encoded, labels = fn.readers.file(
            file_root=str(job.folder), random_shuffle=True, pad_last_batch=True, name="reader"
        )
        size: dict[str, Any] = {"size": [job.image_size] * 2, "interp_type": types.DALIInterpType.INTERP_LINEAR}
        if parts:
            images: Any = fn.decoders.image_random_crop(encoded, **decoder, **window)
            images = fn.resize(images, antialias=True, **size)
        else:
            images = fn.random_resized_crop(fn.decoders.image(encoded, **decoder), antialias=True, **size, **window)
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
