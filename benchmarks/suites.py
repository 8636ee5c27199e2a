"""The suites of `softfeed bench`, and the options that mean something to each."""

from __future__ import annotations

import argparse
from typing import Any

# Options that not every suite uses, with their defaults; the parser leaves None for those that were not given
DEFAULTS: dict[str, Any] = {
    "recipe": "full",
    "model": None,
    "synthetic": None,
    "max_side": None,
    "images": 200_000,
    "dtype": "float32",
    "channels_last": False,
    "seconds": 3.0,
    "repeats": 5,
    "cold": False,
}
_TURNS, _OUTPUT = ("seconds", "repeats"), ("dtype", "channels_last")
SUITES = {
    "steps": {"recipe", "model", "synthetic", "cold", *_TURNS, *_OUTPUT},
    "operations": {"synthetic", "cold", *_TURNS, *_OUTPUT},
    "peers": {"max_side", "cold", *_TURNS},
    "storage": {"recipe", "cold", *_TURNS, *_OUTPUT},
    "scaling": {"recipe", "synthetic", *_TURNS, *_OUTPUT},
    "memory": {"recipe", "images", "synthetic", *_OUTPUT},
}


def fill_in(args: argparse.Namespace) -> None:
    """Set the options that were not given to their defaults.

    Raises:
        ValueError: if one was given that the suite does not use.
    """
    for name, default in DEFAULTS.items():
        value = getattr(args, name)
        if value is None:
            setattr(args, name, default)
        elif name not in SUITES[args.suite]:
            users = ", ".join(suite for suite, used in SUITES.items() if name in used)
            option = name.replace("_", "-")
            raise ValueError(f"{option} must not be given for the suite {args.suite}, got {value}; it is for {users}")


def recorded(suite: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Settings without those that the suite does not use."""
    unused = set(DEFAULTS) - SUITES[suite]
    unused |= {"recipe_fields"} if "recipe" in unused else set()
    return {name: value for name, value in settings.items() if name not in unused}
