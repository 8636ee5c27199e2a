"""Ways not taken beside those taken: to resize, blur and blank images, to draw noise for them, and to feed graphs.

`python -m softfeed.benchmarks.alternatives` resizes images of photographs' sizes on a CPU with torch in a few threads,
which is the loader's own way, with Pillow in the same threads, and with DALI's operator. It blurs batches at the
default strengths with the loader's two own ways, image by image with the quickest of three ways on a CPU and by two
products of matrices in torch on a GPU, with the cosine transform for all images, and with two passes of DALI's
`fn.filter`, whose kernels are as long as a tail of 1e-5 of their sum asks for. It draws normal pixels in one thread
with the loader's own way and with those of torch and numpy. It blanks batches in place with numpy, as one square per
image and as 32 cells per image, which is the loader's own way on a CPU, and with DALI's operator, which copies them. It
feeds a graph with arrays whose wrappers are kept until it is done with them, which is the loader's own way, and with
arrays that it wraps itself, both alone and beside a thread that computes in Python.
"""

from __future__ import annotations

import argparse
import math
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from nvidia.dali import fn, types
from nvidia.dali.pipeline import pipeline_def
from PIL import Image

from ..pipelines.batch_blur import BatchBlur
from ..pipelines.cropping import resized_on_cpu
from ..pipelines.draws import Draws
from ..pipelines.feeding import shared
from ..pipelines.finishing import normal_pixels
from ..pipelines.image_blur import ImageBlur, by_transform
from ..pipelines.mollify import Mollify, strengths
from ..pipelines.threads import RowThreads
from ..softops import blur_sigma
from .machine import machine
from .measurement import Batches, Here, measure, settle
from .program import Program, finish, in_one_line, settings_of
from .progress import Progress
from .recorded import without_folders
from .result import Result

Options = argparse.Namespace


def _photographs(count: int) -> list[np.ndarray]:
    """Pixels of the size of ImageNet's usual photographs, in turn lying and upright."""
    generator = np.random.default_rng(0)
    shapes = [(375, 500, 3), (500, 375, 3)]
    return [generator.integers(0, 256, shapes[row % 2], np.uint8) for row in range(count)]


def _resize(way: Callable[[np.ndarray, int, int], Any], options: Options) -> Batches:
    """Resize photographs one by one in threads."""
    images, threads = _photographs(options.batch_size), RowThreads(options.threads)
    side = [options.image_size] * len(images)

    def epoch() -> Iterable[int]:
        yield len(threads.each(way, images, side, side))

    return epoch


def _resize_by_pillow(image: np.ndarray, height: int, width: int) -> Image.Image:
    return Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)


def _in_graph(operator: Callable[[Any], Any], images: list[np.ndarray], layout: str, options: Options) -> Batches:
    """Do one thing to images in a DALI graph on the CPU."""
    dtype = {"HWC": types.DALIDataType.UINT8, "CHW": types.DALIDataType.FLOAT}[layout]
    device_id: Any = None  # DALI's types leave out the None that its documentation names

    @pipeline_def(batch_size=len(images), num_threads=options.threads, device_id=device_id, prefetch_queue_depth=1)
    def graph() -> Any:
        return operator(fn.external_source(name="images", dtype=dtype, ndim=3, layout=layout, no_copy=True))

    pipeline, fed = graph(), shared(images)
    pipeline.build()

    def epoch() -> Iterable[int]:
        yield len(pipeline.run(images=fed)[0])

    return epoch


def _resize_by_dali(options: Options) -> Batches:
    def resize(images: Any) -> Any:
        linear = types.DALIInterpType.INTERP_LINEAR
        return fn.resize(images, size=[options.image_size] * 2, interp_type=linear, antialias=True)

    return _in_graph(resize, _photographs(options.batch_size), "HWC", options)


def _blank_by_dali(options: Options) -> Batches:
    images = [np.ones((3, options.image_size, options.image_size), np.float32) for _ in range(options.batch_size)]
    corner, side = [options.image_size / 4] * 2, [options.image_size / 2] * 2

    def blank(images: Any) -> Any:
        return fn.erase(images, anchor=corner, shape=side, axis_names="HW", fill_value=0.0)

    return _in_graph(blank, images, "CHW", options)


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


def _blur_by_filter(size: int, levels: np.ndarray, options: Options) -> Batches:
    on_gpu = options.device != "cpu"
    count = len(levels)
    device_id: Any = 0 if on_gpu else None  # DALI's types leave out the None that its documentation names

    @pipeline_def(batch_size=count, num_threads=options.threads, device_id=device_id, prefetch_queue_depth=1)
    def graph() -> Any:
        where = {"device": "gpu" if on_gpu else "cpu", "no_copy": True}
        images = fn.external_source(name="images", dtype=types.DALIDataType.FLOAT, ndim=3, layout="CHW", **where)
        row, column = (
            fn.external_source(name=name, dtype=types.DALIDataType.FLOAT, ndim=2) for name in ("row", "column")
        )
        return fn.filter(fn.filter(images, row, border="reflect_1001"), column, border="reflect_1001")

    kernels = [_kernel(size, float(sigma)) for sigma in blur_sigma(strengths()[levels].astype(np.float64), size)]
    images = torch.randn(count, 3, size, size, device=options.device)  # where the other blurs find theirs
    inputs = {
        "images": images if on_gpu else shared(images.numpy()),  # of any tensor DALI asks for its stream of a GPU
        "row": [kernel[None] for kernel in kernels],
        "column": [kernel[:, None] for kernel in kernels],
    }
    pipeline = graph()  # built by its first run, so that a failure is this contender's

    def epoch() -> Iterable[int]:
        yield len(pipeline.run(**inputs)[0])

    return epoch


