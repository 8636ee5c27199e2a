"""DCT blur: the heat equation on an image, solved in the cosine basis (SM: Heinonen et al., supervised mollification).

A blur of strength t takes from the frequency k of an axis the share `1 - exp(-tau (pi k / side)^2)`, so that it is one
blur along each axis. Here is what it does to an axis, as frequencies and as kernels; `image_blur` blurs images with it
one by one on a CPU, and `batch_blur` whole batches on a GPU. Both are done on the finished batch and not in the DALI
graph: as two passes of `fn.filter` with per-sample kernels, the cost grows with the width of the blur
(`python -m softfeed.benchmarks.alternatives` has all of them).
"""

from __future__ import annotations

import math

import numpy as np

from ..softops.mollification import blur_sigma

# Largest difference from the exact blur in float64, per unit of the image's largest absolute value.
BOUND = 1e-5


def decays(strengths: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """What is left of the frequencies of both axes, after blurs of some strengths.

    Args:
        strengths: t, (L,) in [0, 1].
        height: Height of the images in pixels, >= 1.
        width: Width of the images in pixels, >= 1; the widest blur is as wide.

    Returns:
        Down and across, float32 (L, height) and (L, width); the first frequency is of the mean and loses nothing.
    """
    tau = blur_sigma(np.asarray(strengths, np.float64), width) ** 2 / 2
    down, across = (
        np.exp(-tau[:, None] * (math.pi * np.arange(side) / side) ** 2).astype(np.float32) for side in (height, width)
    )
    return down, across


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
