"""Augmentation policies from `nvidia.dali.auto_aug`, with their operations and magnitudes drawn on the host.

They work on uint8 HWC images of the output size and leave the label as it is.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import checks
from .draws import Draws
from .schedules import Scheduled, check_reached, value_at


@dataclass(frozen=True)
class RandAugment:
    """RandAugment (Cubuk et al. 2020): `num_ops` random operations of one magnitude.

    Attributes:
        num_ops: Operations per image, >= 1.
        magnitude: Magnitude bin, in [0, num_magnitude_bins - 1]; a number or a schedule over epochs, which is rounded.
        num_magnitude_bins: Bins that the magnitude ranges are divided into.
    """

    num_ops: int = 2
    magnitude: Scheduled = 9
    num_magnitude_bins: int = 31

    def __post_init__(self) -> None:
        checks.whole("num_ops", self.num_ops)
        checks.whole("num_magnitude_bins", self.num_magnitude_bins)
        check_reached(self._check_magnitude, "magnitude", self.magnitude)

    def _check_magnitude(self, name: str, value: float) -> None:
        if not 0 <= value <= self.num_magnitude_bins - 1:
            raise ValueError(f"{name} must be in [0, {self.num_magnitude_bins - 1}], got {value}")

    def suite(self) -> list[Any]:
        """The operations to choose from."""
        from nvidia.dali.auto_aug import rand_augment

        return rand_augment.get_rand_augment_suite(use_shape=True)

    def magnitudes(self, uniform: np.ndarray, epoch: float) -> np.ndarray:
        """Magnitude bins at a time in epochs, int32 of the shape of `uniform`."""
        return np.full(uniform.shape, round(value_at(self.magnitude, epoch)), np.int32)


@dataclass(frozen=True)
class TrivialAugment:
    """TrivialAugmentWide (Mueller & Hutter 2021): one random operation of a random magnitude.

    Attributes:
        num_magnitude_bins: Bins that the magnitude ranges are divided into.
    """

    num_magnitude_bins: int = 31
    num_ops = 1

    def __post_init__(self) -> None:
        checks.whole("num_magnitude_bins", self.num_magnitude_bins)

    def suite(self) -> list[Any]:
        """The operations to choose from."""
        from nvidia.dali.auto_aug import trivial_augment

        return trivial_augment.get_trivial_augment_wide_suite(use_shape=False)

    def magnitudes(self, uniform: np.ndarray, epoch: float) -> np.ndarray:
        """Magnitude bins, int32 of the shape of `uniform`, equally likely at any time."""
        return (uniform * self.num_magnitude_bins).astype(np.int32)


Policy = RandAugment | TrivialAugment


def policy_numbers(policy: Policy, draws: Draws, epoch: float = 0) -> dict[str, np.ndarray]:
    """Graph inputs of a policy: int32 (N,) arrays of operation, magnitude bin and sign for each of its steps."""
    suite_size = len(policy.suite())
    u = draws.uniform("policy", 3 * policy.num_ops)
    inputs = {}
    for step in range(policy.num_ops):
        operation, magnitude, sign = u[3 * step : 3 * step + 3]
        inputs[f"policy_operation_{step}"] = (operation * suite_size).astype(np.int32)
        inputs[f"policy_magnitude_{step}"] = policy.magnitudes(magnitude, epoch)
        inputs[f"policy_sign_{step}"] = (sign < 0.5).astype(np.int32)
    return inputs


def policy_stage(images: Any, policy: Policy, inputs: dict[str, Any], *, size: int) -> Any:
    """Apply a policy to uint8 HWC images of (size, size); `inputs` are the nodes of `policy_numbers`."""
    from nvidia.dali.auto_aug.core import select, signed_bin

    suite = policy.suite()
    for step in range(policy.num_ops):
        magnitude = signed_bin(inputs[f"policy_magnitude_{step}"], inputs[f"policy_sign_{step}"])
        arguments = {"num_magnitude_bins": policy.num_magnitude_bins, "shape": (size, size), "fill_value": 128}
        # DALI 2.4's own policies call operators by names that it has deprecated, and resets the filters to say so;
        # recording is what keeps that from the user.
        with warnings.catch_warnings(record=True) as recorded:
            operation = inputs[f"policy_operation_{step}"]
            images = select(suite, operation, data=images, magnitude_bin=magnitude, **arguments)
        for warning in recorded:
            if not issubclass(warning.category, DeprecationWarning):
                warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return images
