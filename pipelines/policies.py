"""Augmentation policies made of the operations of `nvidia.dali.auto_aug`, drawn on the host.

They work on uint8 HWC images of the output size, before normalisation, and leave the label as it is.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import numpy as np

from . import checks
from .draws import Draws
from .schedules import Scheduled, check_reached, value_at


class Steps(NamedTuple):
    """Operations of a batch, each field int32 (steps, N)."""

    operation: np.ndarray  # positions in the suite
    magnitude: np.ndarray  # bins
    negative: np.ndarray  # 1 where an operation that has a direction goes the other way


class Policy(Protocol):
    """A policy slot: a frozen dataclass with these."""

    @property
    def num_magnitude_bins(self) -> int:
        """Bins that the magnitude ranges are divided into."""
        ...

    @property
    def num_ops(self) -> int:
        """Operations that are drawn for each image."""
        ...

    def suite(self) -> list[Any]:
        """The operations to choose from."""
        ...

    def numbers(self, draws: Draws, epoch: float) -> dict[str, np.ndarray]:
        """Graph inputs, one row per sample, at a time in epochs; their names begin with "policy_"."""
        ...

    def details(self, numbers: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What was drawn, from `numbers`: arrays with one row per sample; their names begin with "policy_"."""
        ...

    def apply(self, images: Any, inputs: dict[str, Any], *, size: int) -> Any:
        """Apply the policy to uint8 HWC images of (size, size); `inputs` are the nodes of `numbers`."""
        ...


