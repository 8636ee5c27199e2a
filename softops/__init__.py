"""The mathematics of soft augmentation, on numpy arrays, torch tensors and DALI nodes alike.

Pure functions: float32 in, float32 out, nothing drawn, nothing written in place. In the docstrings SA is
Liu et al., "Soft Augmentation for Image Classification" (2023), and SM is Heinonen et al., "Robust Classification by
Coupling Data Mollification with Label Smoothing".
"""

from .certainty import combined, confidence, pair_weight, softening
from .mollification import (
    LABELS,
    NoiseScales,
    blur_certainty,
    blur_sigma,
    mollified_targets,
    noise_certainty,
    noise_scales,
)
from .targets import SOFTENINGS, soft_targets, weighted_targets
from .windows import (
    Placement,
    Window,
    intersection_over_union,
    padded_window,
    place,
    random_resized_window,
    resized_shift_limit,
    shift_limit,
    shifted_window,
    soft_resized_window,
    visibility,
)

__all__ = [
    "LABELS",
    "SOFTENINGS",
    "NoiseScales",
    "Placement",
    "Window",
    "blur_certainty",
    "blur_sigma",
    "combined",
    "confidence",
    "intersection_over_union",
    "mollified_targets",
    "noise_certainty",
    "noise_scales",
    "padded_window",
    "pair_weight",
    "place",
    "random_resized_window",
    "resized_shift_limit",
    "shift_limit",
    "shifted_window",
    "soft_resized_window",
    "soft_targets",
    "softening",
    "visibility",
    "weighted_targets",
]
