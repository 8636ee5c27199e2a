"""AugMix: several chains of mild operations, mixed with each other and with the image (Hendrycks et al. 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from . import checks
from .draws import Draws
from .policies import Steps, apply_steps, step_numbers
from .schedules import Scheduled, check_reached, reached, value_at

_MOST_STEPS = 3  # of a chain
_LEAST, _LEVELS = 0.1, 10  # the authors' least level, and their scale


@dataclass(frozen=True)
class AugMix:
    """AugMix: `m x + (1 - m) sum_i w_i chain_i(x)`, with m ~ Beta(alpha, alpha) and w ~ Dirichlet(alpha).

    A chain is one to three operations, each of a level drawn from [0.1, severity]. With `chains=1` and `alpha=1` it is
    the form of AutoLabel, `m x + (1 - m) chain(x)` with m ~ U(0, 1). The mix of uint8 images is not rounded again.

    A batch's details tell `policy_depth`, int (N, chains), the operations of each chain, `policy_weight`, float32
    (N, chains), and `policy_mix`, float32 (N,), the share m of the image itself.

    Attributes:
        severity: Largest level of an operation, in [0.1, 10]: 3 for CIFAR in the authors' code, 1 for ImageNet; a
            number or a schedule over epochs.
        chains: Number of chains, >= 1; 3 in the paper.
        depth: Operations of a chain, 1 to 3; None draws it for each chain, as in the paper.
        alpha: Parameter of both distributions, > 0.
    """

    severity: Scheduled = 3.0
    chains: int = 3
    depth: int | None = None
    alpha: float = 1.0
    # Levels are drawn from a continuum and rounded to these bins between the least and the largest severity. A graph
    # takes the longer to build the more there are.
    num_magnitude_bins: ClassVar[int] = 31

    def __post_init__(self) -> None:
        check_reached(self._check_severity, "severity", self.severity)
        checks.whole("chains", self.chains)
        checks.positive("alpha", self.alpha)
        checks.choice("depth", self.depth, (None, *range(1, _MOST_STEPS + 1)))

    @staticmethod
    def _check_severity(name: str, value: float) -> None:
        if not _LEAST <= value <= _LEVELS:
            raise ValueError(f"{name} must be in [{_LEAST}, {_LEVELS}], got {value}")

    @property
    def num_ops(self) -> int:
        """Operations that are drawn for each image, those that are beyond the depth of their chain included."""
        return self.chains * _MOST_STEPS

    def suite(self) -> list[Any]:
        """The operations to choose from, with the authors' ranges, and last the one that does nothing."""
        from nvidia.dali.auto_aug import augmentations

        a: Any = augmentations  # its decorator hides from type checkers what the operations are

        def levels(mildest: float, strongest: float) -> tuple[float, float]:
            """The part of an operation's range that the severities span."""
            least, most = _LEAST / _LEVELS, max(reached(self.severity)) / _LEVELS
            return mildest + (strongest - mildest) * least, mildest + (strongest - mildest) * most

        return [
            a.auto_contrast,
            a.equalize,
            a.posterize.augmentation(levels(4, 0), randomly_negate=False, mag_to_param=a.poster_mask_uint8),
            a.rotate.augmentation(levels(0, 30), randomly_negate=True),
            a.solarize.augmentation(levels(256, 0)),
            a.shear_x.augmentation(levels(0, 0.3), randomly_negate=True),
            a.shear_y.augmentation(levels(0, 0.3), randomly_negate=True),
            a.translate_x.augmentation(levels(0, 1 / 3), randomly_negate=True),
            a.translate_y.augmentation(levels(0, 1 / 3), randomly_negate=True),
            a.identity,
        ]

    def numbers(self, draws: Draws, epoch: float = 0) -> dict[str, np.ndarray]:
        """Graph inputs: steps, weights of the chains, share of the image itself."""
        shape = (self.chains, _MOST_STEPS, draws.count)
        operation, level, sign = draws.uniform("policy", 3 * self.num_ops).reshape(3, *shape)
        depth = (draws.uniform("policy depth", self.chains) * _MOST_STEPS).astype(np.int32) + 1
        if self.depth is not None:
            depth[:] = self.depth
        nothing = len(self.suite()) - 1
        beyond = np.arange(_MOST_STEPS)[:, None] >= depth[:, None]
        # as a share of what the suite spans
        share = (value_at(self.severity, epoch) - _LEAST) / max(max(reached(self.severity)) - _LEAST, 1e-9) * level
        steps = Steps(
            np.where(beyond, nothing, operation * nothing).astype(np.int32),
            np.rint(share * (self.num_magnitude_bins - 1)).astype(np.int32),
            (sign < 0.5).astype(np.int32),
        )
        flat = Steps(*(field.reshape(self.num_ops, -1) for field in steps))
        mix = draws.beta("policy mix", self.alpha, self.alpha)
        weight = np.ascontiguousarray(draws.dirichlet("policy weight", self.alpha, self.chains).T)
        return step_numbers(flat) | {"policy_mix": mix, "policy_weight": weight}

    def details(self, numbers: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What was drawn, from `numbers`."""
        nothing = len(self.suite()) - 1
        operation = np.stack([numbers[f"policy_operation_{step}"] for step in range(self.num_ops)], axis=1)
        depth = (operation.reshape(-1, self.chains, _MOST_STEPS) != nothing).sum(axis=2)
        return numbers | {"policy_depth": depth}

    def apply(self, images: Any, inputs: dict[str, Any], *, size: int) -> Any:
        """Apply the policy to uint8 HWC images of (size, size): float32 of the same range."""
        suite, mixed = self.suite(), images * inputs["policy_mix"]
        for chain in range(self.chains):
            steps = range(chain * _MOST_STEPS, (chain + 1) * _MOST_STEPS)
            changed = apply_steps(suite, images, inputs, steps, bins=self.num_magnitude_bins, size=size)
            share = (1.0 - inputs["policy_mix"]) * inputs["policy_weight"][chain]
            mixed = mixed + changed * share
        return mixed
