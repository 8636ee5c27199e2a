"""Supervised mollification: noise and blur of a known strength, and the certainty that each leaves.

SM is Heinonen et al., "Robust Classification by Coupling Data Mollification with Label Smoothing";
where the poster is silent the schedules are those of its authors' code. `t` in [0, 1] is the strength: 0 leaves the
image nearly as it is, 1 leaves nothing of it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from ._elementwise import Array, cosine, exponential, sine, with_class_axis, with_last

LABELS = ("smooth", "degrade", "add", "add+smooth")

BLUR_SIGMA_MIN = 0.3  # pixels; the authors' smallest blur


class NoiseScales(NamedTuple):
    """Factors of the image and of the noise that is added to it."""

    image: Array
    noise: Array


def noise_scales(t: Array) -> NoiseScales:
    """Factors of image and noise in `cos(t pi/2) x + sin(t pi/2) eps`, which keep the variance.

    Args:
        t: Strength, float32 of any shape S in [0, 1].

    Returns:
        Two float32 arrays of shape S, whose squares sum to 1.
    """
    return NoiseScales(cosine(t * (math.pi / 2)), sine(t * (math.pi / 2)))


def noise_certainty(t: Array, *, power: float = 1.0) -> Array:
    """Certainty left by cosine noise: `1 - (1 / (1 + SNR))^k = 1 - sin(t pi/2)^(2k)`.

    Args:
        t: Strength, float32 of any shape S in [0, 1].
        power: k > 0; 1 in the authors' code.

    Raises:
        ValueError: if `power` is not positive.
    """
    _check_power(power)
    sine_squared = sine(t * (math.pi / 2)) ** 2.0
    return 1.0 - (sine_squared if power == 1 else sine_squared**power)


def blur_sigma(t: Array, side: int) -> Array:
    """Standard deviation of the blur in pixels: log-linear from 0.3 to the image's side.

    Args:
        t: Strength, float32 of any shape S in [0, 1].
        side: Width of the image in pixels, >= 1.
    """
    return exponential(math.log(BLUR_SIGMA_MIN) + t * (math.log(side) - math.log(BLUR_SIGMA_MIN)))


def blur_certainty(t: Array, *, power: float = 1.0) -> Array:
    """Certainty left by the blur: `1 - t^k`.

    Args:
        t: Strength, float32 of any shape S in [0, 1].
        power: k > 0; 1 in the authors' code.

    Raises:
        ValueError: if `power` is not positive.
    """
    _check_power(power)
    return 1.0 - (t if power == 1 else t**power)


def mollified_targets(targets: Array, weight: Array, gamma: Array, *, label: str) -> Array:
    """What is left of targets after a mollification that takes the share `gamma`, in the variants of the authors' code.

    The variant "smooth" is not among these: it spreads gamma over all classes, which is what the certainty `1 - gamma`
    does (see `softops.confidence`), together with that of all other degradations.

    Args:
        targets: float32 of shape (*S, K), unnormalised.
        weight: w, the sum of the targets, float32 of shape S.
        gamma: float32 of shape S in [0, 1].
        label: "degrade" scales the targets by 1 - gamma and leaves their sum short of w; "add" gives w * gamma to an
            extra class behind the others, beside what they have; "add+smooth" does both, and the sum stays w.

    Returns:
        float32 of shape (*S, K), or (*S, K + 1) with an extra class.

    Raises:
        ValueError: if `label` is not one of the three.
    """
    if label not in LABELS[1:]:
        raise ValueError(f"label must be one of {', '.join(LABELS[1:])}, got {label!r}")
    kept = targets if label == "add" else targets * with_class_axis(1.0 - gamma)
    return kept if label == "degrade" else with_last(kept, weight * gamma)


def _check_power(power: float) -> None:
    if not power > 0:
        raise ValueError(f"power must be positive, got {power}")
