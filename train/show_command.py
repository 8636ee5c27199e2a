"""`softfeed show`: pictures of what a recipe does to images."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..pipelines import atomic
from . import data_options

if TYPE_CHECKING:
    from ..pipelines import Recipe
    from .tile_grid import Tile

MOST = 64  # rows, and versions of an image


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the command to the parser of `softfeed`."""
    parser = commands.add_parser(
        "show",
        help="draw what a recipe does to images, and its curves",
        description=(
            "Draw a grid of images: each as evaluation shows it, then several versions as training sees them, each "
            "with its class, its confidence and what was drawn for it; mixed images with the share and confidence of "
            "every sample in them, and the mean of these. The first version is the one that softfeed "
            "train sees in that epoch with that seed, but that a recipe which mixes samples mixes those of the grid. "
            "A second picture has the recipe's curves: softening, strengths, schedules. "
            "Example: softfeed show photos/train --recipe soft-imagenet-ta -o soft.png"
        ),
    )
    parser.add_argument("data", metavar="DATA", help="image folder or converted shard set")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.png", help="where the grid goes")
    parser.add_argument(
        "--curves",
        type=Path,
        metavar="FILE.png",
        help="where the curves go (default: FILE-curves.png, beside the grid)",
    )
    parser.add_argument("--num", type=int, default=5, metavar="N", help="images (default: %(default)s)")
    parser.add_argument("--versions", type=int, default=5, metavar="N", help="versions of each (default: %(default)s)")
    data_options.add_options(parser)
    parser.add_argument(
        "--epochs", type=int, default=100, metavar="N", help="length of the training, for schedules (default: 100)"
    )
    parser.add_argument("--epoch", type=int, default=0, metavar="E", help="which epoch to show (default: the first, 0)")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed of the choice of images and all draws (default: 0)"
    )


def run(args: argparse.Namespace) -> int:
    """Draw as the command line says; the exit status."""
    data_options.check_data(DATA=args.data)
    from ..pipelines.sources import open_source
    from .recipe_curves import curves
    from .tile_grid import grid

    output, beside = args.output, args.curves or args.output.with_name(f"{args.output.stem}-curves.png")
    _check(args, beside)
    recipe, image_size = data_options.recipe(args), data_options.image_size(args)
    source = open_source(args.data)
    if args.num > len(source):
        raise ValueError(f"num must be at most the number of images, {len(source)}, got {args.num}")
    settings = {"num": args.num, "versions": args.versions, "seed": args.seed, "epoch": args.epoch}
    with data_options.in_terms_of_options():
        rows = tiles(args.data, recipe, image_size, **settings)
    name = data_options.recipe_name(args)
    heading = f"{name}, epoch {args.epoch}, seed {args.seed}, {image_size} pixels, {len(source.classes):,} classes"
    picture = grid(rows, ("evaluation", heading))
    options = {"image_size": image_size, "epoch": args.epoch, "epochs": args.epochs}
    diagrams = curves(recipe, num_classes=len(source.classes), **options)
    if diagrams is None and args.curves is not None:
        raise ValueError(f"curves must go with a recipe that has some, got {name}, which leaves labels as they are")
    atomic.write_bytes(output, picture)
    print(f"{output}: {args.num} rows of 1 + {args.versions} images")
    if diagrams is None:
        print(f"no curves: {name} leaves labels as they are")
    else:
        atomic.write_bytes(beside, diagrams)
        print(f"{beside}: curves")
    return 0


def tiles(
    data: str, recipe: Recipe, image_size: int, *, num: int, versions: int, seed: int = 0, epoch: int = 0
) -> list[list[Tile]]:
    """The first images of an epoch: each as evaluation shows it, then versions of it.

    Args:
        data: An image folder or a shard set.
        recipe: What makes the versions.
        image_size: Their side in pixels.
        num: Images, >= 1, at most those of the data set.
        versions: Versions of each, >= 1. The first is the one that training with this seed sees.
        seed: Seed of order and draws.
        epoch: The epoch.
    """
    from ..pipelines import presets

    # Shuffled with the same seed, both begin with the same images.
    options = {"num": num, "seed": seed, "epoch": epoch}
    columns = _versions(data, presets.evaluation(recipe), image_size, **options)
    columns += _versions(data, replace(recipe, views=versions), image_size, **options)
    return [list(row) for row in zip(*columns, strict=True)]


def _versions(data: str, recipe: Recipe, image_size: int, *, num: int, seed: int, epoch: int) -> list[list[Tile]]:
    """The first batch of an epoch as columns of tiles, one for each view."""
    from .. import softops
    from ..pipelines import Loader
    from . import captions, pixels
    from .tile_grid import Tile

    options: dict[str, Any] = {"shuffle": True, "details": True, "index": True, "targets": "soft", "prefetch": 1}
    with Loader(data, recipe, num, image_size, seed=seed, device="cpu", **options) as loader:
        loader.set_epoch(epoch)
        batch = next(iter(loader))
        labels = loader.dataset.targets
        names = [loader.classes[labels[index]] for index in batch.index.tolist()]
        num_classes = loader.num_classes

    def by_view(array: Any) -> Any:
        return array if recipe.views > 1 else array[None]

    levels = by_view(pixels.levels(batch.images, recipe.normalize))
    details = {name: by_view(array) for name, array in batch.details.items()}
    confidence = softops.confidence(details["certainty"], num_classes)

    def tile(view: int, row: int) -> Tile:
        drawn = {name: array[view, row] for name, array in details.items()}
        parts = captions.parts(drawn, names=names, num_classes=num_classes)
        words = captions.words(recipe, drawn, size=image_size, parts=parts)
        if len(parts) < 2:
            return Tile(levels[view][row], names[row], float(confidence[view, row]), words)
        mean = sum(part.share * part.confidence for part in parts)
        return Tile(levels[view][row], f"mean of {len(parts)}", mean, words)

    return [[tile(view, row) for row in range(num)] for view in range(recipe.views)]


def _check(args: argparse.Namespace, beside: Path) -> None:
    """Raise ValueError for values that nothing later would refuse in time."""
    if args.epochs < 1:
        raise ValueError(f"epochs must be at least 1, got {args.epochs}")
    for name, value in (("num", args.num), ("versions", args.versions)):
        if not 1 <= value <= MOST:
            raise ValueError(f"{name} must be in [1, {MOST}], got {value}")
    for name, value in (("seed", args.seed), ("epoch", args.epoch)):
        if value < 0:
            raise ValueError(f"{name} must not be negative, got {value}")
    for name, path in (("output", args.output), ("curves", beside)):
        if path.suffix.lower() != ".png":
            raise ValueError(f"{name} must end in .png, got {path}")
        if not path.parent.is_dir():
            raise ValueError(f"{name} must lie in a folder that exists, got {path}")
        if path.is_dir():
            raise ValueError(f"{name} must be a file, got the folder {path}")
    if beside == args.output:
        raise ValueError(f"curves must go to a file of their own, got {beside}, where the grid goes")
