"""Options about data and recipe that several commands share, and what they mean."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..pipelines import preset_names

if TYPE_CHECKING:
    from ..pipelines import Loader, Recipe


def add_recipe_options(parser: argparse.ArgumentParser) -> None:
    """Add --recipe and --image-size."""
    parser.add_argument(
        "--recipe",
        metavar="NAME",
        help=f"augmentation: {preset_names.grammar()} (default: soft-cifar for square raw images, else soft-imagenet)",
    )
    parser.add_argument(
        "--image-size", type=int, metavar="S", help="pixels a side (default: a raw shard set's own size, else 224)"
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add --recipe, --image-size, --mollify-label and --sigma-decay-epochs."""
    add_recipe_options(parser)
    parser.add_argument(
        "--mollify-label",
        choices=("smooth", "degrade", "add", "add+smooth"),
        help="what a recipe with mollification does with the certainty that it takes: spread it over all classes, drop "
        "it, or give it to an extra class, beside the label or out of it (default: smooth)",
    )
    parser.add_argument(
        "--sigma-decay-epochs",
        type=int,
        default=0,
        metavar="N",
        help="divide a soft crop's sigma by 1000 for the last N epochs (the paper: 20 on CIFAR-100)",
    )


def add_resize_option(parser: argparse.ArgumentParser, *, default: str) -> None:
    """Add --resize; `default` says what it is without."""
    parser.add_argument(
        "--resize",
        type=int,
        metavar="S",
        help="in evaluation, pixels that the shorter side of an image is resized to before its centre is cut out; 256 "
        f"for images of 224 pixels is what torchvision's published scores are of (default: {default})",
    )


def check_resize(resize: int | None, image_size: int) -> None:
    """Raise ValueError if `add_resize_option` was given less than what is cut out; None is the same."""
    if resize is not None and resize < image_size:
        raise ValueError(f"resize must be at least image_size, {image_size}, got {resize}")


def add_fault_options(parser: argparse.ArgumentParser) -> None:
    """Add --on-error, --max-errors and --read-timeout."""
    parser.add_argument(
        "--on-error",
        choices=("raise", "skip"),
        default="raise",
        help="what becomes of an image that cannot be read or decoded: end with an error that names it, or go on "
        "without it and list it at the end (default: raise)",
    )
    parser.add_argument(
        "--max-errors",
        type=float,
        default=0.01,
        metavar="N",
        help="images that each process may skip: a number, or a share of the data below 1 (default: 0.01)",
    )
    parser.add_argument(
        "--read-timeout",
        type=float,
        default=300.0,
        metavar="S",
        help="seconds in which not one image is read before an error says where reading hangs; 0 for any time "
        "(default: 300)",
    )


def fault_settings(args: argparse.Namespace) -> dict[str, Any]:
    """What `add_fault_options` was given, as arguments of the loader.

    Raises:
        ValueError: if the time is out of range.
    """
    if not 0 <= args.read_timeout < float("inf"):
        raise ValueError(f"read-timeout must be finite and not negative, got {args.read_timeout}")
    return {"on_error": args.on_error, "max_errors": args.max_errors, "timeout": args.read_timeout or None}


def add_speed_options(parser: argparse.ArgumentParser) -> None:
    """Add --prefetch, --hw-decoder-load, --roi-decode and --fancy-upsampling, of which `softfeed tune` tells more."""
    parser.add_argument("--prefetch", type=int, metavar="N", help="batches kept ahead (default: 2, on a GPU 3)")
    parser.add_argument(
        "--hw-decoder-load",
        type=float,
        default=0.65,
        metavar="SHARE",
        help="share of the images that a GPU's JPEG engines decode, in [0, 1] (default: 0.65)",
    )
    parser.add_argument(
        "--roi-decode",
        action=argparse.BooleanOptionalAction,
        help="decode only the visible part of each image (default: wherever that works, as tried once on each GPU)",
    )
    parser.add_argument(
        "--fancy-upsampling",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="have a GPU interpolate the subsampled chroma of training images, as CPUs do and as validation and "
        "softfeed eval always do; without, it may be quicker, but pixels at edges between colours change (default: do)",
    )


def speed_settings(args: argparse.Namespace) -> dict[str, Any]:
    """What `add_speed_options` was given, as arguments of the loader."""
    names = ("prefetch", "hw_decoder_load", "roi_decode", "fancy_upsampling")
    return {name: getattr(args, name) for name in names}


def as_options(settings: dict[str, Any]) -> str:
    """Settings of the loader as options of `softfeed train`."""
    names = {"num_threads": "threads"}
    words = []
    for name, value in settings.items():
        option = names.get(name, name).replace("_", "-")
        words.append(f"--{'' if value else 'no-'}{option}" if isinstance(value, bool) else f"--{option} {value}")
    return " ".join(words)


