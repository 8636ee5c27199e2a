"""A loader's place in its data: what must be the same to go on from it, and how it is checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from .described import described, is_described
from .recipe import Recipe

VERSION = 1

# What both sides of a stop must share, apart from the recipe and the batch size, which are compared in their own ways.
_SAME = ("data", "seed", "image_size", "shuffle", "last_batch", "targets", "fancy_upsampling")

# What states without a setting were of, as it was none when they were made.
_ALWAYS = {"fancy_upsampling": True}


class Place(NamedTuple):
    """A place in the stream of all epochs.

    Attributes:
        epoch: Number of the epoch, from 0.
        position: Samples of the epoch's global order that have been handed over, over all ranks.
    """

    epoch: int
    position: int


def settings(recipe: Recipe, **others: Any) -> dict[str, Any]:
    """The settings that decide a stream, as plain values for a state: those of `_SAME`, batch and world size."""
    return {"version": VERSION, **others, "recipe": repr(recipe), "recipe_fields": described(recipe)}


def place_in(state: Mapping[str, Any], own: Mapping[str, Any], recipe: Recipe) -> Place:
    """The place that a state tells, for a loader that plays the same stream.

    Args:
        state: What `Loader.state_dict` returned.
        own: Settings of the loader that shall go on.
        recipe: Its recipe.

    Raises:
        ValueError: naming the first setting that is not as in the state, with both values.
    """
    if not isinstance(state, Mapping) or not {*own, *Place._fields} - set(_ALWAYS) <= set(state):
        got = f"one with {sorted(state)}" if isinstance(state, Mapping) else type(state).__name__
        raise ValueError(f"state must be what a loader's state_dict returned, got {got}")
    if state["version"] != VERSION:
        raise ValueError(f"version of the state must be {VERSION}, got {state['version']}; use the softfeed it is of")
    state = _ALWAYS | dict(state)
    for name in _SAME:
        if state[name] != own[name]:
            raise _another(name, state[name], own[name])
    if not is_described(state["recipe_fields"], recipe):
        raise _another("recipe", state["recipe"], own["recipe"])
    saved, given = ((settings["batch_size"], settings["world_size"]) for settings in (state, own))
    if saved[0] != given[0] and saved[0] * saved[1] != given[0] * given[1]:
        raise _another(
            "batch_size", f"{saved[0]} (or in all {saved[0] * saved[1]})", f"{given[0]} on {given[1]} rank(s)"
        )
    epoch, position = int(state["epoch"]), int(state["position"])
    if epoch < 0 or position < 0:
        raise ValueError(f"epoch and position of the state must not be negative, got {epoch} and {position}")
    return Place(epoch, position)


def _another(name: str, saved: object, given: object) -> ValueError:
    return ValueError(f"{name} must be {saved} as in the state, got {given}; use the same, or start anew")
