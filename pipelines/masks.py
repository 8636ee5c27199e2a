"""Masks from the literature for the occlude slot of a recipe, each in the same form as `Occlude`.

Their papers leave the label as it is; here it softens with the covered share. All fill with 0, the mean colour.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from . import checks
from .draws import Draws
from .occlusion import Patches, SoftenedMask
from .schedules import Scheduled, check_reached, value_at


def _span(start: np.ndarray, length: np.ndarray | int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The part of [start, start + length) inside [0, size), as start and length, int32."""
    first, last = np.clip(start, 0, size), np.clip(start + length, 0, size)
    return first.astype(np.int32), (last - first).astype(np.int32)


@dataclass(frozen=True)
class RandomErasing(SoftenedMask):
    """Random erasing: a rectangle of random area and aspect, fully inside the image (Zhong et al. 2020).

    The aspect is drawn log-uniformly, as torchvision does, so that upright and lying rectangles are equally likely.

    Attributes:
        probability: Share of images that are erased, in [0, 1]; a number or a schedule over epochs.
        area: Smallest and largest share of the image's area, in (0, 1], before rounding to whole pixels.
        ratio: Smallest and largest height / width, > 0.
        power: k of the softening curve, > 0.
    """

    probability: Scheduled = 0.5
    area: tuple[float, float] = (0.02, 0.4)
    ratio: tuple[float, float] = (0.3, 1 / 0.3)
    power: float = 2.0

    ATTEMPTS: ClassVar[int] = 10  # as in torchvision; an image that no attempt fits stays whole

    def __post_init__(self) -> None:
        check_reached(checks.share, "probability", self.probability)
        checks.interval("area", self.area, 0.0, 1.0)
        checks.interval("ratio", self.ratio, 0.0, float("inf"))
        checks.positive("power", self.power)

    def check_size(self, size: int) -> None:
        """Accept any size, as the rectangle is a share of it."""

    def patches(self, draws: Draws, size: int, epoch: float) -> Patches:
        u = draws.uniform("occlusion", 3 + 2 * self.ATTEMPTS)
        area = (self.area[0] + (self.area[1] - self.area[0]) * u[3::2]) * size * size
        low, high = np.log(self.ratio)
        root = np.exp((low + (high - low) * u[4::2]) / 2.0)
        heights, widths = np.rint(area**0.5 * root), np.rint(area**0.5 / root)
        fits = (heights < size) & (widths < size)
        first, sample = fits.argmax(axis=0), np.arange(draws.count)
        erased = fits.any(axis=0) & (u[0] < value_at(self.probability, epoch))
        height, width = (np.where(erased, sides[first, sample], 0).astype(np.int32) for sides in (heights, widths))
        top, left = (u[1] * (size - height + 1)).astype(np.int32), (u[2] * (size - width + 1)).astype(np.int32)
        return Patches(*(field[:, None] for field in (left, top, width, height)))


@dataclass(frozen=True)
class Cutout(SoftenedMask):
    """Cutout: a square centred anywhere in the image, cut off at its border (DeVries & Taylor 2017).

    Attributes:
        side: Side of the square in output pixels, >= 1; the paper has 16 for CIFAR-10 and 8 for CIFAR-100.
        power: k of the softening curve, > 0.
    """

    side: int = 16
    power: float = 2.0

    def __post_init__(self) -> None:
        checks.whole("side", self.side)
        checks.positive("power", self.power)

    def check_size(self, size: int) -> None:
        if self.side > size:
            raise ValueError(f"side must be at most image_size, {size}, with Cutout, got {self.side}")

    def patches(self, draws: Draws, size: int, epoch: float) -> Patches:
        corner = (draws.uniform("occlusion", 2) * size).astype(np.int32) - self.side // 2
        first, length = _span(corner, self.side, size)
        return Patches(*(field[:, None] for field in (*first, *length)))


@dataclass(frozen=True)
class HideAndSeek(SoftenedMask):
    """Hide-and-Seek: each cell of a regular grid is hidden at random (Singh & Lee 2017).

    Attributes:
        grid: Cells per side, >= 1; where the image's side is no multiple of it, cells differ by a pixel.
        probability: Chance that a cell is hidden, in [0, 1]; a number or a schedule over epochs. 0.5 in the paper.
        power: k of the softening curve, > 0.
    """

    grid: int = 4
    probability: Scheduled = 0.5
    power: float = 2.0

    def __post_init__(self) -> None:
        checks.whole("grid", self.grid)
        check_reached(checks.share, "probability", self.probability)
        checks.positive("power", self.power)

    def check_size(self, size: int) -> None:
        if self.grid > size:
            raise ValueError(f"grid must be at most image_size, {size}, so that cells have a pixel, got {self.grid}")

    def patches(self, draws: Draws, size: int, epoch: float) -> Patches:
        cells = self.grid * self.grid
        hidden = (draws.uniform("occlusion", cells) < value_at(self.probability, epoch)).T
        edges = np.arange(self.grid + 1) * size // self.grid
        row, column = np.divmod(np.arange(cells), self.grid)
        fields = edges[column], edges[row], np.diff(edges)[column], np.diff(edges)[row]
        return Patches(*(np.where(hidden, field, 0).astype(np.int32) for field in fields))


@dataclass(frozen=True)
class GridMask(SoftenedMask):
    """GridMask: squares at the points of a regular grid of random spacing and offset (Chen et al. 2020).

    Without the rotation of the paper: the squares stay upright.

    Attributes:
        ratio: Share of the grid's spacing that stays visible between two squares, in [0, 1], rounded to whole pixels
            but at least one pixel and at most all but one; the paper has 0.6 on ImageNet. The share of the image that
            is covered is about (1 - ratio)^2.
        spacing: Smallest and largest distance of neighbouring squares in output pixels, >= 2, drawn uniformly; the
            paper has (96, 224) at 224.
        probability: Share of images that are masked, in [0, 1]; a number or a schedule over epochs. The paper lets it
            grow linearly to 0.8.
        power: k of the softening curve, > 0.
    """

    ratio: float = 0.6
    spacing: tuple[int, int] = (96, 224)
    probability: Scheduled = 0.8
    power: float = 2.0

    def __post_init__(self) -> None:
        checks.share("ratio", self.ratio)
        checks.closed_interval("spacing", self.spacing, 2, math.inf)
        for spacing in self.spacing:
            checks.whole("spacing", spacing)
        check_reached(checks.share, "probability", self.probability)
        checks.positive("power", self.power)

    def check_size(self, size: int) -> None:
        if self.spacing[1] > size:
            raise ValueError(f"spacing must be at most image_size, {size}, got {self.spacing}")

    def patches(self, draws: Draws, size: int, epoch: float) -> Patches:
        low, high = self.spacing
        u = draws.uniform("occlusion", 4)
        spacing = low + (u[0] * (high - low + 1)).astype(np.int32)
        side = spacing - np.clip(np.floor(spacing * self.ratio + 0.5).astype(np.int32), 1, spacing - 1)
        side = np.where(u[1] < value_at(self.probability, epoch), side, 0)[:, None]
        squares = np.arange(size // low + 2)  # per axis: as many as the smallest spacing may need
        offset = (u[2:] * spacing).astype(np.int32)
        (left, width), (top, height) = (
            _span(squares * spacing[:, None] - start[:, None], side, size) for start in offset
        )
        every = (draws.count, len(squares), len(squares))
        fields = left[:, None, :], top[:, :, None], width[:, None, :], height[:, :, None]
        return Patches(*(np.broadcast_to(field, every).reshape(draws.count, -1) for field in fields))
