"""What the demonstration's runs say: means, ranges over the seeds, and which recipe, if either, did better."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .comparison import OCCLUSION, RECIPES, Run

UNCLEAR = "unclear"


@dataclass(frozen=True)
class Metric:
    """One row of the table.

    Attributes:
        name: what it is called.
        of: the number of one run.
        text: format of the number.
        higher_is_better: or lower.
    """

    name: str
    of: Callable[[Run], float]
    text: str
    higher_is_better: bool


METRICS = (
    Metric("top-1", lambda run: run.clean.top1, "{:.1%}", higher_is_better=True),
    Metric("ECE", lambda run: run.clean.ece, "{:.3f}", higher_is_better=False),
    Metric("NLL", lambda run: run.clean.nll, "{:.3f}", higher_is_better=False),
    Metric(f"top-1, {OCCLUSION:.0%} hidden", lambda run: run.occluded.top1, "{:.1%}", higher_is_better=True),
    Metric(f"ECE, {OCCLUSION:.0%} hidden", lambda run: run.occluded.ece, "{:.3f}", higher_is_better=False),
)


def values(runs: Sequence[Run], recipe: str, metric: Metric) -> list[float]:
    """A metric of every run of a recipe, in the order of the runs."""
    return [metric.of(run) for run in runs if run.recipe == recipe]


def cell(numbers: Sequence[float], metric: Metric) -> tuple[str, str]:
    """Mean, and lowest and highest value, as text; the latter is empty for a single value."""
    mean, low, high = (
        metric.text.format(number) for number in (sum(numbers) / len(numbers), min(numbers), max(numbers))
    )
    return mean, f"{low.removesuffix('%')} to {high}" if len(numbers) > 1 else ""


def better(runs: Sequence[Run], metric: Metric) -> str:
    """The recipe whose every run beats every run of the other, else "unclear"; one seed leaves it unclear."""
    hard, soft = (values(runs, recipe, metric) for recipe in ("hard", "soft"))
    if len(hard) < 2 or len(soft) < 2:
        return UNCLEAR
    sign = 1 if metric.higher_is_better else -1
    hard, soft = [sign * value for value in hard], [sign * value for value in soft]
    if min(hard) > max(soft):
        return "hard"
    return "soft" if min(soft) > max(hard) else UNCLEAR


def summary(runs: Sequence[Run]) -> str:
    """What the table says, in one or two sentences."""
    seeds = len({run.seed for run in runs})
    if seeds < 2:
        return "One seed says nothing about chance, so neither recipe is called better; more seeds would tell."
    parts = []
    for recipe in RECIPES:
        names = [metric.name for metric in METRICS if better(runs, metric) == recipe]
        if names:
            parts.append(f"the {recipe} recipe was better in {_listed(names)}")
    names = [metric.name for metric in METRICS if better(runs, metric) == UNCLEAR]
    text = f"Whatever the seed, {', and '.join(parts)}. " if parts else ""
    if names:
        text += f"In {_listed(names)} the ranges over the {seeds} seeds overlap, so no difference is shown."
    return text.strip()


def table(runs: Sequence[Run]) -> str:
    """The table for a terminal: a line for each metric, mean and range over the seeds."""
    rows = [("", *RECIPES, "better")]
    for metric in METRICS:
        cells = [cell(values(runs, recipe, metric), metric) for recipe in RECIPES]
        rows.append(
            (metric.name, *(f"{mean} ({span})" if span else mean for mean, span in cells), better(runs, metric))
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def _listed(names: Sequence[str]) -> str:
    quoted = [f"“{name}”" if "," in name else name for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]}"