class Chain:
    """A policy that applies its operations one after another."""

    num_ops: Any
    num_magnitude_bins: Any

    def suite(self) -> list[Any]:
        """The operations to choose from."""
        raise NotImplementedError

    def steps(self, draws: Draws, epoch: float) -> Steps:
        """What is drawn for a batch at a time in epochs."""
        raise NotImplementedError

    def numbers(self, draws: Draws, epoch: float = 0) -> dict[str, np.ndarray]:
        """Graph inputs: int32 (N,) arrays of operation, magnitude bin and sign for each of the steps."""
        return step_numbers(self.steps(draws, epoch))

    def details(self, numbers: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What was drawn: the numbers as they are."""
        return numbers

    def apply(self, images: Any, inputs: dict[str, Any], *, size: int) -> Any:
        """Apply the policy to uint8 HWC images of (size, size); `inputs` are the nodes of `numbers`."""
        return apply_steps(self.suite(), images, inputs, range(self.num_ops), bins=self.num_magnitude_bins, size=size)


@dataclass(frozen=True)
class RandAugment(Chain):
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

    def steps(self, draws: Draws, epoch: float) -> Steps:
        """What is drawn for a batch at a time in epochs."""
        u = draws.uniform("policy", 3 * self.num_ops).reshape(self.num_ops, 3, -1).swapaxes(0, 1)
        magnitude = np.full(u[0].shape, round(value_at(self.magnitude, epoch)), np.int32)
        return Steps((u[0] * len(self.suite())).astype(np.int32), magnitude, (u[2] < 0.5).astype(np.int32))


@dataclass(frozen=True)
class TrivialAugment(Chain):
    """TrivialAugmentWide (Mueller & Hutter 2021): one random operation of a random magnitude.

    Attributes:
        num_magnitude_bins: Bins that the magnitude ranges are divided into.
    """

    num_magnitude_bins: int = 31
    num_ops = 1  # no ClassVar, which type checkers take for no property of a `Policy`

    def __post_init__(self) -> None:
        checks.whole("num_magnitude_bins", self.num_magnitude_bins)

    def suite(self) -> list[Any]:
        """The operations to choose from."""
        from nvidia.dali.auto_aug import trivial_augment

        return trivial_augment.get_trivial_augment_wide_suite(use_shape=False)

    def steps(self, draws: Draws, epoch: float) -> Steps:
        """What is drawn for a batch, the same at any time."""
        operation, magnitude, sign = draws.uniform("policy", 3)[:, None]
        count = len(self.suite())
        return Steps(
            (operation * count).astype(np.int32),
            (magnitude * self.num_magnitude_bins).astype(np.int32),
            (sign < 0.5).astype(np.int32),
        )


# The largest shift as a share of the side: 150 pixels of the 331 that AutoAugment's search was run at.
_LARGEST_SHIFT = 150 / 331
_LEARNED = ("image_net", "reduced_image_net", "reduced_cifar10", "svhn")


@dataclass(frozen=True)
class AutoAugment(Chain):
    """AutoAugment (Cubuk et al. 2019): one of 25 learned pairs of operations, each with its probability.

    Attributes:
        policy: What it was learned on: "image_net", "reduced_image_net", "reduced_cifar10" or "svhn".
    """

    policy: str = "image_net"
    num_ops = 2  # no ClassVar, as above
    num_magnitude_bins = 11

    def __post_init__(self) -> None:
        checks.choice("policy", self.policy, _LEARNED)

    def suite(self) -> list[Any]:
        """The operations of all pairs, and last the one that does nothing."""
        return _learned(self.policy).suite

    def steps(self, draws: Draws, epoch: float) -> Steps:
        """What is drawn for a batch, the same at any time."""
        learned = _learned(self.policy)
        u = draws.uniform("policy", 1 + 2 * self.num_ops)
        pair = (u[0] * learned.operation.shape[1]).astype(np.int32)
        runs = u[1 : 1 + self.num_ops] < learned.probability[:, pair]
        operation = np.where(runs, learned.operation[:, pair], np.int32(len(learned.suite) - 1))
        return Steps(operation, learned.magnitude[:, pair], (u[1 + self.num_ops :] < 0.5).astype(np.int32))


class _Learned(NamedTuple):
    """A learned policy as tables, each (steps, pairs)."""

    suite: list[Any]
    operation: np.ndarray  # int32, positions in the suite
    probability: np.ndarray  # float32
    magnitude: np.ndarray  # int32, bins


@lru_cache
def _learned(name: str) -> _Learned:
    from nvidia.dali.auto_aug import augmentations, auto_augment

    build = getattr(auto_augment, f"get_{name}_policy")
    # the one policy that shifts nothing takes no limit of shifts
    limit = {} if name == "reduced_image_net" else {"use_shape": True, "max_translate_rel": _LARGEST_SHIFT}
    pairs = build(**limit).sub_policies
    suite = [*dict.fromkeys(operation for pair in pairs for operation, _, _ in pair), augmentations.identity]
    shape = (AutoAugment.num_ops, len(pairs))
    operations, magnitudes = np.full(shape, len(suite) - 1, np.int32), np.zeros(shape, np.int32)
    probabilities = np.zeros(shape, np.float32)
    for number, pair in enumerate(pairs):
        for step, (operation, probability, magnitude) in enumerate(pair):
            operations[step, number] = suite.index(operation)
            probabilities[step, number] = probability
            magnitudes[step, number] = magnitude or 0
    return _Learned(suite, operations, probabilities, magnitudes)


def step_numbers(steps: Steps) -> dict[str, np.ndarray]:
    """Graph inputs of some steps, int32 (N,) each."""
    return {
        f"policy_{name}_{step}": np.ascontiguousarray(row)  # DALI takes nothing else
        for name, rows in (("operation", steps.operation), ("magnitude", steps.magnitude), ("sign", steps.negative))
        for step, row in enumerate(rows)
    }


def apply_steps(suite: list[Any], images: Any, inputs: dict[str, Any], steps: range, *, bins: int, size: int) -> Any:
    """Apply some steps, one after another, to uint8 HWC images of (size, size)."""
    from nvidia.dali.auto_aug.core import select, signed_bin

    for step in steps:
        magnitude = signed_bin(inputs[f"policy_magnitude_{step}"], inputs[f"policy_sign_{step}"])
        arguments = {"num_magnitude_bins": bins, "shape": (size, size), "fill_value": 128}
        # DALI 2.4's own policies call operators by names that it has deprecated, and resets the filters to say so;
        # recording is what keeps that from the user.
        with warnings.catch_warnings(record=True) as recorded:
            operation = inputs[f"policy_operation_{step}"]
            images = select(suite, operation, data=images, magnitude_bin=magnitude, **arguments)
        for warning in recorded:
            if not issubclass(warning.category, DeprecationWarning):
                warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return images
