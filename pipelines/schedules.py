"""Values that change with the epoch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StepDecay:
    """`value` before epoch `epoch`, `value / factor` from it on.

    SA App. B.1 divides sigma by 1000 for the last 20 epochs of training on CIFAR-100.

    Attributes:
        value: The value at first, > 0.
        epoch: First epoch with the smaller value, counted from 0.
        factor: What `value` is divided by, > 0.
    """

    value: float
    epoch: int
    factor: float = 1000.0

    def __post_init__(self) -> None:
        if not self.value > 0:
            raise ValueError(f"value must be positive, got {self.value}")
        if self.epoch < 0:
            raise ValueError(f"epoch must not be negative, got {self.epoch}")
        if not self.factor > 0:
            raise ValueError(f"factor must be positive, got {self.factor}")

    def at(self, epoch: int) -> float:
        """The value in an epoch."""
        return self.value if epoch < self.epoch else self.value / self.factor


Scheduled = float | StepDecay


def value_at(scheduled: Scheduled, epoch: int) -> float:
    """The value of a number or of a schedule in an epoch."""
    return scheduled.at(epoch) if isinstance(scheduled, StepDecay) else scheduled
