"""What mollification costs: the recipe with it against the recipe without, and two ways to blur.

`python -m softfeed.benchmarks.mollification IMAGE_FOLDER` plays the soft crop plain, with each degradation alone, and
with the default roles, in turn. Then it blurs finished batches at the default strengths with the loader's own way (two
products of matrices in torch) and with two passes of DALI's `fn.filter`, whose kernels are as long as a tail of 1e-5 of
their sum asks for.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from nvidia.dali import fn, types
from nvidia.dali.pipeline import pipeline_def

from ..pipelines import AdditiveNoise, Mollify, Recipe, SoftCrop
from ..pipelines.blur import DctBlur
from ..pipelines.draws import Draws
from ..pipelines.mollify import strengths
from ..softops import blur_sigma
from .errors import in_one_line
from .measurement import Contender
from .recipes import Options, compare

_RECIPES = {
    "soft crop, mollified (default roles)": Recipe(crop=SoftCrop(), mollify=Mollify()),
    "soft crop, every image noisy": Recipe(crop=SoftCrop(), mollify=Mollify(clean=0, noise=1, blur=0)),
    "soft crop, every image blurred": Recipe(crop=SoftCrop(), mollify=Mollify(clean=0, noise=0, blur=1)),
    "soft crop, additive noise": Recipe(crop=SoftCrop(), noise=AdditiveNoise()),
}


def _kernel(side: int, sigma: float) -> np.ndarray:
    """The blur along an axis as a kernel, cut where less than 1e-5 of it is left.

    The heat equation of SM (Heinonen et al.) factorises over the axes, and along one the DCT-II basis makes it a
    convolution, with the border mirrored.
    """
    distance = np.arange(side)
    waves = np.arange(1, side)
    decay = np.exp(-(sigma**2) / 2 * (math.pi * waves / side) ** 2)
    half = (1 + 2 * np.cos(math.pi * distance[:, None] * waves / side) @ decay) / (2 * side)
    tail = np.cumsum(np.abs(half[::-1]))[::-1] * 2
    radius = int(np.flatnonzero(tail > 1e-5)[-1])
    taps = half[: radius + 1]
    return np.concatenate([taps[:0:-1], taps]).astype(np.float32)


def _blur_by_filter(size: int, levels: np.ndarray, options: Options) -> Contender:
    on_gpu = options.device != "cpu"
    count = len(levels)
    device_id: Any = 0 if on_gpu else None  # DALI's types leave out the None that its documentation names

    @pipeline_def(batch_size=count, num_threads=options.threads, device_id=device_id, prefetch_queue_depth=1)
    def graph() -> Any:
        images = fn.external_source(name="images", dtype=types.DALIDataType.FLOAT, ndim=3, layout="CHW")
        row, column = (
            fn.external_source(name=name, dtype=types.DALIDataType.FLOAT, ndim=2) for name in ("row", "column")
        )
        images = images.gpu() if on_gpu else images
        return fn.filter(fn.filter(images, row, border="reflect_1001"), column, border="reflect_1001")

    kernels = [_kernel(size, float(sigma)) for sigma in blur_sigma(strengths()[levels].astype(np.float64), size)]
    inputs = {
        "images": np.random.default_rng(0).standard_normal((count, 3, size, size), np.float32),
        "row": [kernel[None] for kernel in kernels],
        "column": [kernel[:, None] for kernel in kernels],
    }
    pipeline = graph()
    pipeline.build()

    def epoch() -> Iterable[int]:
        yield len(pipeline.run(**inputs)[0])

    return epoch


def _blur_by_products(size: int, levels: np.ndarray, options: Options) -> Contender:
    device = torch.device(options.device)
    images = torch.randn(len(levels), 3, size, size, device=device)
    blur = DctBlur(size, size, strengths(), device)

    def epoch() -> Iterable[int]:
        yield len(blur(images, levels))
        if device.type == "cuda":
            torch.cuda.synchronize()

    return epoch


def _others(options: Options) -> dict[str, Contender]:
    levels = Mollify().draw(Draws(0, 0, 0, options.batch_size)).level
    return {
        "blur alone, products": _blur_by_products(options.image_size, levels, options),
        "blur alone, fn.filter": _blur_by_filter(options.image_size, levels, options),
    }


@in_one_line
def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; returns the exit status."""
    return compare("mollification", __doc__ or "", lambda options: _RECIPES, _others, arguments)


if __name__ == "__main__":
    sys.exit(main())
