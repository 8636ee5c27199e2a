"""The look of all diagrams, and how they become PNG."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HARD, SOFT = "#33658a", "#d1603d"
INK, FAINT, GRID = "#22272e", "#8b949e", "#e6e8eb"
_STYLE: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so the pictures are the same everywhere
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
}


@contextmanager
def diagram(*, width: float, height: float) -> Iterator[tuple[Figure, io.BytesIO]]:
    """A figure to draw on, and a buffer that holds the PNG once the block is left; sizes in inches."""
    # Not pyplot, which keeps every figure alive and looks for a display.
    import matplotlib
    from matplotlib.figure import Figure

    buffer = io.BytesIO()
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, buffer
        figure.savefig(buffer, dpi=170, format="png", metadata={"Software": None})
