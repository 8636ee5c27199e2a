"""The suite `operations`: what softness and each operation cost, all with the same settings."""

from __future__ import annotations

import argparse
from dataclasses import replace

from ..pipelines import (
    AdditiveNoise,
    AugMix,
    AutoAugment,
    CopyPaste,
    CutMix,
    Cutout,
    GridMask,
    HideAndSeek,
    Mixup,
    Mollify,
    Mosaic,
    Occlude,
    RandAugment,
    RandomErasing,
    Recipe,
    TrivialAugment,
    presets,
)
from ..pipelines.sources import open_source
from .measurement import Contender, Here
from .rates import Rate, Ratio, ratio
from .result import Result
from .session import EVERYTHING, FULL, Session, recipe_by_name
from .steps import of_loader, rung
from .verdict import of_epochs

SOFT, HARD, HARD_FULL, DECODE_ONLY = "soft crop", "hard crop", f"{FULL}, hard crop", "graph up to the resize"


def run(session: Session, args: argparse.Namespace) -> Result:
    """Measure the suite."""
    source = open_source(session.played.data)
    session.check_batch(len(source))
    raw = source.raw_shape is not None
    contenders: dict[str, Contender] = {
        name: Here(of_loader(session.played.loader(recipe)))
        for name, recipe in recipes(session.played.image_size, raw=raw).items()
    }
    if not raw:
        contenders[DECODE_ONLY] = Here(rung(replace(session.played, recipe=presets.by_name("soft-imagenet")), "resize"))
    rates, cache = session.measure(contenders, source.files, often=(SOFT, HARD, FULL))
    words = of_epochs(len(source), session.played.batch_size)
    return session.result("operations", list(rates.values()), cache=cache, ratios=ratios(rates), verdict=words)


def recipes(size: int, *, raw: bool) -> dict[str, Recipe]:
    """The recipes to play, by name: the crops, each operation with the soft crop, the full recipe, and all.

    Args:
        size: Side of the output in pixels.
        raw: Whether the images are small raw ones, which are shifted instead of resized.
    """
    kind = "cifar" if raw else "imagenet"
    soft, hard = presets.by_name(f"soft-{kind}"), presets.by_name(f"hard-{kind}")
    full = recipe_by_name(FULL, raw=raw)
    alone = {
        "TrivialAugment": {"policy": TrivialAugment()},
        "RandAugment": {"policy": RandAugment()},
        "AutoAugment": {"policy": AutoAugment()},
        "AugMix": {"policy": AugMix()},
        "occlusion": {"occlude": Occlude(share=(0.0, 0.8))},
        "random erasing": {"occlude": RandomErasing()},
        "Cutout, half the side": {"occlude": Cutout(side=max(1, size // 2))},
        "Hide-and-Seek, 4 x 4 cells": {"occlude": HideAndSeek(grid=4)},
        "GridMask": {"occlude": GridMask(spacing=(max(2, size * 3 // 7), size))},
        "mixup": {"mix": Mixup()},
        "CutMix": {"mix": CutMix()},
        "copy-paste": {"mix": CopyPaste()},
        "mosaic": {"mix": Mosaic()},
        "additive noise": {"noise": AdditiveNoise()},
        "mollification": {"mollify": Mollify()},
        "every image noisy": {"mollify": Mollify(clean=0, noise=1, blur=0)},
        "every image blurred": {"mollify": Mollify(clean=0, noise=0, blur=1)},
        "two views": {"views": 2},
    }
    return {
        SOFT: soft,
        HARD: hard,
        **{f"{SOFT}, {name}": replace(soft, **slots) for name, slots in alone.items()},
        FULL: full,
        HARD_FULL: replace(full, crop=hard.crop),
        EVERYTHING: recipe_by_name(EVERYTHING, raw=raw),
    }


def ratios(rates: dict[str, Rate]) -> list[Ratio]:
    """Soft over hard, and each operation over the soft crop alone, of those that were measured."""
    pairs = [(SOFT, HARD), (FULL, HARD_FULL), (FULL, SOFT), (EVERYTHING, SOFT)]
    pairs += [(name, SOFT) for name in rates if name.startswith(f"{SOFT}, ")]
    pairs += [(SOFT, DECODE_ONLY), (FULL, DECODE_ONLY)]
    return [ratio(rates[above], rates[below]) for above, below in pairs if above in rates and below in rates]
