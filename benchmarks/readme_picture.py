"""The picture in the README: photographs, the windows that the soft crop draws on them, and what comes out.

`python -m softfeed.benchmarks.readme_picture OUT.png [IMAGE_FOLDER]` takes the first image of each of the first two
classes of a folder; without one, scikit-learn's two photographs.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from .. import softops
from ..pipelines import Loader, presets
from ..pipelines.shards.sources.folder import scan_image_folder
from ..train import pixels
from .program import in_one_line

SIZE = 224  # pixels, as networks for ImageNet take them
NUM_CLASSES = 1000  # ImageNet's
TILES = 4  # per photograph
DRAWS = 60  # per photograph, of which the tiles are chosen evenly by visibility
COLOURS = ("#0b8a6f", "#2f6fed", "#e8871e", "#c2185b")
_INK, _DIM = "#22272e", "#5b6570"


@dataclass(frozen=True)
class Draw:
    """One softly cropped image.

    Attributes:
        image: uint8 (224, 224, 3).
        window: left, top, width, height in pixels of the photograph.
        visibility: share of the photograph that is left, in [0, 1].
        confidence: what the label keeps, in [1/1000, 1].
    """

    image: np.ndarray
    window: np.ndarray
    visibility: float
    confidence: float


def draws(folder: Path, *, seed: int) -> list[list[Draw]]:
    """`DRAWS` soft crops of each photograph in an image folder, by the preset's recipe without its flip."""
    recipe = replace(presets.by_name("soft-imagenet"), flip=None)
    with Loader(folder, recipe, 2, SIZE, seed=seed, device="cpu", shuffle=False, details=True) as loader:
        batches = [next(iter(loader)) for _ in range(DRAWS)]  # every `iter` is a new epoch with new draws
    photographs: list[list[Draw]] = [[], []]
    for batch in batches:
        levels = pixels.levels(batch.images, recipe.normalize)
        visibility = batch.details["visibility"]
        confidence = softops.confidence(recipe.crop.certainty(visibility), NUM_CLASSES)
        for row, made in enumerate(photographs):
            window = batch.details["window"][row]
            made.append(Draw(levels[row], window, float(visibility[row]), float(confidence[row])))
    return photographs


def chosen(made: Sequence[Draw]) -> list[Draw]:
    """`TILES` of the draws, from much to little visible, evenly spread from the 96th percentile to the 4th."""
    ranked = sorted(made, key=lambda draw: -draw.visibility)
    ranks = np.linspace(0.04, 0.96, TILES) * (len(ranked) - 1)
    return [ranked[round(rank)] for rank in ranks]


def picture(photographs: Sequence[tuple[np.ndarray, Sequence[Draw]]]) -> bytes:
    """The picture as PNG, 1,660 pixels wide: a row for each photograph with its draws."""
    style: Any = {"font.family": "DejaVu Sans", "text.color": _INK, "axes.titlesize": 17, "axes.titlepad": 12}
    buffer = io.BytesIO()
    with matplotlib.rc_context(style):
        rows = len(photographs)
        figure = Figure(figsize=(16.6, 0.45 + 3.4 * rows), facecolor="white")
        grid = figure.add_gridspec(rows, TILES + 1, width_ratios=[1.75, *[1] * TILES], wspace=0.07, hspace=0.3)
        grid.update(left=0.005, right=0.995, bottom=0.1, top=0.93)
        for row, (photograph, made) in enumerate(photographs):
            axes = figure.add_subplot(grid[row, 0])
            _draw_photograph(axes, photograph, made)
            tiles = [figure.add_subplot(grid[row, column]) for column in range(1, TILES + 1)]
            for tile, draw, colour in zip(tiles, made, COLOURS, strict=True):
                _draw_tile(tile, draw, colour)
            if row == 0:
                figure.text(0.005, 0.955, "photograph, four windows drawn", fontsize=17)
                figure.text(tiles[0].get_position().x0, 0.955, "what the network gets", fontsize=17)
        figure.savefig(buffer, dpi=100)
    # 256 colours chosen for the picture: a third of the size, and no difference at this scale.
    small = Image.open(buffer).convert("RGB").quantize(256, method=Image.Quantize.MEDIANCUT)
    buffer = io.BytesIO()
    small.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _draw_photograph(axes: Axes, photograph: np.ndarray, made: Sequence[Draw]) -> None:
    height, width = photograph.shape[:2]
    axes.imshow(photograph)
    axes.add_patch(Rectangle((0, 0), width, height, fill=False, lw=1, ec="#9aa3ad"))
    windows = np.array([draw.window for draw in made])
    for (left, top, window_width, window_height), colour in zip(windows.tolist(), COLOURS, strict=True):
        for line, edge in ((5.0, "white"), (3.0, colour)):
            axes.add_patch(Rectangle((left, top), window_width, window_height, fill=False, lw=line, ec=edge))
    first = np.minimum(windows[:, :2].min(axis=0), 0) - 8
    last = np.maximum((windows[:, :2] + windows[:, 2:]).max(axis=0), (width, height)) + 8
    axes.set(xlim=(first[0], last[0]), ylim=(last[1], first[1]), anchor="W")
    axes.axis("off")


def _draw_tile(axes: Axes, draw: Draw, colour: str) -> None:
    axes.imshow(draw.image)
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color=colour, linewidth=5)
    place = {"transform": axes.transAxes, "va": "top", "fontsize": 17}
    axes.text(0, -0.05, f"{draw.visibility:.0%} visible", color=_DIM, **place)
    axes.text(0, -0.155, f"confidence {draw.confidence:.2f}", fontweight="bold", **place)


def _sample_folder(folder: Path) -> Path:
    """scikit-learn's two photographs as an image folder."""
    from sklearn.datasets import load_sample_images

    sample = load_sample_images()
    for name, image in zip(sample.filenames, sample.images, strict=True):
        target = folder / Path(name).stem / "photograph.png"
        target.parent.mkdir()
        Image.fromarray(image).save(target)
    return folder


def _two_photographs(folder: Path, target: Path) -> Path:
    """The first image of each of the first two classes, in a folder of their own."""
    paths, labels, classes = scan_image_folder(folder)
    if len(classes) < 2:
        raise ValueError(f"image_folder must have two classes, got {len(classes)} in {folder}")
    for label, name in enumerate(classes[:2]):
        path = Path(paths[labels.tolist().index(label)])
        (target / name).mkdir()
        (target / name / path.name).write_bytes(path.read_bytes())
    return target


@in_one_line
def main(argv: Sequence[str] | None = None) -> int:
    """Draw the picture; the exit status."""
    parser = argparse.ArgumentParser(description="Draw the README's picture of the soft crop.")
    parser.add_argument("out", type=Path, metavar="OUT.png")
    parser.add_argument("image_folder", type=Path, nargs="?", metavar="IMAGE_FOLDER")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as temporary:
        target = Path(temporary)
        folder = _two_photographs(args.image_folder, target) if args.image_folder else _sample_folder(target)
        images = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(folder.glob("*/*"))]
        made = [chosen(some) for some in draws(folder, seed=args.seed)]
        args.out.write_bytes(picture(list(zip(images, made, strict=True))))
    print(f"{args.out}: {args.out.stat().st_size / 1000:,.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
