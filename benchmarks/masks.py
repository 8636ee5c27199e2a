"""What masks cost: the soft crop with each mask against the soft crop without, in images per second.

`python -m softfeed.benchmarks.masks IMAGE_FOLDER` plays all of them in turn. After the loaders it blanks finished
batches in place with numpy, as one square per image and as 32 cells per image, which is the other way that there is to
set pixels of a batch to 0 on a CPU.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from ..pipelines import Cutout, GridMask, HideAndSeek, Loader, Occlude, RandomErasing, Recipe, SoftCrop
from .measurement import Contender, measure, write_result


def _recipes(size: int) -> dict[str, Recipe]:
    masks = {
        "occlusion, drawn share": Occlude(share=(0.0, 0.8)),
        "random erasing": RandomErasing(),
        "cutout, half the side": Cutout(side=size // 2),
        "hide-and-seek, 4 x 4 cells": HideAndSeek(grid=4),
        "hide-and-seek, 16 x 16 cells": HideAndSeek(grid=16),
        "gridmask": GridMask(spacing=(size * 3 // 7, size)),
    }
    return {"soft crop": Recipe(SoftCrop())} | {name: Recipe(SoftCrop(), occlude=mask) for name, mask in masks.items()}


def _loader(recipe: Recipe, options: argparse.Namespace) -> Contender:
    loader = Loader(
        options.folder,
        recipe,
        options.batch_size,
        options.image_size,
        device=options.device,
        num_threads=options.threads,
    )

    def epoch() -> Iterable[int]:
        for _ in range(options.epochs):
            for batch in loader:
                yield len(batch.images)
        if loader.device.type == "cuda":
            torch.cuda.synchronize()

    return epoch


def _in_place(cells: int, options: argparse.Namespace) -> Contender:
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


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m softfeed.benchmarks.masks", description=__doc__)
    parser.add_argument("folder", type=Path, help="image folder")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=2, help="passes over the folder per repeat")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    options = parser.parse_args(arguments)
    recipes = _recipes(options.image_size)
    contenders = {name: _loader(recipe, options) for name, recipe in recipes.items()}
    contenders |= {"in place, whole image": _in_place(1, options), "in place, 32 cells": _in_place(8, options)}
    rates = measure(contenders, repeats=options.repeats, report=print)
    plain = np.array(rates["soft crop"].images_per_s)
    ratios = {
        f"{name} / soft crop": float(np.median(np.array(rates[name].images_per_s) / plain))
        for name in recipes
        if name != "soft crop"
    }
    print("\n".join(map(str, rates.values())))
    print("\n".join(f"{name:<60} {ratio:.2f}" for name, ratio in ratios.items()))
    if options.output:
        command = f"python -m softfeed.benchmarks.masks {options.folder.name} --device {options.device}"
        settings = {
            name: getattr(options, name) for name in ("batch_size", "image_size", "threads", "device", "epochs")
        }
        write_result(options.output, command, rates, {"settings": settings, "ratios": ratios})
    return 0


if __name__ == "__main__":
    sys.exit(main())
