"""Soft targets and weights from labels and confidences (SA Eqs. 4 to 6)."""

from __future__ import annotations

from ._elementwise import Array, one_hot, with_class_axis
from .certainty import _check_num_classes

SOFTENINGS = ("none", "target", "target-weight", "weight")


def soft_targets(labels: Array, confidence: Array, num_classes: int) -> Array:
    """Target `q`: `confidence` on the true class, the rest shared equally by the others (SA Listing 2).

    Args:
        labels: Class indices, integers of shape S in [0, K).
        confidence: float32 of shape S in [0, 1].
        num_classes: K >= 2.

    Returns:
        float32 of shape (*S, K); sums to 1 over the last axis.

    Raises:
        ValueError: if `num_classes` is less than 2.
    """
    _check_num_classes(num_classes)
    true = one_hot(labels, num_classes)
    p = with_class_axis(confidence)
    # the true class is added as p * 1 + off * 0, so that it is exactly p
    return true * p + (1.0 - true) * ((1.0 - p) * (1.0 / (num_classes - 1)))


def weighted_targets(labels: Array, confidence: Array, num_classes: int, *, softening: str = "target-weight") -> Array:
    """Unnormalised target `w * q`, which any cross-entropy with probability targets takes (SA Eqs. 4 to 6).

    The gradient of `-sum(w q log softmax(z))` equals that of the paper's `w KL(q || softmax(z))`.

    Args:
        labels: Class indices, integers of shape S in [0, K).
        confidence: float32 of shape S in [0, 1].
        num_classes: K >= 2.
        softening: What the confidence softens: "target" (Eq. 4), "weight" (Eq. 5), "target-weight" (Eq. 6),
            or "none".

    Returns:
        float32 of shape (*S, K); sums to the sample's weight over the last axis.

    Raises:
        ValueError: if `num_classes` is less than 2 or `softening` is unknown.
    """
    if softening not in SOFTENINGS:
        raise ValueError(f"softening must be one of {', '.join(SOFTENINGS)}, got {softening!r}")
    _check_num_classes(num_classes)
    targets = (
        soft_targets(labels, confidence, num_classes)
        if softening.startswith("target")
        else one_hot(labels, num_classes)
    )
    return targets * with_class_axis(confidence) if softening.endswith("weight") else targets
