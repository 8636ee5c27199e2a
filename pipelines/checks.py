"""Rules that many settings share, with one wording for what is wrong."""

from __future__ import annotations

import math
from numbers import Integral, Real


def number(name: str, value: object) -> None:
    """Raise ValueError unless `value` is a number; True, which is one for Python, is a mistake."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise ValueError(f"{name} must be a number, got {value!r}")


def _pair(name: str, value: object) -> None:
    # no list: recipes are compared, and cannot be changed
    if not isinstance(value, tuple) or len(value) != 2:
        raise ValueError(f"{name} must be a tuple of two numbers, got {value!r}")
    for end in value:
        number(name, end)


def positive(name: str, value: float) -> None:
    """Raise ValueError unless `value` is a finite number above 0."""
    number(name, value)
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{name} must be positive, got {value}")


def not_negative(name: str, value: float) -> None:
    """Raise ValueError unless `value` is a finite number of at least 0."""
    number(name, value)
    if not (value >= 0 and math.isfinite(value)):
        raise ValueError(f"{name} must not be negative, got {value}")


def whole(name: str, value: int, *, least: int = 1) -> int:
    """The value as Python's int; raise ValueError unless it is an integer, not 2.0, of at least `least`."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return int(value)


def share(name: str, value: float) -> None:
    """Raise ValueError unless `value` lies in [0, 1]."""
    number(name, value)
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be in [0, 1], got {value}")


def interval(name: str, value: tuple[float, float], low: float, high: float) -> None:
    """Raise ValueError unless low < value[0] <= value[1] <= high."""
    _pair(name, value)
    if not low < value[0] <= value[1] <= high:
        raise ValueError(f"{name} must be an increasing pair in ({low}, {high}], got {value}")


def closed_interval(name: str, value: tuple[float, float], low: float, high: float) -> None:
    """Raise ValueError unless low <= value[0] <= value[1] <= high."""
    _pair(name, value)
    if not low <= value[0] <= value[1] <= high:
        raise ValueError(f"{name} must be an increasing pair in [{low}, {high}], got {value}")


def choice(name: str, value: object, choices: tuple) -> None:
    """Raise ValueError unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