def _blur_by_products(size: int, levels: np.ndarray, options: Options) -> Batches:
    images = torch.randn(len(levels), 3, size, size, device=options.device)
    blur = BatchBlur(size, size, strengths())

    def epoch() -> Iterable[int]:
        yield len(blur(images, levels))
        settle()

    return epoch


def _blur_one_by_one(blur: ImageBlur, levels: np.ndarray, options: Options) -> Batches:
    size, threads = options.image_size, RowThreads(options.threads)
    images = np.random.default_rng(0).standard_normal((len(levels), 3, size, size), np.float32)

    def epoch() -> Iterable[int]:
        threads.each(blur, images, levels.tolist())
        yield len(images)

    return epoch


def _transform_alone(size: int) -> ImageBlur:
    blur = ImageBlur(size, size, strengths())
    blur.ways = [by_transform for _ in blur.ways]
    return blur


def _noise(draw: Callable[[int, tuple[int, ...]], Any], options: Options) -> Batches:
    """Draw the pixels of each image of a batch from a seed of its own."""
    shape = (3, options.image_size, options.image_size)

    def epoch() -> Iterable[int]:
        for seed in range(options.batch_size):
            draw(seed, shape)
        yield options.batch_size

    return epoch


def _noise_of_torch(seed: int, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _noise_of_numpy(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.Generator(np.random.SFC64(seed)).standard_normal(shape, dtype=np.float32)


def _blank(cells: int, options: Options) -> Batches:
    """Blank every second of `cells` x `cells` cells of each image of a batch."""
    size = options.image_size
    images = np.ones((options.batch_size, 3, size, size), np.float32)
    side = size // cells
    corners = [(row, column) for row in range(cells) for column in range(cells) if (row + column) % 2 == 0]

    def epoch() -> Iterable[int]:
        for image in images:
            for row, column in corners:
                image[:, row * side : (row + 1) * side, column * side : (column + 1) * side] = 0
        yield len(images)

    return epoch


def _feed(way: Callable[[list[np.ndarray]], Any], options: Options, *, beside_python: bool = False) -> Batches:
    """Feed a graph that hardly does anything with arrays as long as encoded photographs."""
    images = [np.zeros(110_000, np.uint8) for _ in range(options.batch_size)]
    kept: deque[Any] = deque(maxlen=2)
    device_id: Any = None  # DALI's types leave out the None that its documentation names

    @pipeline_def(batch_size=len(images), num_threads=1, device_id=device_id, prefetch_queue_depth=1)
    def graph() -> Any:
        encoded = fn.external_source(name="encoded", dtype=types.DALIDataType.UINT8, ndim=1, no_copy=True)
        return fn.slice(encoded, 0, 1, axes=[0])

    pipeline = graph()
    pipeline.build()

    def epoch() -> Iterable[int]:
        done = threading.Event()

        def compute() -> None:
            while not done.is_set():
                pass

        thread = threading.Thread(target=compute)
        if beside_python:
            thread.start()
        try:
            for _ in range(8):
                fed = way(images)
                kept.append(fed)
                pipeline.feed_input("encoded", fed)
                yield len(pipeline.run()[0])
        finally:
            done.set()
            if beside_python:
                thread.join()

    return epoch


def _program() -> Program:
    program = Program("alternatives", __doc__)
    program.add_sizes(batch_size=64, image_size=224)
    program.add_argument("--threads", type=int, default=2, help="default: 2")
    program.add_turns(seconds=2.0, repeats=5)
    program.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    return program


@in_one_line
def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; returns the exit status, 1 if one of the ways failed."""
    options = _program().parsed(arguments)
    size, levels = options.image_size, Mollify().draw(Draws(0, 0, 0, options.batch_size)).level
    contenders = {
        "resize, torch": _resize(resized_on_cpu, options),
        "resize, Pillow": _resize(_resize_by_pillow, options),
        "resize, fn.resize": _resize_by_dali(options),
        "blur, quickest of three": _blur_one_by_one(ImageBlur(size, size, strengths()), levels, options),
        "blur, cosine transform": _blur_one_by_one(_transform_alone(size), levels, options),
        "blur, products": _blur_by_products(size, levels, options),
        "blur, fn.filter": _blur_by_filter(size, levels, options),
        "noise, quantiles": _noise(normal_pixels, options),
        "noise, torch": _noise(_noise_of_torch, options),
        "noise, numpy": _noise(_noise_of_numpy, options),
        "blank in place, whole image": _blank(1, options),
        "blank in place, 32 cells": _blank(8, options),
        "blank, fn.erase": _blank_by_dali(options),
        "feed, kept": _feed(shared, options),
        "feed, not kept": _feed(list, options),
        "feed beside Python, kept": _feed(shared, options, beside_python=True),
        "feed beside Python, not kept": _feed(list, options, beside_python=True),
    }
    here = {name: Here(batches) for name, batches in contenders.items()}
    failed: dict[str, Exception] = {}
    rates = measure(here, seconds=options.seconds, repeats=options.repeats, progress=Progress(), failed=failed)
    verdict = [f"{name} failed: {without_folders(str(error))}" for name, error in failed.items()]
    about = (options.command, settings_of(options), {}, machine())
    finish(Result("alternatives", *about, list(rates.values()), verdict=verdict), options.output)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
