"""The DCT blur of one image after the other on a CPU, in the quickest of three ways.

The cosine transform takes the same time for every strength. A blur that leaves few frequencies is quicker as products
with the cosines of those, and one that reaches no further than some pixels as products with pieces of its matrix along
the diagonal. The narrowest are neither: they leave something of all frequencies that an image has, so that their
kernels end in ripples that reach far (`python -m softfeed.benchmarks.alternatives` times the quickest of the three, and
the transform alone).

A few threads blur images at once, so that a product must not start threads of its own. Images may have their channels
last; the products are of copies that do not, as older numpy (2.2) leaves others to loops of its own.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy import fft

from .blur import decays, kernels

# Frequencies that keep less than this share of their amplitude are left out, so that the result differs from the exact
# one by at most this share of the norm of the image; float32 rounding is the larger part of `blur.BOUND`.
_NEGLIGIBLE = 1e-7

# What a pixel gets at most along an axis from all those together that are left out, per unit of the largest of them.
_BEYOND = 1e-6

# Sums of more products than this are made of several, as the error of a float32 sum of equal numbers grows with it.
_SUMMED = 256

# The OpenBLAS that numpy comes with does products of up to this many multiplications in the thread that asks for them.
_ALONE = 1 << 18

_BLOCK = 32  # rows of the matrix that make a piece

# How long a multiplication takes in products with pieces, against those with whole cosines, which are longer; and how
# many of the latter could be done in the time of the transforms, per pixel and factor 2 of the number of pixels.
_NEAR, _TRANSFORM = 1.2, 17


class ImageBlur:
    """Blurs images of one size by strengths of a fixed table.

    Args:
        height: Height of the images in pixels, >= 1.
        width: Width of the images in pixels, >= 1.
        strengths: The table of t, float32 (L,) in [0, 1].
    """

    def __init__(self, height: int, width: int, strengths: np.ndarray) -> None:
        down, across = decays(strengths, height, width)
        self._down = AxisBlur(down)
        self._across = self._down if height == width else AxisBlur(across)
        self.ways = quickest(self._down, self._across)

    def __call__(self, image: np.ndarray, level: int) -> None:
        """Blur one image in place.

        Args:
            image: float32 (C, height, width).
            level: Row of the table of strengths.
        """
        planes = np.ascontiguousarray(image)
        self.ways[level](planes, self._down, self._across, level)
        if planes is not image:
            image[...] = planes


class AxisBlur:
    """What the three ways need of the blur along an axis.

    Attributes:
        side: Pixels of the axis.
        decay: What is left of its frequencies, float32 (L, side).
        frequencies: How many of them are not negligible for each strength, int (L,).
        reach: Largest distance of pixels that a pixel gets something from, int (L,), in pixels.
        cosines: float32 (side, side): those of the orthonormal transform, (frequency, pixel).
    """

    def __init__(self, decay: np.ndarray) -> None:
        self.side = side = decay.shape[1]
        self.decay = decay
        self.frequencies = np.count_nonzero(decay >= _NEGLIGIBLE, axis=1)
        self._kernels = kernels(decay)
        from_the_end = np.abs(self._kernels[:, side : 2 * side])[:, ::-1]  # distances side to 1
        self.reach = side - np.count_nonzero(2 * from_the_end.cumsum(axis=1) <= _BEYOND, axis=1)
        pixels = np.arange(side) + 0.5
        cosines = np.cos(math.pi / side * np.arange(side)[:, None] * pixels) * math.sqrt(2 / side)
        cosines[0] /= math.sqrt(2)
        self.cosines = cosines.astype(np.float32)

    def pieces(self, level: int) -> list[tuple[slice, slice, np.ndarray]]:
        """The matrix of a blur along its diagonal: rows and columns of each piece, and its elements."""
        side, reach = self.side, int(self.reach[level])
        line = self._kernels[level]

        def elements(distance: int, step: int, shape: tuple[int, int]) -> np.ndarray:
            """The kernel from a distance on, which grows by 1 from row to row, and by `step` from column to column."""
            return np.ndarray(shape, np.float32, line, 4 * (distance + side - 1), (4, 4 * step))

        found = []
        block = _step(side, _BLOCK)
        for first in range(0, side, block):
            rows = slice(first, min(first + block, side))
            columns = slice(max(first - reach, 0), min(rows.stop + reach, side))
            shape = rows.stop - rows.start, columns.stop - columns.start
            direct, mirrored = first - columns.start, first + columns.start + 1
            found.append((rows, columns, elements(direct, -1, shape) + elements(mirrored, 1, shape)))
        return found


def quickest(down: AxisBlur, across: AxisBlur) -> list[Any]:
    """For each strength of the table the function that blurs by it in the least time, by multiplications per pixel."""
    rows, columns = down.frequencies, across.frequencies
    few = rows + columns + rows * columns * (1 / down.side + 1 / across.side)
    near = _NEAR * (_columns(down) + _columns(across))
    transform = _TRANSFORM * math.log2(max(2, down.side * across.side)) * (1 + rows / down.side) / 2
    ways = (by_few_frequencies, by_neighbours, by_transform)
    return [ways[choice] for choice in np.argmin([few, near, transform], axis=0)]


def _columns(axis: AxisBlur) -> np.ndarray:
    """Columns of a piece of the matrix for each strength, at most."""
    return np.minimum(_BLOCK + 2 * axis.reach, axis.side)


def by_few_frequencies(image: np.ndarray, down: AxisBlur, across: AxisBlur, level: int) -> None:
    """Blur an image, float32 (C, height, width), in place by products with the cosines of the frequencies left."""
    rows, columns = (axis.cosines[: axis.frequencies[level]] for axis in (down, across))
    left = _product(_product(rows, image), columns.T)
    left *= down.decay[level, : len(rows), None] * across.decay[level, : len(columns)]
    _product(_product(rows.T, left), columns, out=image)


def by_neighbours(image: np.ndarray, down: AxisBlur, across: AxisBlur, level: int) -> None:
    """Blur an image, float32 (C, height, width), in place by products with pieces of the blur's matrices."""
    half = np.empty_like(image)
    for rows, columns, piece in down.pieces(level):
        _product(piece, image[:, columns], out=half[:, rows])
    for rows, columns, piece in across.pieces(level):
        _product(half[..., columns], piece.T, out=image[..., rows])


