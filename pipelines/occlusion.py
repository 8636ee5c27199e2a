"""The occlude slot of a recipe: rectangles set to 0, the mean colour, and what they leave of the label.

Every mask draws its rectangles on the host, clipped to the output and without overlaps, so that the pixels that they
cover are counted exactly; visibility is the uncovered share of the output. On a GPU the graph sets them to 0 in one
`fn.erase` after normalisation. On a CPU that copies the batch, and blanking the finished batch in place takes a fifth
of the time for a square, and as long for 32 of them (`python -m softfeed.benchmarks.alternatives`). Erasing the uint8
pixels before normalisation would copy a quarter of the bytes, but the mean colour is no whole pixel value, so that
patches would come out near 0 and not 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from .. import softops
from . import checks
from .draws import Draws
from .output import Output
from .schedules import Scheduled, check_reached, value_at


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


def occlusion_numbers(patches: Patches) -> dict[str, np.ndarray]:
    """Graph inputs of patches: their corners and their shapes, float32 (N, 2 M), vertical first."""
    corner = np.stack([patches.top, patches.left], axis=2)
    shape = np.stack([patches.height, patches.width], axis=2)
    return {
        name: array.reshape(len(array), -1).astype(np.float32)
        for name, array in (("patch_corner", corner), ("patch_shape", shape))
    }


def occlusion_stage(images: Any, inputs: dict[str, Any], output: Output) -> Any:
    """Set the patches of normalised images, which are of `output`'s type, to 0."""
    from nvidia.dali import fn, types

    half = output.dtype == torch.float16
    if half:  # `erase` has no float16 on a GPU, and a 0 has the same two bytes as a whole number; this copies nothing
        images = fn.reinterpret(images, dtype=types.DALIDataType.UINT16)
    erased = fn.erase(
        images,
        anchor=inputs["patch_corner"],
        shape=inputs["patch_shape"],
        axis_names="HW",
        fill_value=0.0,
        normalized_anchor=False,
        normalized_shape=False,
    )
    return fn.reinterpret(erased, dtype=types.DALIDataType.FLOAT16) if half else erased