def recipe_name(args: argparse.Namespace) -> str:
    """Name of the recipe that was asked for, or the default for the data."""
    shape = _raw_shape(args.data)
    return args.recipe or ("soft-cifar" if shape is not None and shape[0] == shape[1] else "soft-imagenet")


def recipe(args: argparse.Namespace) -> Recipe:
    """The recipe that was asked for, with its schedule over `args.epochs` epochs.

    Raises:
        ValueError: if there is no such recipe, or the schedule does not fit.
    """
    from ..pipelines import presets

    named = presets.by_name(recipe_name(args))
    if not 0 <= args.sigma_decay_epochs <= args.epochs:
        raise ValueError(f"sigma-decay-epochs must be in [0, {args.epochs}], got {args.sigma_decay_epochs}")
    if args.sigma_decay_epochs:
        named = presets.with_sigma_decay(named, epoch=args.epochs - args.sigma_decay_epochs)
    if args.mollify_label is not None:
        if named.mollify is None:
            raise ValueError(f"mollify-label must go with a recipe that mollifies, got {recipe_name(args)}; add -moll")
        named = replace(named, mollify=replace(named.mollify, label=args.mollify_label))
    return named


def image_size(args: argparse.Namespace) -> int:
    """Pixels a side that were asked for, or the default for the data."""
    if args.image_size is not None:
        return args.image_size
    from ..pipelines.sources import usual_size

    return usual_size(_raw_shape(args.data))


def check_data(**folders: str | None) -> None:
    """Raise FileNotFoundError for data that is not there, by the name of its argument; None is not asked for."""
    for name, folder in folders.items():
        if folder is not None and not Path(folder).exists():
            raise FileNotFoundError(
                f"{name} must be an image folder or a shard set, got {folder}, which does not exist; check the path"
            )


@contextmanager
def in_terms_of_options() -> Iterator[None]:
    """Errors of the loader with advice that fits the command line, which has no crops and no `last_batch`."""
    try:
        yield
    except ValueError as error:
        text = str(error).replace("use a smaller batch or last_batch='fill'", "use a smaller --batch-size")
        text = text.replace(" or last_batch='fill'", "")
        if "must be the images' own size" in text:
            text = text.removesuffix("; use a crop that resizes, such as SoftCrop")
            text += "; give that as --image-size if it is square, or choose --recipe soft-imagenet for any size"
        if text == str(error):
            raise
        raise ValueError(text) from error


@contextmanager
def classes_of(owner: str, *, option: str) -> Iterator[None]:
    """Errors about data whose classes are not those that its loader was given, in terms of where these are from."""
    try:
        yield
    except ValueError as error:
        text = str(error)
        if not text.startswith("data must have no classes but"):
            raise
        text = option + text.removeprefix("data").replace(" given, got ", f" of {owner}, got ", 1)
        raise ValueError(text) from error


def told_of_empty_classes(loader: Loader, *, option: str) -> list[str]:
    """A line about classes of which the data has no image, if there are any."""
    from ..pipelines.sources import named

    held = set(loader.dataset.targets)
    empty = [name for label, name in enumerate(loader.classes) if label not in held]
    return [f"{option} has no image of {named(empty)}, of {loader.num_classes:,} classes"] if empty else []


def check_own_size(loader: Loader) -> None:
    """Raise ValueError where a crop that does not resize cannot take the images, if that can be told before reading.

    A shard set's table has their sizes. Of an image folder only the first image is asked.
    """
    from ..pipelines.shards import shard_set

    if loader.recipe.crop.resizes:
        return
    size, root = loader.image_size, loader.dataset.root
    if shard_set.is_shard_set(root):
        table = shard_set.load(root).samples
        wrong = (table["height"] > 0) & ((table["height"] != size) | (table["width"] != size))
        index = int(wrong.argmax())
        shape = (int(table["height"][index]), int(table["width"][index])) if wrong.any() else (size, size)
    else:
        index, shape = 0, _file_shape(loader.source(0)) or (size, size)
    if shape != (size, size):
        raise ValueError(
            f"image_size must be the images' own size with {type(loader.recipe.crop).__name__}, got {size} for "
            f"{shape[0]}x{shape[1]} in {loader.source(index)}"
        )


def _file_shape(path: str) -> tuple[int, int] | None:
    """Height and width of an image file in pixels, as stored; None for one that the loader has to judge."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.height, image.width
    except OSError:
        return None


def _raw_shape(data: str) -> tuple[int, int] | None:
    """Height and width of a raw shard set's images in pixels; None for encoded images."""
    from ..pipelines.shards import shard_set

    if not shard_set.is_shard_set(data):
        return None
    raw_shape = shard_set.load(data).manifest.raw_shape
    return None if raw_shape is None else (raw_shape[0], raw_shape[1])
