"""Timing recipes against the plain soft crop: what several benchmarks of single steps share."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch

from ..pipelines import Loader, Recipe, SoftCrop
from .measurement import Contender, measure, write_result

PLAIN = "soft crop"
_SETTINGS = ("batch_size", "image_size", "threads", "device", "epochs")

Options = argparse.Namespace


def compare(
    module: str,
    description: str,
    recipes: Callable[[Options], dict[str, Recipe]],
    others: Callable[[Options], dict[str, Contender]],
    arguments: list[str] | None,
) -> int:
    """Parse a command line, play the soft crop, some recipes and some other contenders in turn, and report ratios.

    Args:
        module: Name of the benchmark's module, for the command.
        description: What `--help` says.
        recipes: What to compare with the plain soft crop, by name.
        others: What else to time, by name.
        arguments: Of the command line; None for those of this process.

    Returns:
        The exit status.
    """
    options = _parse(module, description, arguments)
    played = {PLAIN: Recipe(crop=SoftCrop())} | recipes(options)
    contenders = {name: _loader(recipe, options) for name, recipe in played.items()} | others(options)
    rates = measure(contenders, repeats=options.repeats, report=print)
    plain = np.array(rates[PLAIN].images_per_s)
    ratios = {
        f"{name} / {PLAIN}": float(np.median(np.array(rates[name].images_per_s) / plain))
        for name in played
        if name != PLAIN
    }
    print("\n".join(map(str, rates.values())))
    print("\n".join(f"{name:<60} {ratio:.2f}" for name, ratio in ratios.items()))
    if options.output:
        command = f"python -m softfeed.benchmarks.{module} {options.folder.name} --device {options.device}"
        settings = {name: getattr(options, name) for name in _SETTINGS}
        write_result(options.output, command, rates, {"settings": settings, "ratios": ratios})
    return 0


def _parse(module: str, description: str, arguments: list[str] | None) -> Options:
    parser = argparse.ArgumentParser(prog=f"python -m softfeed.benchmarks.{module}", description=description)
    parser.add_argument("folder", type=Path, help="image folder")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=2, help="passes over the folder per repeat")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    return parser.parse_args(arguments)


def _loader(recipe: Recipe, options: Options) -> Contender:
    settings = {"device": options.device, "num_threads": options.threads}
    loader = Loader(options.folder, recipe, options.batch_size, options.image_size, **settings)

    def epoch() -> Iterable[int]:
        for _ in range(options.epochs):
            for batch in loader:
                yield len(batch.images)
        if loader.device.type == "cuda":
            torch.cuda.synchronize()

    return epoch
