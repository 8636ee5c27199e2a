"""Occlusion: one square patch that hides a share of the image (SA section 4.3.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .. import softops
from . import checks
from .draws import Draws


class Patch(NamedTuple):
    """Square patches of a batch in output pixels, each field int32 (N,)."""

    left: np.ndarray
    top: np.ndarray
    side: np.ndarray


@dataclass(frozen=True)
class Occlude:
    """A square patch of the fill value at a random place, fully inside the image.

    Attributes:
        share: Share of the image's area that is covered, in [0, 1]; the patch's side is rounded to whole pixels and
            the covered pixels, exactly, give the certainty. 0.2, 0.4, 0.6 and 0.8 make the paper's sweep.
        power: k of the softening curve, > 0.
    """

    share: float = 0.4
    power: float = 2.0

    def __post_init__(self) -> None:
        checks.share("share", self.share)
        checks.positive("power", self.power)

    def patch(self, draws: Draws, size: int) -> Patch:
        """Where the patches lie."""
        u = draws.uniform("occlusion", 2)
        side = round(self.share**0.5 * size)
        left, top = (u * (size - side + 1)).astype(np.int32)
        return Patch(left, top, np.full(draws.count, side, np.int32))

    def certainty(self, patch: Patch, size: int) -> np.ndarray:
        """Certainty left by the pixels that stay visible, float32 (N,) in [0, 1]."""
        covered = (patch.side.astype(np.float32) ** 2) / np.float32(size * size)
        return softops.softening(1.0 - covered, power=self.power)


def occlusion_numbers(patch: Patch) -> dict[str, np.ndarray]:
    """Graph inputs of a patch: its corner and its shape, float32 (N, 2), vertical first."""
    corner = np.stack([patch.top, patch.left], axis=1).astype(np.float32)
    return {"patch_corner": corner, "patch_shape": np.stack([patch.side] * 2, axis=1).astype(np.float32)}


def occlusion_stage(images: Any, inputs: dict[str, Any]) -> Any:
    """Set the patches of normalised CHW images to 0."""
    from nvidia.dali import fn

    return fn.erase(
        images,
        anchor=inputs["patch_corner"],
        shape=inputs["patch_shape"],
        axis_names="HW",
        fill_value=0.0,
        normalized_anchor=False,
        normalized_shape=False,
    )
