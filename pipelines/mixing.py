"""The mix slot: images made of several samples of the batch, and the share of the label that each of them gets.

Partners are drawn within the batch, which is what each paper does, so here, unlike in the other slots, what is drawn
goes by the batch: its size and the number of ranks matter. Nobody is its own partner, unless the batch is too small.
Everything is finished by then, crops, flips and masks included; noise and mollification follow, as in the authors' code
of SM. Each partner brings its own certainty along, and its target counts with its share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from . import checks
from .draws import Draws
from .schedules import Scheduled, check_reached, value_at
from .uploads import uploaded


class Mixing(NamedTuple):
    """How each of N images is made of J samples of the batch; the first is the sample itself."""

    row: np.ndarray  # int64 (N, J), rows of the batch
    share: np.ndarray  # float32 (N, J), of the label; sums to 1
    # int32 (N, J, 6): left, top, width, height of what shows the sample, and left, top of that in the sample's image,
    # in output pixels; None where J is 2 and the images are added up with their shares instead
    box: np.ndarray | None


def _partners(draws: Draws, count: int) -> np.ndarray:
    """Rows of each sample and of `count` others of its view, int64 (draws.count, 1 + count)."""
    samples = draws.count // draws.views
    order = np.argsort(draws.uniform("mix partners", 1)[0].reshape(draws.views, samples), axis=1, kind="stable")
    rows = np.empty((draws.views, samples, 1 + count), np.int64)
    for column in range(1 + count):  # in a ring of all samples, the next ones
        np.put_along_axis(rows[..., column], order, np.roll(order, -column, axis=1), axis=1)
    return (rows + samples * np.arange(draws.views)[:, None, None]).reshape(draws.count, 1 + count)


def _mixed(draws: Draws, probability: Scheduled, epoch: float) -> np.ndarray:
    """Which samples are mixed, bool (N,)."""
    return draws.uniform("mix", 1)[0] < value_at(probability, epoch)


def _area_shares(box: np.ndarray, size: int) -> np.ndarray:
    """Shares by exact area, float32 (N, J): each partner its box, the sample itself the rest."""
    share = (box[:, :, 2] * box[:, :, 3]).astype(np.float32) / np.float32(size * size)
    share[:, 0] = 1 - share[:, 1:].sum(axis=1)
    return share


@dataclass(frozen=True)
class Mixup:
    """mixup: `l x + (1 - l) x'` with l ~ Beta(alpha, alpha), and the targets alike (Zhang et al. 2018).

    Attributes:
        alpha: Both parameters of the Beta distribution, > 0; the paper has 0.2 for ImageNet and 1 for CIFAR.
        probability: Share of samples that are mixed, in [0, 1].
    """

    alpha: Scheduled = 0.2
    probability: Scheduled = 1.0

    def __post_init__(self) -> None:
        check_reached(checks.positive, "alpha", self.alpha)
        check_reached(checks.share, "probability", self.probability)

    def draw(self, draws: Draws, size: int, epoch: float) -> Mixing:
        """How a batch is mixed at a time in epochs."""
        alpha = value_at(self.alpha, epoch)
        own = np.where(_mixed(draws, self.probability, epoch), draws.beta("mix share", alpha, alpha), np.float32(1))
        return Mixing(_partners(draws, 1), np.stack([own, 1 - own], axis=1), None)


@dataclass(frozen=True)
class CutMix:
    """CutMix: a rectangle of the partner in the place it has there; shares go by area (Yun et al. 2019).

    The rectangle has the image's aspect and the area 1 - l with l ~ Beta(alpha, alpha), is centred anywhere and cut off
    at the border; the pixels that are left of it give the share.

    Attributes:
        alpha: Both parameters of the Beta distribution, > 0.
        probability: Share of samples that are mixed, in [0, 1].
    """

    alpha: Scheduled = 1.0
    probability: Scheduled = 1.0

    def __post_init__(self) -> None:
        check_reached(checks.positive, "alpha", self.alpha)
        check_reached(checks.share, "probability", self.probability)

    def draw(self, draws: Draws, size: int, epoch: float) -> Mixing:
        """How a batch is mixed at a time in epochs."""
        alpha = value_at(self.alpha, epoch)
        side = np.rint(np.sqrt(1 - draws.beta("mix share", alpha, alpha)) * size).astype(np.int64)
        side[~_mixed(draws, self.probability, epoch)] = 0
        centre = (draws.uniform("mix place", 2) * size).astype(np.int64)
        first = np.clip(centre - side // 2, 0, size)
        last = np.clip(centre - side // 2 + side, 0, size)
        (left, top), (width, height) = first, last - first
        box = np.zeros((draws.count, 2, 6), np.int32)
        box[:, 1] = np.stack([left, top, width, height, left, top], axis=1)
        return Mixing(_partners(draws, 1), _area_shares(box, size), box)


@dataclass(frozen=True)
class CopyPaste:
    """A rectangular crop of the partner, pasted at another place; shares go by area.

    Copy-paste as in Ghiasi et al. 2021, but with rectangles, as image labels come without the objects' outlines.

    Attributes:
        area: Smallest and largest share of the image's area that is pasted over, in [0, 1].
        ratio: Smallest and largest height / width, > 0; drawn log-uniformly. A side ends at the image's.
        probability: Share of samples that are mixed, in [0, 1].
    """

    area: tuple[float, float] = (0.05, 0.4)
    ratio: tuple[float, float] = (0.5, 2.0)
    probability: Scheduled = 1.0

    def __post_init__(self) -> None:
        checks.closed_interval("area", self.area, 0.0, 1.0)
        checks.interval("ratio", self.ratio, 0.0, float("inf"))
        check_reached(checks.share, "probability", self.probability)

    def draw(self, draws: Draws, size: int, epoch: float) -> Mixing:
        """How a batch is mixed at a time in epochs."""
        u = draws.uniform("mix place", 6)
        root_area = np.sqrt(self.area[0] + (self.area[1] - self.area[0]) * u[0])
        low, high = np.log(self.ratio)
        root_ratio = np.exp((low + (high - low) * u[1]) / 2)
        width, height = (
            np.minimum(np.rint(root_area * stretch * size), size) for stretch in (1 / root_ratio, root_ratio)
        )
        width[~_mixed(draws, self.probability, epoch)] = 0
        left, top, from_left, from_top = u[2:] * (size + 1 - np.stack([width, height, width, height]))
        box = np.zeros((draws.count, 2, 6), np.int32)
        box[:, 1] = np.stack([left, top, width, height, from_left, from_top], axis=1)
        return Mixing(_partners(draws, 1), _area_shares(box, size), box)


@dataclass(frozen=True)
class Mosaic:
    """Four samples in the quarters of one image, each a crop of its image; shares go by area (Bochkovskiy et al. 2020).

    Attributes:
        centre: Smallest and largest place of the point where the quarters meet, per axis, as a share of the side, in
            [0, 1].
        probability: Share of samples that are mixed, in [0, 1].
    """

    centre: tuple[float, float] = (0.3, 0.7)
    probability: Scheduled = 1.0

    def __post_init__(self) -> None:
        checks.closed_interval("centre", self.centre, 0.0, 1.0)
        check_reached(checks.share, "probability", self.probability)

    def draw(self, draws: Draws, size: int, epoch: float) -> Mixing:
        """How a batch is mixed at a time in epochs."""
        low, high = self.centre
        x, y = np.rint((low + (high - low) * draws.uniform("mix place", 2)) * size).astype(np.int64)
        # quarters in a random order, so that the sample itself may be any of them
        quarter = np.argsort(draws.uniform("mix quarters", 4), axis=0, kind="stable")
        right, lower = quarter % 2 == 1, quarter // 2 == 1
        left, top = np.where(right, x, 0), np.where(lower, y, 0)
        width, height = np.where(right, size - x, x), np.where(lower, size - y, y)
        u = draws.uniform("mix crop", 8)
        from_left, from_top = u[:4] * (size + 1 - width), u[4:] * (size + 1 - height)
        box = np.stack([left, top, width, height, from_left, from_top], axis=2).astype(np.int32).transpose(1, 0, 2)
        box[~_mixed(draws, self.probability, epoch)] = 0
        return Mixing(_partners(draws, 3), _area_shares(box, size), np.ascontiguousarray(box))


Mix = Mixup | CutMix | CopyPaste | Mosaic


def take_parts(images: np.ndarray, mixing: Mixing, row: int, out: np.ndarray) -> None:
    """Copy what one image of a batch gets from the others, which are not mixed themselves yet.

    Args:
        images: The samples, float32 (N, 3, S, S).
        mixing: How they are mixed.
        row: Which image gets something.
        out: Where it goes, float32 (3, S, S), in the places that it is to have; what it does not get is left as it is.
    """
    if mixing.box is None:
        if mixing.share[row, 1]:
            np.multiply(images[mixing.row[row, 1]], mixing.share[row, 1], out=out)
        return
    for source, box in zip(mixing.row[row].tolist(), mixing.box[row].tolist(), strict=True):
        left, top, width, height, from_left, from_top = box
        crop = images[source, :, from_top : from_top + height, from_left : from_left + width]
        out[:, top : top + height, left : left + width] = crop


def put_parts(parts: np.ndarray, mixing: Mixing, row: int, image: np.ndarray) -> None:
    """Mix an image with what it gets, in place.

    Args:
        parts: From `take_parts`, float32 (3, S, S).
        mixing: How the batch is mixed.
        row: Which image of it this is.
        image: The sample, float32 (3, S, S).
    """
    if mixing.box is None:
        if mixing.share[row, 1]:
            image *= mixing.share[row, 0]
            image += parts
        return
    for left, top, width, height, _, _ in mixing.box[row].tolist():
        place = slice(None), slice(top, top + height), slice(left, left + width)
        image[place] = parts[place]


def mix_batch(images: torch.Tensor, mixing: Mixing) -> torch.Tensor:
    """Make all images of a batch at once, on their device.

    Args:
        images: The samples, float32 (N, 3, S, S).
        mixing: How they are mixed.

    Returns:
        float32 (N, 3, S, S), another tensor in the same memory format.
    """
    device, size = images.device, images.shape[-1]
    rows = uploaded(mixing.row, device)
    if mixing.box is None:
        shares = uploaded(mixing.share, device)[:, :, None, None, None]
        mixed = images * shares[:, 0]
        for column in range(1, rows.shape[1]):
            mixed += images[rows[:, column]] * shares[:, column]
        return mixed
    # where each pixel comes from: sample, row and column
    boxes = uploaded(mixing.box, device).long()[..., None, None]
    down, across = torch.arange(size, device=device)[:, None], torch.arange(size, device=device)[None]
    sample = rows[:, 0, None, None].expand(-1, size, size)
    from_down, from_across = (axis.expand(len(images), size, size) for axis in (down, across))
    for column in range(rows.shape[1]):
        left, top, width, height, from_left, from_top = boxes[:, column].unbind(1)
        inside = (across >= left) & (across < left + width) & (down >= top) & (down < top + height)
        sample = torch.where(inside, rows[:, column, None, None], sample)
        from_down = torch.where(inside, down - top + from_top, from_down)
        from_across = torch.where(inside, across - left + from_left, from_across)
    if images.is_contiguous(memory_format=torch.channels_last):  # which indexing by channel would not keep
        return images.permute(0, 2, 3, 1)[sample, from_down, from_across].permute(0, 3, 1, 2)
    channel = torch.arange(images.shape[1], device=device)[:, None, None]
    return images[sample[:, None], channel, from_down[:, None], from_across[:, None]]
