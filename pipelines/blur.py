"""DCT blur: the heat equation on an image, solved in the cosine basis (SM: Heinonen et al., supervised mollification).

This is done on the finished batch and not in the DALI graph: as two passes of `fn.filter` with per-sample kernels, the
cost grows with the width of the blur (`python -m softfeed.benchmarks.alternatives` has both). On a CPU the cosine
transform itself is the cheapest exact way; on a GPU, where `exp(-tau Lambda)` factorises over the axes as well, it is
two products of the whole batch with symmetric matrices, `Y = A X B`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from scipy import fft

from ..softops.mollification import blur_sigma

# Frequencies that keep less than this share of their amplitude are left out, so that the result differs from the exact
# one by at most this share of the norm of the image; float32 rounding is the larger part of `BOUND`.
_NEGLIGIBLE = 1e-7

# Largest difference from the exact blur in float64, per unit of the image's largest absolute value.
BOUND = 1e-5


def cosine_basis(side: int) -> np.ndarray:
    """The orthonormal DCT-II basis, float64 (side, side); column k is the cosine of frequency k."""
    frequency = np.arange(side)
    position = np.arange(side)[:, None] + 0.5
    basis = np.cos(math.pi * position * frequency / side) * math.sqrt(2 / side)
    basis[:, 0] = math.sqrt(1 / side)
    return basis


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
        self._matrices: dict[tuple[int, int, torch.device], torch.Tensor] = {}

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
        """Blur images by products of matrices, on their device.

        Args:
            images: float32 (M, C, height, width).
            levels: Rows of the table of strengths, int (M,).

        Returns:
            float32 of the shape of `images`.
        """
        down, across = (
            torch.stack([self._matrix(side, level, images.device) for level in levels.tolist()])
            for side in (self._height, self._width)
        )
        with torch.autocast(images.device.type, enabled=False):  # half precision is far from `BOUND`
            return torch.matmul(torch.matmul(down[:, None], images), across[:, None])

    def _matrix(self, side: int, level: int, device: torch.device) -> torch.Tensor:
        """The symmetric matrix that blurs along an axis, float32 (side, side)."""
        key = (side, level, device)
        if key not in self._matrices:
            basis = cosine_basis(side)
            matrix = (basis * self._decay[side][level]) @ basis.T
            self._matrices[key] = torch.from_numpy(matrix).float().to(device)
        return self._matrices[key]


def _overwritten(transform: Any, array: np.ndarray, *, axis: int) -> np.ndarray:
    """An array that an orthonormal transform overwrote, which saves going through memory that is not in the cache."""
    result = transform(array, axis=axis, norm="ortho", overwrite_x=True)
    if not np.may_share_memory(result, array):  # scipy may overwrite, and need not
        array[...] = result
    return array
