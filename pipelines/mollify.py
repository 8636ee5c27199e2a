"""The mollify and noise slots: what is done to finished, normalised images, and what that leaves of their labels.

Their numbers are drawn with the others of the batch; `finishing` applies them to the batch that the graph hands over.
The noise of the pixels comes from a generator that is seeded per sample, so that a sample has the same noise whatever
batch it is in; on a GPU it is seeded per batch, and the noise repeats with the same batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .. import softops
from ..softops import mollification
from . import checks
from .draws import Draws
from .schedules import Scheduled, check_reached, reached, turns, value_at

ROLES = ("clean", "noise", "blur", "pure_noise")
LEVELS = 256  # strengths of the blur's table; image and label share the rounded strength


class Mollification(NamedTuple):
    """What is done to each of N samples."""

    role: np.ndarray  # int8 (N,), positions in ROLES
    level: np.ndarray  # int64 (N,), rows of the table of strengths
    seed: np.ndarray  # int64 (N,), of the pixels' noise


@dataclass(frozen=True)
class Mollify:
    """Supervised mollification: each sample stays clean, or gets noise or blur of a random strength t (SM).

    Weights, `alpha` and `beta` are numbers or schedules over epochs.

    Attributes:
        clean: Weight of samples that stay as they are, >= 0.
        noise: Weight of samples that get noise, `cos(t pi/2) x + sin(t pi/2) eps`.
        blur: Weight of samples that get the DCT blur.
        pure_noise: Weight of samples that become noise altogether, with no certainty left.
        alpha: First parameter of t ~ Beta(alpha, beta), > 0.
        beta: Second parameter, > 0.
        noise_power: k of the noise's certainty, > 0.
        blur_power: k of the blur's certainty, > 0.
        label: What becomes of the label, with gamma the certainty that is lost: "smooth" spreads gamma over all
            classes, as every degradation does; "degrade" scales the target by 1 - gamma; "add" gives gamma to an extra
            class beside the target, and "add+smooth" takes it from the target. All but "smooth" need a loader with
            soft targets, and the extra class a model with one more output.
    """

    clean: Scheduled = 1.0
    noise: Scheduled = 1.0
    blur: Scheduled = 1.0
    pure_noise: Scheduled = 0.0
    alpha: Scheduled = 1.0
    beta: Scheduled = 2.0
    noise_power: float = 1.0
    blur_power: float = 1.0
    label: str = "smooth"

    def __post_init__(self) -> None:
        for role in ROLES:
            check_reached(checks.not_negative, role, getattr(self, role))
        # A weight of at least 0 that is 0 at some time is so up to one of its turns or from one on.
        for epoch in sorted({turn for role in ROLES for turn in turns(getattr(self, role))}):
            weights = self.weights(epoch)
            if not sum(weights) > 0:
                raise ValueError(
                    f"clean, noise, blur and pure_noise must have a positive sum, got {weights} in epoch {epoch}"
                )
        for name in ("alpha", "beta", "noise_power", "blur_power"):
            check_reached(checks.positive, name, getattr(self, name))
        checks.choice("label", self.label, mollification.LABELS)

    def weights(self, epoch: float) -> tuple[float, ...]:
        """Weights of the roles at a time in epochs, in the order of ROLES."""
        return tuple(value_at(getattr(self, role), epoch) for role in ROLES)

    def draw(self, draws: Draws, epoch: float = 0) -> Mollification:
        """Roles and strengths of a batch at a time in epochs."""
        role = draws.choice("mollify role", self.weights(epoch))
        t = draws.beta("mollify strength", value_at(self.alpha, epoch), value_at(self.beta, epoch))
        level = np.rint(t * (LEVELS - 1)).astype(np.int64)
        return Mollification(role.astype(np.int8), level, draws.seeds("mollify noise"))

    def certainty(self, mollification_: Mollification) -> np.ndarray:
        """Certainty left, float32 (N,) in [0, 1]."""
        t = strengths()[mollification_.level]
        by_role = [
            np.ones_like(t),
            mollification.noise_certainty(t, power=self.noise_power),
            mollification.blur_certainty(t, power=self.blur_power),
            np.zeros_like(t),
        ]
        return np.choose(mollification_.role, by_role)


@dataclass(frozen=True)
class AdditiveNoise:
    """Soft additive noise: `x + a n`, `a ~ N(0, sigma)`, `n ~ N(0, pixel_sigma)` per pixel (SA App. Table 6).

    Visibility is `1 - min(|a| / (3 sigma), 1)`: the paper gives only the power of the softening, and a three-sigma rule
    for crops, which is applied to the noise here. Under a schedule the rule keeps the largest sigma, so that less noise
    always leaves more certainty.

    Attributes:
        sigma: Standard deviation of the amplitude; a number > 0 or a schedule over epochs.
        pixel_sigma: Standard deviation of the noise, in normalised units, > 0.
        power: k of the softening curve, > 0; 1 in the paper.
    """

    sigma: Scheduled = 0.1
    pixel_sigma: float = 0.1
    power: float = 1.0

    def __post_init__(self) -> None:
        for name in ("sigma", "pixel_sigma", "power"):
            check_reached(checks.positive, name, getattr(self, name))

    def amplitude(self, draws: Draws, epoch: float = 0) -> np.ndarray:
        """Amplitudes a of a batch at a time in epochs, float32 (N,)."""
        return draws.normal("noise amplitude", 1)[0] * np.float32(value_at(self.sigma, epoch))

    def certainty(self, amplitude: np.ndarray) -> np.ndarray:
        """Certainty left, float32 (N,) in [0, 1]."""
        visibility = 1.0 - np.minimum(abs(amplitude) / np.float32(3 * max(reached(self.sigma))), 1.0)
        return softops.softening(visibility, power=self.power)


def strengths() -> np.ndarray:
    """The table of strengths t, float32 (LEVELS,) from 0 to 1."""
    return np.linspace(0, 1, LEVELS, dtype=np.float32)