def by_transform(image: np.ndarray, down: AxisBlur, across: AxisBlur, level: int) -> None:
    """Blur an image, float32 (C, height, width), in place by its cosine transform."""
    count = down.frequencies[level]  # only these rows need the two transforms along them
    _overwrite(fft.dct, image, 1)
    rows = np.ascontiguousarray(image[:, :count])
    _overwrite(fft.dct, rows, 2)
    rows *= down.decay[level, :count, None] * across.decay[level]
    _overwrite(fft.idct, rows, 2)
    image[:, :count] = rows
    image[:, count:] = 0
    _overwrite(fft.idct, image, 1)


def _product(left: np.ndarray, right: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """A product of matrices, one of which may be a stack of them, in parts that a thread does alone."""
    rows, inner = left.shape[-2:]
    columns = right.shape[-1]
    if out is None:
        out = np.empty((*left.shape[:-2], *right.shape[:-2], rows, columns), np.float32)
    summed = min(inner, _SUMMED)
    across = _step(columns, max(32, _ALONE // (rows * summed)))
    down = _step(rows, _ALONE // (across * summed))
    for top in range(0, rows, down):
        for start in range(0, columns, across):
            from_left, from_right = left[..., top : top + down, :], right[..., start : start + across]
            part = out[..., top : top + down, start : start + across]
            np.matmul(from_left[..., :summed], from_right[..., :summed, :], out=part)
            for more in range(summed, inner, summed):
                part += from_left[..., more : more + summed] @ from_right[..., more : more + summed, :]
    return out


def _step(length: int, most: int) -> int:
    """Length of equal parts, as far as possible, that are not longer than `most`."""
    return -(-length // -(-length // most))


def _overwrite(transform: Any, image: np.ndarray, axis: int) -> None:
    """Transform an image in place, which saves going through memory that is not in the cache."""
    result = transform(image, axis=axis, norm="ortho", overwrite_x=True)
    if not np.may_share_memory(result, image):  # scipy may overwrite, and need not
        image[...] = result
