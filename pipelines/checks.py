"""Rules that many settings share, with one wording for what is wrong."""

from __future__ import annotations

import math


def positive(name: str, value: float) -> None:
    """Raise ValueError unless `value` is a finite number above 0."""
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{name} must be positive, got {value}")


def not_negative(name: str, value: float) -> None:
    """Raise ValueError unless `value` is a finite number of at least 0."""
    if not (value >= 0 and math.isfinite(value)):
        raise ValueError(f"{name} must not be negative, got {value}")


def whole(name: str, value: float, *, least: int = 1) -> None:
    """Raise ValueError unless `value` is a whole number of at least `least`."""
    if not (value >= least and math.isfinite(value) and value == int(value)):
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value}")


def share(name: str, value: float) -> None:
    """Raise ValueError unless `value` lies in [0, 1]."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be in [0, 1], got {value}")


def interval(name: str, value: tuple[float, float], low: float, high: float) -> None:
    """Raise ValueError unless low < value[0] <= value[1] <= high."""
    if not low < value[0] <= value[1] <= high:
        raise ValueError(f"{name} must be an increasing pair in ({low}, {high}], got {value}")


def closed_interval(name: str, value: tuple[float, float], low: float, high: float) -> None:
    """Raise ValueError unless low <= value[0] <= value[1] <= high."""
    if not low <= value[0] <= value[1] <= high:
        raise ValueError(f"{name} must be an increasing pair in [{low}, {high}], got {value}")


def choice(name: str, value: object, choices: tuple) -> None:
    """Raise ValueError unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
