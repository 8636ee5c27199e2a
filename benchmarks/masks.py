"""What masks cost: the soft crop with each mask against the soft crop without, in images per second.

`python -m softfeed.benchmarks.masks IMAGE_FOLDER` plays all of them in turn. After the loaders it blanks finished
batches in place with numpy, as one square per image and as 32 cells per image, which is the other way that there is to
set pixels of a batch to 0 on a CPU.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

import numpy as np

from ..pipelines import Cutout, GridMask, HideAndSeek, Occlude, RandomErasing, Recipe, SoftCrop
from .errors import in_one_line
from .measurement import Contender
from .recipes import Options, compare


def _recipes(options: Options) -> dict[str, Recipe]:
    size = options.image_size
    masks = {
        "occlusion, drawn share": Occlude(share=(0.0, 0.8)),
        "random erasing": RandomErasing(),
        "cutout, half the side": Cutout(side=size // 2),
        "hide-and-seek, 4 x 4 cells": HideAndSeek(grid=4),
        "hide-and-seek, 16 x 16 cells": HideAndSeek(grid=16),
        "gridmask": GridMask(spacing=(size * 3 // 7, size)),
    }
    return {name: Recipe(crop=SoftCrop(), occlude=mask) for name, mask in masks.items()}


def _in_place(cells: int, options: Options) -> Contender:
    """Blank every second of `cells` x `cells` cells of each image of a batch."""
    size = options.image_size
    images = np.ones((options.batch_size, 3, size, size), np.float32)
    side = size // cells
    corners = [(row, column) for row in range(cells) for column in range(cells) if (row + column) % 2 == 0]

    def epoch() -> Iterable[int]:
        for image in images:
            for row, column in corners:
                image[:, row * side : (row + 1) * side, column * side : (column + 1) * side] = 0
        yield len(images)

    return epoch


def _others(options: Options) -> dict[str, Contender]:
    return {"in place, whole image": _in_place(1, options), "in place, 32 cells": _in_place(8, options)}


@in_one_line
def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; returns the exit status."""
    return compare("masks", __doc__ or "", _recipes, _others, arguments)


if __name__ == "__main__":
    sys.exit(main())
