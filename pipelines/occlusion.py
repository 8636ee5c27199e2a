"""The occlude slot of a recipe: rectangles set to 0, the mean colour, and what they leave of the label.

Every mask draws its rectangles on the host, clipped to the output and without overlaps, so that the pixels that they
cover are counted exactly; visibility is the uncovered share of the output. They are set to 0 in the batch that the
graph hands over, in place. `fn.erase` in the graph copies the batch, which takes five times a CPU's time for a square,
and as much for 32 of them (`python -m softfeed.benchmarks.alternatives`); on a GPU it has no float16. Erasing the uint8
pixels before normalisation would copy a quarter of the bytes, but the mean colour is no whole pixel value, so that
patches would come out near 0 and not 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch

from .. import softops
from . import checks
from .draws import Draws
from .schedules import Scheduled, check_reached, value_at
from .uploads import uploaded


class Patches(NamedTuple):
    """Rectangles of a batch in output pixels, each field int32 (N, M); those that are not used have no width."""

    left: np.ndarray
    top: np.ndarray
    width: np.ndarray
    height: np.ndarray

    def covered(self) -> np.ndarray:
        """Pixels that are covered, int32 (N,)."""
        return (self.width * self.height).sum(axis=1, dtype=np.int32)


class Mask(Protocol):
    """An occlude slot: a frozen dataclass with these."""

    def check_size(self, size: int) -> None:
        """Raise ValueError if the mask does not fit an output of `size` pixels."""
        ...

    def patches(self, draws: Draws, size: int, epoch: float) -> Patches:
        """The rectangles of a batch, within an output of `size` pixels, at a time in epochs."""
        ...

    def certainty(self, patches: Patches, size: int) -> np.ndarray:
        """Certainty left by the pixels that stay visible, float32 (N,) in [0, 1]."""
        ...


class SoftenedMask:
    """A mask whose label softens with the share of pixels that it covers (SA Eq. 7)."""

    power: float

    def certainty(self, patches: Patches, size: int) -> np.ndarray:
        covered = patches.covered().astype(np.float32) / np.float32(size * size)
        return softops.softening(1.0 - covered, power=self.power)


@dataclass(frozen=True)
class Occlude(SoftenedMask):
    """A square patch at a random place, fully inside the image (SA section 4.3.3).

    Attributes:
        share: Share of the image's area that is covered, in [0, 1]: a number or a schedule over epochs, or a pair
            (low, high) between which it is drawn uniformly per sample. The patch's side is rounded to whole pixels
            and the covered pixels, exactly, give the certainty. 0.2, 0.4, 0.6 and 0.8 make the paper's sweep.
        power: k of the softening curve, > 0.
    """

    share: Scheduled | tuple[float, float] = 0.4
    power: float = 2.0

    def __post_init__(self) -> None:
        checks.positive("power", self.power)
        if isinstance(self.share, tuple):
            checks.closed_interval("share", self.share, 0.0, 1.0)
        else:
            check_reached(checks.share, "share", self.share)

    def check_size(self, size: int) -> None:
        """Accept any size, as the patch is a share of it."""

    def patches(self, draws: Draws, size: int, epoch: float) -> Patches:
        u = draws.uniform("occlusion", 3)
        if isinstance(self.share, tuple):
            low, high = self.share
            share = low + (high - low) * u[2].astype(np.float64)
        else:
            share = np.full(draws.count, value_at(self.share, epoch))
        side = np.rint(share**0.5 * size).astype(np.int32)
        left, top = (u[:2] * (size - side + 1)).astype(np.int32)
        return Patches(*(field[:, None] for field in (left, top, side, side)))


def occlude_batch(images: torch.Tensor, patches: Patches) -> None:
    """Set the patches of all images of a batch, (N, 3, S, S), to 0 at once, in place, on their device."""
    side = torch.arange(images.shape[-1], device=images.device)
    left, top, width, height = uploaded(np.stack(patches), images.device)[..., None].unbind()
    # float16 (N, M, S): which rows, and which columns, each patch covers; what is not used covers no column
    rows = ((side >= top) & (side < top + height)).half()
    columns = ((side >= left) & (side < left + width)).half()
    images.masked_fill_((rows.mT @ columns > 0)[:, None], 0)
