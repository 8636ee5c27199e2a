"""Diagrams of a recipe: its softening curves, the strengths that it draws, and its schedules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import softops
from ..softops import mollification
from .diagram import FAINT, GRID, HARD, INK, SOFT, diagram

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..pipelines import AdditiveNoise, Mollify, Recipe

_COLUMNS = 3
_POINTS = 401
_DASHED = (0, (4, 3))

Panel = Callable[["Axes"], None]


def curves(recipe: Recipe, *, num_classes: int, image_size: int, epoch: int = 0, epochs: int = 100) -> bytes | None:
    """The panels that a recipe has, as PNG; None if it has none.

    Args:
        recipe: The recipe.
        num_classes: K, for the confidence.
        image_size: Side of the images in pixels, for the blur.
        epoch: For which settings with a schedule are drawn.
        epochs: How far schedules are drawn.
    """
    drawn = panels(recipe, num_classes=num_classes, image_size=image_size, epoch=epoch, epochs=epochs)
    if not drawn:
        return None
    columns = min(len(drawn), 2 if len(drawn) == 4 else _COLUMNS)
    rows = -(-len(drawn) // columns)
    with diagram(width=4.4 * columns, height=3.4 * rows) as (figure, buffer):
        figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.1)
        for number, panel in enumerate(drawn.values(), start=1):
            axes = figure.add_subplot(rows, columns, number)
            axes.grid(color=GRID, linewidth=0.8)
            axes.set_axisbelow(True)
            panel(axes)
    return buffer.getvalue()


def panels(recipe: Recipe, *, num_classes: int, image_size: int, epoch: int, epochs: int) -> dict[str, Panel]:
    """The panels that a recipe has, by name; arguments as for `curves`."""
    found: dict[str, Panel] = {}
    visibility = np.linspace(0, 1, _POINTS, dtype=np.float32)
    softened = _softened(recipe, visibility)
    if softened:
        plateau = getattr(recipe.crop, "plateau", 1.0)
        found["softening"] = partial(_softening, visibility, softened, plateau=plateau, num_classes=num_classes)
    if recipe.noise is not None:
        found["noise"] = partial(_noise, recipe.noise, num_classes=num_classes, epoch=epoch)
    if recipe.mollify is not None:
        weights = _weights(recipe.mollify, epoch)
        found["certainty"] = partial(_certainty, recipe.mollify, weights)
        if weights["blur"]:
            found["blur"] = partial(_blur, image_size)
        if weights["noise"] or weights["blur"]:
            found["strength"] = partial(_strength, recipe.mollify, epoch)
    for name, schedule in _schedules(recipe):
        found[name] = partial(_schedule, name, schedule, epochs=epochs)
    return found


def _softened(recipe: Recipe, visibility: np.ndarray) -> dict[str, np.ndarray]:
    """Certainty over the visibility, by the name of the step that softens."""
    softened = {}
    certainty = recipe.crop.certainty(visibility)
    if (certainty < 1).any():
        softened[f"crop, k = {getattr(recipe.crop, 'power', 1):g}"] = certainty
    power = getattr(recipe.occlude, "power", None)
    if power is not None:
        softened[f"occlusion, k = {power:g}"] = softops.softening(visibility, power=power)
    return softened


def _softening(
    visibility: np.ndarray, softened: dict[str, np.ndarray], axes: Axes, *, plateau: float, num_classes: int
) -> None:
    for (name, certainty), colour in zip(softened.items(), (SOFT, HARD), strict=False):
        axes.plot(visibility, softops.confidence(certainty, num_classes), color=colour, linewidth=2, label=name)
    axes.axhline(1 / num_classes, color=FAINT, linewidth=1, linestyle=_DASHED, label=f"chance, 1/K = 1/{num_classes}")
    if plateau < 1:
        axes.axvline(plateau, color=INK, linewidth=1, linestyle=_DASHED, label=f"plateau, T = {plateau:g}")
    axes.set(title="Softening", xlabel="visibility v", ylabel="confidence p(v)", xlim=(0, 1), ylim=(0, 1.03))
    # a background, for the plateau runs behind it
    axes.legend(loc="center right", fontsize=9, frameon=True, facecolor="white", edgecolor="none", framealpha=1)


def _noise(noise: AdditiveNoise, axes: Axes, *, num_classes: int, epoch: int) -> None:
    from ..pipelines.schedules import value_at

    sigma = value_at(noise.sigma, epoch)
    amplitude = np.linspace(-4 * sigma, 4 * sigma, _POINTS, dtype=np.float32)
    density = np.exp(-((amplitude / sigma) ** 2) / 2)
    axes.fill_between(amplitude, density, color=GRID, label=f"density, $\\sigma$ = {sigma:g}")
    confidence = softops.confidence(noise.certainty(amplitude), num_classes)
    axes.plot(amplitude, confidence, color=SOFT, linewidth=2, label=f"confidence, k = {noise.power:g}")
    axes.set(title="Additive noise", xlabel="amplitude a", ylabel="confidence", ylim=(0, 1.35))
    axes.legend(loc="upper right", fontsize=9)


def _certainty(mollify: Mollify, weights: dict[str, float], axes: Axes) -> None:
    t = np.linspace(0, 1, _POINTS, dtype=np.float32)
    left = {
        "clean": np.ones_like(t),
        "noise": mollification.noise_certainty(t, power=mollify.noise_power),
        "blur": mollification.blur_certainty(t, power=mollify.blur_power),
        "pure_noise": np.zeros_like(t),
    }
    looks = {"clean": (FAINT, _DASHED), "noise": (HARD, "-"), "blur": (SOFT, "-"), "pure_noise": (INK, _DASHED)}
    for role, weight in weights.items():
        if weight:
            label = f"{role.replace('_', ' ')}, {weight:.0%} of images"
            axes.plot(t, left[role], color=looks[role][0], linestyle=looks[role][1], linewidth=2, label=label)
    axes.set(title="Mollification: certainty", xlabel="strength t", ylabel="certainty", xlim=(0, 1), ylim=(0, 1.03))
    axes.legend(loc="lower left", fontsize=9)


def _blur(image_size: int, axes: Axes) -> None:
    t = np.linspace(0, 1, _POINTS, dtype=np.float32)
    axes.plot(t, mollification.blur_sigma(t, image_size), color=SOFT, linewidth=2)
    axes.set(
        title=f"Mollification: blur of {image_size} pixels",
        xlabel="strength t",
        ylabel=r"blur $\sigma$ in pixels",
        yscale="log",
        xlim=(0, 1),
    )
    axes.yaxis.set_major_formatter("{x:g}")


def _strength(mollify: Mollify, epoch: int, axes: Axes) -> None:
    from scipy import stats

    from ..pipelines.schedules import value_at

    alpha, beta = value_at(mollify.alpha, epoch), value_at(mollify.beta, epoch)
    # not at 0 and 1, where the density is infinite for parameters below 1
    t = np.linspace(0, 1, _POINTS) if min(alpha, beta) >= 1 else np.linspace(0.005, 0.995, _POINTS)
    density = stats.beta.pdf(t, alpha, beta)
    axes.fill_between(t, density, color=HARD, alpha=0.15, linewidth=0)
    axes.plot(t, density, color=HARD, linewidth=2)
    title = f"Mollification: t ~ Beta({alpha:g}, {beta:g})"
    axes.set(title=title, xlabel="strength t", ylabel="density", xlim=(0, 1), ylim=(0, 1.05 * density.max()))


def _schedule(name: str, schedule: Any, axes: Axes, *, epochs: int) -> None:
    from matplotlib.ticker import MaxNLocator

    epoch = np.linspace(0, epochs, 8 * epochs, endpoint=False)
    values = np.array([schedule.at(time) for time in epoch.tolist()])
    axes.plot(epoch, values, color=HARD, linewidth=2)
    axes.set(title=f"Schedule of {name}", xlabel="epoch", ylabel=name.split(".")[-1], xlim=(0, epochs))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if values.min() > 0 and values.max() / values.min() > 30:
        axes.set_yscale("log")
    else:
        axes.set_ylim(0, 1.05 * values.max())


def _weights(mollify: Mollify, epoch: int) -> dict[str, float]:
    """Share of each role in an epoch."""
    from ..pipelines.mollify import ROLES
    from ..pipelines.schedules import value_at

    weights = {role: value_at(getattr(mollify, role), epoch) for role in ROLES}
    return {role: weight / sum(weights.values()) for role, weight in weights.items()}


def _schedules(recipe: Recipe) -> Iterator[tuple[str, Any]]:
    """The settings of a recipe that change over the epochs, as ("crop.sigma", schedule)."""
    for slot in fields(recipe):
        step = getattr(recipe, slot.name)
        if is_dataclass(step):
            for setting in fields(step):
                value = getattr(step, setting.name)
                if hasattr(value, "at"):
                    yield f"{slot.name}.{setting.name}", value
