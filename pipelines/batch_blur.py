"""The DCT blur of whole batches on a GPU, as two products with symmetric matrices, `Y = A X B`.

A matrix is made of one line of numbers: the blur spreads a pixel by a kernel that depends on the distance alone, and
again from the pixel's mirror image behind the border. So lines are all that is kept on the GPU, 0.7 MB for the 256
strengths at 224 pixels and 1.6 MB at 512, where the matrices would be 51 and 268 MB.
"""

from __future__ import annotations

import numpy as np
import torch

from .blur import decays, kernels
from .uploads import uploaded


class BatchBlur:
    """Blurs batches of images of one size by strengths of a fixed table.

    Args:
        height: Height of the images in pixels, >= 1.
        width: Width of the images in pixels, >= 1.
        strengths: The table of t, float32 (L,) in [0, 1].
    """

    def __init__(self, height: int, width: int, strengths: np.ndarray) -> None:
        self._height, self._width = height, width
        self._decay = dict(zip((height, width), decays(strengths, height, width), strict=True))
        self._kernels: dict[tuple[int, torch.device], torch.Tensor] = {}

    def __call__(self, images: torch.Tensor, levels: np.ndarray) -> torch.Tensor:
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
