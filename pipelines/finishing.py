"""What is done to the batches that the graph hands over: occlusion, mixing of samples, noise and blur.

On a CPU the images of a batch are done by a few threads, each image while it is in the cache, with numpy and scipy:
torch would start threads of its own within each of these, which get in the way of the graph's
(`softfeed bench --suite operations` times the recipes). On a GPU a batch is done at once.
"""

from __future__ import annotations

from functools import cached_property, lru_cache

import numpy as np
import torch
from scipy import special

from ..softops import mollification
from .batch_blur import BatchBlur
from .image_blur import ImageBlur
from .mixing import Mixing, mix_batch, put_parts, take_parts
from .mollify import ROLES, Mollification, strengths
from .occlusion import Patches, occlude_batch
from .threads import RowThreads
from .uploads import uploaded

_NOISE, _BLUR, _PURE_NOISE = (ROLES.index(role) for role in ("noise", "blur", "pure_noise"))


@lru_cache(maxsize=1)
def _quantiles() -> np.ndarray:
    """The middles of 65,536 equally likely parts of the normal distribution, scaled to variance 1, float32."""
    middles = special.ndtri((np.arange(1 << 16) + 0.5) / (1 << 16))
    return (middles / middles.std()).astype(np.float32)


def normal_pixels(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Independent standard normal pixels of an image.

    Each takes 16 random bits to choose among 65,536 quantiles. That leaves out what is beyond 4.3 standard deviations,
    one pixel in 60,000, and was twice as fast as float32 normals from torch and 5 times as fast as those from numpy
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
        threads: Threads for the CPU.
    """

    def __init__(self, size: int, device: torch.device, threads: RowThreads) -> None:
        self._size = size
        self._device = device
        self._threads = threads if device.type == "cpu" else None
        self._parts = np.empty(0, np.float32)  # of images that are mixed with others

    @cached_property
    def _image_blur(self) -> ImageBlur:
        """Made for the first batch that is mollified: it takes tens of milliseconds, and 1.1 MB at 224 pixels."""
        return ImageBlur(self._size, self._size, strengths())

    @cached_property
    def _batch_blur(self) -> BatchBlur:
        return BatchBlur(self._size, self._size, strengths())

    def occlude(self, images: torch.Tensor, patches: Patches) -> None:
        """Set the patches of each of the images, (N, 3, S, S), to 0, in place."""
        if self._threads is None:
            occlude_batch(images, patches)
            return
        pixels = images.numpy()
        ends = patches.top + patches.height, patches.left + patches.width
        for row, rectangles in enumerate(np.stack([patches.top, patches.left, *ends], axis=2).tolist()):
            for top, left, bottom, right in rectangles:
                if bottom > top and right > left:  # else it is not used
                    pixels[row, :, top:bottom, left:right] = 0

    def mix(self, images: torch.Tensor, mixing: Mixing) -> torch.Tensor:
        """The images, float32 (N, 3, S, S), mixed with each other: on a CPU in place, on a GPU another tensor.

        Memory for another batch would be new to the process each time, which cost a quarter of the soft crop's rate
        (benchmarks/README.md). So parts of others are copied first, to memory that is used again.
        """
        if self._threads is None:
            return mix_batch(images, mixing)
        pixels, rows = images.numpy(), range(len(images))
        if len(self._parts) < len(pixels) or self._parts.strides != pixels.strides:
            self._parts = np.empty_like(pixels)
        parts = self._parts
        self._threads.each(lambda row: take_parts(pixels, mixing, row, parts[row]), rows)
        self._threads.each(lambda row: put_parts(parts[row], mixing, row, pixels[row]), rows)
        return images

    def add_noise(self, images: torch.Tensor, scale: np.ndarray, seeds: np.ndarray) -> None:
        """Add normal noise of standard deviation `scale` to each of the images, float32 (N, 3, S, S), in place."""
        if self._threads is None:
            self._blend(images, np.arange(len(images)), np.ones_like(scale), scale, seeds)
        else:
            columns = images.numpy(), scale.tolist(), seeds.tolist()
            self._threads.each(lambda image, add, seed: _blend_one(image, 1.0, add, seed), *columns)

    def mollify(self, images: torch.Tensor, numbers: Mollification) -> None:
        """Do to each of the images, float32 (N, 3, S, S), what its role says, in place."""
        keep, add = mollification.noise_scales(strengths()[numbers.level])
        pure = numbers.role == _PURE_NOISE
        keep, add = np.where(pure, np.float32(0), keep), np.where(pure, np.float32(1), add)
        noisy, blurred = np.flatnonzero(pure | (numbers.role == _NOISE)), np.flatnonzero(numbers.role == _BLUR)
        if self._threads is None:
            self._blend(images, noisy, keep[noisy], add[noisy], numbers.seed[noisy])
            self._blurred(images, blurred, numbers.level[blurred])
            return
        pixels, blur = images.numpy(), self._image_blur

        def one(row: int, role: int, level: int, keep: float, add: float, seed: int) -> None:
            if role == _BLUR:
                blur(pixels[row], level)
            else:
                _blend_one(pixels[row], keep, add, seed)

        # the blur takes longest, so that it comes first, and threads have little to wait for at the end
        rows = np.concatenate([blurred, noisy])
        columns = (rows, *(column[rows] for column in (numbers.role, numbers.level, keep, add, numbers.seed)))
        self._threads.each(one, *(column.tolist() for column in columns))

    def _blend(
        self, images: torch.Tensor, rows: np.ndarray, keep: np.ndarray, add: np.ndarray, seeds: np.ndarray
    ) -> None:
        """`keep * image + add * noise` for some rows on a GPU, in place."""
        if not len(rows):
            return
        where, shares, scales = (uploaded(array, self._device) for array in (rows, keep, add))
        generator = torch.Generator(self._device).manual_seed(int(seeds[0]))
        noise = torch.randn((len(rows), *images.shape[1:]), generator=generator, device=self._device)
        images[where] = images[where] * shares[:, None, None, None] + noise * scales[:, None, None, None]

    def _blurred(self, images: torch.Tensor, rows: np.ndarray, levels: np.ndarray) -> None:
        """Blur some rows on a GPU in place."""
        if not len(rows):
            return
        where = uploaded(rows, self._device)
        images[where] = self._batch_blur(images[where], levels)


def _blend_one(image: np.ndarray, keep: float, add: float, seed: int) -> None:
    """`keep * image + add * noise`, in place."""
    noise = normal_pixels(seed, image.shape)
    noise *= add
    image *= keep
    image += noise
