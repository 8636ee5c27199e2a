"""The report's diagrams, as PNG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .comparison import Run
from .diagram import FAINT, GRID, HARD, INK, SOFT, diagram

if TYPE_CHECKING:
    from .metrics import ReliabilityBin

COLOURS = {"hard": HARD, "soft": SOFT}


def curves(runs: Sequence[Run], quantity: str, title: str) -> bytes:
    """One line for each run over the epochs, coloured by recipe.

    Args:
        runs: of any recipes and seeds.
        quantity: a column of `Run.history`, such as "train_loss".
        title: above the diagram.
    """
    from matplotlib.ticker import MaxNLocator

    labelled: set[str] = set()
    with diagram(width=5.4, height=3.5) as (figure, buffer):
        axes = figure.add_subplot()
        for run in runs:
            epochs = [row["epoch"] for row in run.history]
            numbers = [row[quantity] for row in run.history]
            label = run.recipe if run.recipe not in labelled else "_again"  # no entry in the legend
            labelled.add(run.recipe)
            marker = "o" if len(epochs) == 1 else None
            axes.plot(epochs, numbers, color=COLOURS[run.recipe], label=label, linewidth=1.6, alpha=0.85, marker=marker)
        axes.set(title=title, xlabel="epoch", ylim=(0, None))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y", color=GRID)
        axes.legend()
    return buffer.getvalue()


def reliability(bins: Sequence[ReliabilityBin], recipe: str, title: str) -> bytes:
    """Share correct against confidence, in bins; on top of each bar, its share of the images.

    Args:
        bins: from low to high confidence.
        recipe: for the colour.
        title: above the diagram.
    """
    total = sum(row.count for row in bins)
    with diagram(width=4.0, height=4.1) as (figure, buffer):
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
        for row in bins:
            if not row.count:
                continue
            share, middle = row.count / total, (row.lower + row.upper) / 2
            width = 0.9 * (row.upper - row.lower)
            axes.bar(middle, row.accuracy, width, color=COLOURS[recipe], alpha=0.25 + 0.75 * share)
            axes.plot(row.confidence, row.accuracy, "o", color=INK, markersize=3.5)
            text = f"{share:.0%}" if share >= 0.01 else "<1%"
            axes.annotate(
                text, (middle, row.accuracy), (0, 6), textcoords="offset points", ha="center", fontsize=8, color=INK
            )
        axes.set(title=title, xlabel="confidence", ylabel="share correct", xlim=(0, 1), ylim=(0, 1.1))
    return buffer.getvalue()


def pooled(bins: Sequence[Sequence[ReliabilityBin]]) -> list[ReliabilityBin]:
    """The bins of several evaluations as if they were one."""
    from .metrics import ReliabilityBin

    result = []
    for same in zip(*bins, strict=True):
        count = sum(row.count for row in same)
        confidence = sum(row.count * row.confidence for row in same) / max(count, 1)
        accuracy = sum(row.count * row.accuracy for row in same) / max(count, 1)
        result.append(ReliabilityBin(same[0].lower, same[0].upper, count, confidence, accuracy))
    return result


def reliability_of(runs: Sequence[Run], recipe: str, scores: str, title: str) -> bytes:
    """The diagram of a recipe over all its seeds; `scores` is "clean" or "occluded"."""
    return reliability(pooled([getattr(run, scores).bins for run in runs if run.recipe == recipe]), recipe, title)
