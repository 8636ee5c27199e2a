"""What is done to the batches that the graph hands over: mixing of samples, noise and blur.

On a CPU the images of a batch are done by a few threads, each image while it is in the cache, with numpy and scipy:
torch would start threads of its own within each of these, which get in the way of the graph's
(`softfeed bench --suite operations` times the recipes). On a GPU a batch is done at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial

import numpy as np
import torch
from scipy import special

from ..softops import mollification
from .blur import DctBlur
from .mixing import Mixing, mix_batch, mix_row
from .mollify import ROLES, Mollification, strengths

_NOISE, _BLUR, _PURE_NOISE = (ROLES.index(role) for role in ("noise", "blur", "pure_noise"))


@lru_cache(maxsize=1)
def _quantiles() -> np.ndarray:
    """The middles of 65,536 equally likely parts of the normal distribution, scaled to variance 1, float32."""
    middles = special.ndtri((np.arange(1 << 16) + 0.5) / (1 << 16))
    return (middles / middles.std()).astype(np.float32)


def normal_pixels(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Independent standard normal pixels of an image.

    Each takes 16 random bits to choose among 65,536 quantiles. That leaves out what is beyond 4.3 standard deviations,
    one pixel in 60,000, and was 2.5 times as fast as float32 normals from torch and 5 times as fast as those from numpy
    (`python -m softfeed.benchmarks.alternatives`, benchmarks/results/alternatives-cpu-2-cores.json).

    Args:
        seed: Which noise, >= 0.
        shape: Of the result.

    Returns:
        float32 of `shape`.
    """
    count = int(np.prod(shape))
    bits = np.random.SFC64(seed).random_raw(-(-count // 4)).view(np.uint16)[:count]
    return np.take(_quantiles(), bits.astype(np.intp), mode="clip").reshape(shape)


class Finisher:
    """Finishes batches of one image size on one device.

    Args:
        size: Side of the images in pixels.
        device: Where they lie.
        threads: CPU threads, >= 1.
    """

    def __init__(self, size: int, device: torch.device, threads: int) -> None:
        self._device = device
        self._blur = DctBlur(size, size, strengths())
        self._threads = threads if device.type == "cpu" else None
        self._pool: ThreadPoolExecutor | None = None
        self._process = 0  # that the pool is of

    def mix(self, images: torch.Tensor, mixing: Mixing) -> torch.Tensor:
        """The images, float32 (N, 3, S, S), mixed with each other; another tensor."""
        if self._threads is None:
            return mix_batch(images, mixing)
        mixed = torch.empty_like(images)
        before, after = images.numpy(), mixed.numpy()
        self._each(lambda row: mix_row(before, mixing, row, after[row]), np.arange(len(images)))
        return mixed

    def add_noise(self, images: torch.Tensor, scale: np.ndarray, seeds: np.ndarray) -> None:
        """Add normal noise of standard deviation `scale` to each of the images, float32 (N, 3, S, S), in place."""
        self._blend(images, np.arange(len(images)), np.ones_like(scale), scale, seeds)

    def mollify(self, images: torch.Tensor, numbers: Mollification) -> None:
        """Do to each of the images, float32 (N, 3, S, S), what its role says, in place."""
        t = strengths()[numbers.level]
        keep, add = mollification.noise_scales(t)
        pure = numbers.role == _PURE_NOISE
        rows = np.flatnonzero(pure | (numbers.role == _NOISE))
        keep, add = np.where(pure, np.float32(0), keep)[rows], np.where(pure, np.float32(1), add)[rows]
        self._blend(images, rows, keep, add, numbers.seed[rows])
        blurred = np.flatnonzero(numbers.role == _BLUR)
        self._blurred(images, blurred, numbers.level[blurred])

    def close(self) -> None:
        """End the threads; the next batch starts new ones."""
        pool, self._pool = self._pool, None
        if pool is not None and self._process == os.getpid():
            pool.shutdown()

    def _blend(
        self, images: torch.Tensor, rows: np.ndarray, keep: np.ndarray, add: np.ndarray, seeds: np.ndarray
    ) -> None:
        """`keep * image + add * noise` for some rows, in place."""
        if not len(rows):
            return
        if self._threads is not None:
            self._each(partial(_blend_one, images.numpy()), rows, keep, add, seeds)
            return
        where, shares, scales = (torch.from_numpy(array).to(self._device) for array in (rows, keep, add))
        generator = torch.Generator(self._device).manual_seed(int(seeds[0]))
        noise = torch.randn((len(rows), *images.shape[1:]), generator=generator, device=self._device)
        images[where] = images[where] * shares[:, None, None, None] + noise * scales[:, None, None, None]

    def _blurred(self, images: torch.Tensor, rows: np.ndarray, levels: np.ndarray) -> None:
        """Blur some rows in place."""
        if not len(rows):
            return
        if self._threads is not None:
            self._each(partial(self._blur_one, images.numpy()), rows, levels)
            return
        where = torch.from_numpy(rows).to(self._device)
        images[where] = self._blur.batch(images[where], levels)

    def _blur_one(self, pixels: np.ndarray, row: int, level: int) -> None:
        pixels[row] = self._blur.image(pixels[row], level)

    def _each(self, work: Callable[..., None], *arguments: np.ndarray) -> None:
        """Call `work` with each row of some arrays, in the threads, and wait."""
        if self._pool is None or self._process != os.getpid():  # in a fork there is the pool, but none of its threads
            self._pool, self._process = ThreadPoolExecutor(self._threads, "softfeed-finish"), os.getpid()
        for _ in self._pool.map(work, *(array.tolist() for array in arguments)):
            pass


def _blend_one(pixels: np.ndarray, row: int, keep: float, add: float, seed: int) -> None:
    noise = normal_pixels(seed, pixels.shape[1:])
    noise *= add
    pixels[row] *= keep
    pixels[row] += noise
