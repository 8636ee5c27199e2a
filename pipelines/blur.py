"""DCT blur: the heat equation on an image, solved in the cosine basis (SM: Heinonen et al., supervised mollification).

`exp(-tau Lambda)` factorises over the axes, so blurring is `Y = A X B^T` with one symmetric matrix per axis. For a wide
blur only the lowest frequencies survive, and `A = V_r diag(e) V_r^T` with few columns is cheaper than `A` itself.

This is done by torch on the finished batch and not in the DALI graph: as two passes of `fn.filter` with per-sample
kernels, the cost grows with the width of the blur (`python -m softfeed.benchmarks.alternatives` has both).
"""

from __future__ import annotations

import math

import numpy as np
import torch

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
        device: Where the images lie.
    """

    def __init__(self, height: int, width: int, strengths: np.ndarray, device: torch.device) -> None:
        sigma = blur_sigma(np.asarray(strengths, np.float64), width)
        self._tau = sigma**2 / 2
        self._sides = (height, width)
        self._bases = {side: cosine_basis(side) for side in {height, width}}
        self._device = device
        self._matrices: dict[tuple[int, int], torch.Tensor] = {}

    def __call__(self, images: torch.Tensor, levels: np.ndarray) -> torch.Tensor:
        """Blur images.

        Args:
            images: float32 (M, C, height, width).
            levels: Rows of the table of strengths, int (M,).

        Returns:
            float32 of the shape of `images`.
        """
        if self._device.type == "cpu":
            return torch.stack([self._one(image, int(level)) for image, level in zip(images, levels, strict=True)])
        # A GPU is quicker with two products of the whole batch than with the cheaper ones of each image.
        down, across = (torch.stack([self._matrix(side, int(level)) for level in levels]) for side in self._sides)
        return torch.matmul(torch.matmul(down[:, None], images), across[:, None])

    def _decay(self, side: int, level: int) -> np.ndarray:
        return np.exp(-self._tau[level] * (math.pi * np.arange(side) / side) ** 2)

    def _matrix(self, side: int, level: int) -> torch.Tensor:
        """The symmetric matrix that blurs along an axis, float32 (side, side)."""
        matrix = self._matrices.get((side, level))
        if matrix is None:
            basis = self._bases[side]
            matrix = torch.from_numpy((basis * self._decay(side, level)) @ basis.T).float().to(self._device)
            self._matrices[side, level] = matrix
        return matrix

    def _one(self, image: torch.Tensor, level: int) -> torch.Tensor:
        height, width = self._sides
        down, across = (self._low_frequencies(side, level) for side in self._sides)
        if down is None or across is None:
            return self._matrix(height, level) @ image @ self._matrix(width, level)
        # amplitudes of the frequencies that survive, each already reduced by half of its decay
        amplitudes = down.mT @ image @ across
        return down @ amplitudes @ across.mT

    def _low_frequencies(self, side: int, level: int) -> torch.Tensor | None:
        """Columns of the basis that survive, times the root of their decay; None if they are too many to pay."""
        decay = self._decay(side, level)
        count = int((decay >= _NEGLIGIBLE).sum())
        if count > side * 3 // 8:
            return None
        key = (-side, level)  # beside the full matrices, which have positive keys
        columns = self._matrices.get(key)
        if columns is None:
            columns = torch.from_numpy(self._bases[side][:, :count] * np.sqrt(decay[:count])).float().to(self._device)
            self._matrices[key] = columns
        return columns
