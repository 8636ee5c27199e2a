"""Results as pictures."""

from __future__ import annotations

from collections.abc import Sequence

from ..train.diagram import GRID, HARD, INK, SOFT, diagram
from .rates import Rate
from .steps import Step, spreads_of

_MANY = 8  # points of a curve from which on they lie evenly, so that not each has a tick of its own
_LINES = "(lines: lowest to highest repeat; what crosses 0 is noise)"


def bars(rates: Sequence[Rate], title: str, *, marked: str = "") -> bytes:
    """A bar for each contender's median images/s, with a line from the slowest to the fastest repeat, as PNG.

    Args:
        rates: From top to bottom.
        title: Above the bars.
        marked: Contenders whose names begin so have a colour of their own.
    """
    with diagram(width=7.5, height=1.2 + 0.36 * len(rates)) as (figure, buffer):
        axes = figure.add_subplot()
        for row, rate in enumerate(rates):
            low, high = rate.spread
            colour = SOFT if marked and rate.name.startswith(marked) else HARD
            axes.barh(row, rate.median, color=colour, height=0.7)
            axes.plot([low, high], [row, row], color=INK, linewidth=1.2)
            axes.annotate(
                f"{rate.median:,.0f}", (max(rate.median, high), row), (4, 0), textcoords="offset points", va="center"
            )
        axes.set_yticks(range(len(rates)), [rate.name for rate in rates])
        axes.invert_yaxis()
        axes.set(title=title, xlabel="images/s")
        axes.margins(x=0.15)
        axes.grid(axis="x", color=GRID)
        axes.set_axisbelow(True)
    return buffer.getvalue()


def added(steps: Sequence[Step], title: str, rates: Sequence[Rate]) -> bytes:
    """The time per image that each step adds, by the clock and of all cores together, as PNG.

    A line goes from the lowest to the highest repeat: where it crosses zero, what the step adds is not known.

    Args:
        steps: From top to bottom.
        title: Above the bars.
        rates: With those of the steps, from which the lines are.
    """
    spreads = spreads_of({rate.name: rate for rate in rates}, steps)
    with diagram(width=7.5, height=1.6 + 0.45 * len(steps)) as (figure, buffer):
        axes = figure.add_subplot()
        rows = range(len(steps))
        axes.barh([row - 0.19 for row in rows], [step.wall_us for step in steps], 0.36, color=SOFT, label="clock")
        axes.barh([row + 0.19 for row in rows], [step.cpu_us for step in steps], 0.36, color=HARD, label="CPU")
        for row, lines in enumerate(spreads):
            for place, line in zip((row - 0.19, row + 0.19), lines, strict=True):
                axes.plot(line, [place, place], color=INK, linewidth=1.2)
        axes.set_yticks(rows, [f"{step.name}\n{step.images_per_s:,.0f} images/s" for step in steps], fontsize=9)
        axes.invert_yaxis()
        axes.set(
            title=title,
            xlabel=f"microseconds per image that the step adds\n{_LINES}",
        )
        axes.grid(axis="x", color=GRID)
        axes.set_axisbelow(True)
        axes.legend()
    return buffer.getvalue()


def curves(panels: dict[str, dict[str, list[list[float]]]], titles: dict[str, str]) -> bytes:
    """A panel for each of several dependencies, as PNG.

    Args:
        panels: By the name of the horizontal axis, the lines by their name: points (x, median, low, high), images/s.
        titles: Label of the vertical axis, by the name of the horizontal one; "images/s" where there is none.
    """
    with diagram(width=4.2 * len(panels), height=3.6) as (figure, buffer):
        for axes, (name, lines) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
            for colour, (label, points) in zip((SOFT, HARD, INK), lines.items(), strict=False):
                x, median, low, high = zip(*points, strict=True)
                axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
                axes.plot(x, median, "o-", color=colour, label=label, linewidth=1.6, markersize=4)
            if len(x) > _MANY:
                axes.set_xlim(0, None)
            elif max(x) >= 8 * min(x):
                axes.set_xscale("log", base=10 if max(x) >= 1000 else 2)
            else:
                axes.set_xticks(x)
            axes.set(xlabel=name, ylabel=titles.get(name, "images/s"))
            axes.set_ylim(0, 1.1 * max(axes.get_ylim()))
            axes.grid(axis="y", color=GRID)
            axes.legend()
    return buffer.getvalue()
