"""Several views of each sample from one decode: the numbers that the graph gets, and how it takes them apart.

The rectangle that holds the visible parts of all views is decoded once, and each view is cut from it: the decoder goes
over the bytes once (`softfeed bench --suite operations` has two views beside one).
"""

from __future__ import annotations

from typing import Any

import numpy as np

DECODED = ("decoded_start", "decoded_extent")  # the rectangle to decode for all views, int32 (N, 2), vertical first
_TO_DECODE = ("start", "extent", *DECODED)


def _name(name: str, view: int) -> str:
    return f"{name}_of_view_{view}"


def by_view(inputs: dict[str, np.ndarray], views: int) -> dict[str, np.ndarray]:
    """Graph inputs of several views.

    Args:
        inputs: Those of V * N views, the samples' first ones, then their second ones, and so on.
        views: V.

    Returns:
        An array of N rows for each input and view, and `DECODED` where there is something to decode; the views' `start`
        then counts from the rectangle's.
    """
    split = {name: np.split(array, views) for name, array in inputs.items()}
    shared = {}
    if "start" in split:
        starts, extents = np.stack(split["start"]), np.stack(split["extent"])
        first, last = starts.min(axis=0), (starts + extents).max(axis=0)
        shared = dict(zip(DECODED, (first, last - first), strict=True))
        split["start"] = list(starts - first)
    return shared | {_name(name, view): rows for name, arrays in split.items() for view, rows in enumerate(arrays)}


def of_view(inputs: dict[str, Any], view: int) -> dict[str, Any]:
    """The inputs of one view, by their own names, from nodes or arrays named as `by_view` does."""
    end = _name("", view)
    return {name.removesuffix(end): value for name, value in inputs.items() if name.endswith(end)}


def split_numbers(inputs: dict[str, np.ndarray], views: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """A plan's inputs in two: those to decode with, and all others, by their own names with a row for each image.

    Args:
        inputs: As `by_view` returns them, or for one view, as `by_view` gets them.
        views: V.
    """
    first = {name: array for name, array in inputs.items() if name.startswith(_TO_DECODE)}
    rest = {name: array for name, array in inputs.items() if name not in first}
    if views > 1:
        split = [of_view(rest, view) for view in range(views)]
        rest = {name: np.concatenate([view[name] for view in split]) for name in split[0]}
    return first, rest
