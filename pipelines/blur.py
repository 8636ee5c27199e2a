"""DCT blur: the heat equation on an image, solved in the cosine basis (SM: Heinonen et al., supervised mollification).

This is done on the finished batch and not in the DALI graph: as two passes of `fn.filter` with per-sample kernels, the
cost grows with the width of the blur (`python -m softfeed.benchmarks.alternatives` has both). On a CPU the cosine
transform itself is the cheapest exact way; on a GPU, where `exp(-tau Lambda)` factorises over the axes as well, it is
two products of the whole batch with symmetric matrices, `Y = A X B`. A matrix is made of one line of numbers: the blur
spreads a pixel by a kernel that depends on the distance alone, and again from the pixel's mirror image behind the
border. So lines are all that is kept on the GPU, 0.7 MB for the 256 strengths at 224 pixels and 1.6 MB at 512, where
the matrices would be 51 and 268 MB.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from scipy import fft

from ..softops.mollification import blur_sigma
from .uploads import uploaded

# Frequencies that keep less than this share of their amplitude are left out, so that the result differs from the exact
# one by at most this share of the norm of the image; float32 rounding is the larger part of `BOUND`.
_NEGLIGIBLE = 1e-7

# Largest difference from the exact blur in float64, per unit of the image's largest absolute value.
BOUND = 1e-5


def kernels(decay: np.ndarray) -> np.ndarray:
    """What the blur along an axis passes on to a pixel, by its distance, from another pixel or a mirror image of one.

    The product of cosines `cos(k (i + 1/2)) cos(k (j + 1/2))` is half of `cos(k (i - j)) + cos(k (i + j + 1))`, so that
    the matrix of the blur, which is a sum over such products, has the elements `kernel[i - j] + kernel[i + j + 1]`.

    Args:
        decay: What is left of the frequencies of an axis, (L, side); the first is of the mean and loses nothing.

    Returns:
        float32 (L, 3 * side - 1), at the distances 1 - side to 2 * side - 1.
    """
    side = decay.shape[1]
    distance = np.arange(1 - side, 2 * side)
    # each frequency has the weight 1 / side, and the constant, whose cosine has no other half, 1 / (2 * side)
    cosines = np.cos(math.pi / side * np.arange(side)[:, None] * distance) / side
    cosines[0] /= 2
    return (decay.astype(np.float64) @ cosines).astype(np.float32)


class DctBlur:
    """Blurs images of one size by strengths of a fixed table.

    Args:
        height: Height of the images in pixels, >= 1.
        width: Width of the images in pixels, >= 1.
        strengths: The table of t, float32 (L,) in [0, 1].
    """

    def __init__(self, height: int, width: int, strengths: np.ndarray) -> None:
        tau = blur_sigma(np.asarray(strengths, np.float64), width) ** 2 / 2
        self._height, self._width = height, width
        self._decay = {
            side: np.exp(-tau[:, None] * (math.pi * np.arange(side) / side) ** 2).astype(np.float32)
            for side in {height, width}
        }
        self._kernels: dict[tuple[int, torch.device], torch.Tensor] = {}

    def image(self, image: np.ndarray, level: int) -> None:
        """Blur one image in place by its cosine transform.

        Args:
            image: float32 (C, height, width).
            level: Row of the table of strengths.
        """
        down, across = self._decay[self._height][level], self._decay[self._width][level]
        # a wide blur leaves few frequencies, and the two middle transforms then have as few rows to go through
        survive = int(np.count_nonzero(down >= _NEGLIGIBLE))
        surviving = _overwritten(fft.dct, image, axis=1)[:, :survive]
        rows = _overwritten(fft.dct, np.ascontiguousarray(surviving), axis=2)
        rows *= down[:survive, None] * across
        rows = _overwritten(fft.idct, rows, axis=2)
        if not np.may_share_memory(rows, surviving):
            surviving[...] = rows
        image[:, survive:] = 0
        _overwritten(fft.idct, image, axis=1)

    def batch(self, images: torch.Tensor, levels: np.ndarray) -> torch.Tensor:
        """Blur images by products of matrices, on their device; only the first call waits for it.

        Args:
            images: float32 (M, C, height, width).
            levels: Rows of the table of strengths, int (M,).

        Returns:
            float32 of the shape of `images`.
        """
        rows = uploaded(levels, images.device)
        matrices = {side: self._matrices(side, rows) for side in self._decay}
        with torch.autocast(images.device.type, enabled=False):  # half precision is far from `BOUND`
            return _product(_product(matrices[self._height], images), matrices[self._width])

    def _matrices(self, side: int, levels: torch.Tensor) -> torch.Tensor:
        """The symmetric matrices that blur along an axis, float32 (M, 1, side, side)."""
        key = (side, levels.device)
        if key not in self._kernels:
            # This waits, once: later batches may be of other streams, which would not wait for a copy on this one.
            self._kernels[key] = torch.from_numpy(kernels(self._decay[side])).to(levels.device)
        # all pieces of a kernel that are `side` long: upwards the rows of [i + j + 1], downwards those of [i - j]
        pieces = self._kernels[key][levels].unfold(1, side, 1)
        return (pieces[:, :side].flip(1) + pieces[:, side:])[:, None]


def _product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """The product of float32 matrices to within `BOUND`, also where the user has torch compute in TF32.

    That is a setting of the whole process, so it is left alone. TF32 keeps 11 of the 24 bits of a number; a product of
    numbers in two parts, of which it keeps the first exactly, has 22.
    """
    if not _in_tf32():
        return torch.matmul(left, right)
    (left_first, left_rest), (right_first, right_rest) = _parts(left), _parts(right)
    rest = torch.matmul(left_first, right_rest) + torch.matmul(left_rest, right_first)
    return torch.matmul(left_first, right_first) + rest


def _in_tf32() -> bool:
    """Whether torch may compute products of float32 matrices on a GPU in TF32."""
    settings = torch.backends.cuda.matmul
    precision = getattr(settings, "fp32_precision", None)  # from torch 2.9 on, where the other may raise or warn
    return bool(settings.allow_tf32) if precision is None else precision not in ("none", "ieee")


def _parts(numbers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """float32 numbers as sums of two: themselves rounded to 11 significant bits, and the rest."""
    first = ((numbers.view(torch.int32) + 0x1000) & -0x2000).view(torch.float32)
    return first, numbers - first


def _overwritten(transform: Any, array: np.ndarray, *, axis: int) -> np.ndarray:
    """An array that an orthonormal transform overwrote, which saves going through memory that is not in the cache."""
    result = transform(array, axis=axis, norm="ortho", overwrite_x=True)
    if not np.may_share_memory(result, array):  # scipy may overwrite, and need not
        array[...] = result
    return array
