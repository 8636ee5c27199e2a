"""Recipes by name."""

from __future__ import annotations

import difflib
import runpy
from dataclasses import replace
from itertools import product
from pathlib import Path

from . import preset_names
from .augmix import AugMix
from .crops import CenterCrop, PadCrop, RandomResizedCrop, SoftCrop, SoftShift
from .mixing import CopyPaste, CutMix, Mixup, Mosaic
from .mollify import Mollify
from .occlusion import Occlude
from .policies import AutoAugment, RandAugment, TrivialAugment
from .recipe import Normalize, Recipe
from .schedules import Schedule, StepDecay

# Mean and standard deviation of CIFAR-100's training images
CIFAR = Normalize(mean=(0.5071, 0.4865, 0.4409), std=(0.2673, 0.2564, 0.2762))

_CROPS = {
    "soft-imagenet": Recipe(crop=SoftCrop()),
    "hard-imagenet": Recipe(crop=RandomResizedCrop()),
    "soft-cifar": Recipe(crop=SoftShift(), normalize=CIFAR),
    "hard-cifar": Recipe(crop=PadCrop(), normalize=CIFAR),
}
# What each part of a name behind the crop stands for, for ImageNet and for CIFAR where the papers' settings differ
_POLICIES = {
    "": (None, None),
    "-ra": (RandAugment(), RandAugment()),
    "-ta": (TrivialAugment(), TrivialAugment()),
    "-aa": (AutoAugment(), AutoAugment("reduced_cifar10")),
    "-augmix": (AugMix(severity=1), AugMix(severity=3)),
}
_MIXES = {
    "": (None, None),
    "-mixup": (Mixup(alpha=0.2), Mixup(alpha=1.0)),
    "-cutmix": (CutMix(), CutMix(probability=0.5)),
    "-copypaste": (CopyPaste(), CopyPaste()),
    "-mosaic": (Mosaic(), Mosaic()),
}
_MOLLIFY = {"": None, "-moll": Mollify()}
_PRESETS = {
    crop + policy + mix + mollify: replace(
        _CROPS[crop],
        policy=_POLICIES[policy][crop.endswith("cifar")],
        mix=_MIXES[mix][crop.endswith("cifar")],
        mollify=_MOLLIFY[mollify],
    )
    for crop, policy, mix, mollify in product(
        preset_names.CROPS,
        ("", *preset_names.POLICIES),
        ("", *preset_names.MIXES),
        ("", *preset_names.MOLLIFY),
    )
}


def names() -> list[str]:
    """All names that `by_name` knows, sorted."""
    return sorted(_PRESETS)


def by_name(name: str) -> Recipe:
    """A training recipe: `soft-` or `hard-`, then `imagenet` (crop-and-resize) or `cifar` (fixed size); or one's own.

    Args:
        name: For instance "soft-imagenet". Behind it, in this order, may follow a policy, "-ra" (RandAugment), "-ta"
            (TrivialAugment), "-aa" (AutoAugment) or "-augmix"; a mix, "-mixup", "-cutmix", "-copypaste" or "-mosaic";
            and "-moll" for mollification: "soft-imagenet-ta-cutmix-moll". Or "FILE.py:NAME" for a `Recipe` of this name
            in a Python file, which is run.

    Raises:
        TypeError: if that is no text.
        FileNotFoundError: if there is no such file.
        ValueError: if there is no such name; the message lists the nearest.
    """
    if not isinstance(name, str):
        raise TypeError(f"recipe must be the name of a preset, such as 'soft-imagenet', got {name!r}")
    file, colon, own = name.rpartition(":")
    if colon and file.endswith(".py"):
        return _from_file(Path(file), own)
    if name in _PRESETS:
        return _PRESETS[name]
    if colon:
        raise ValueError(f"recipe must be a preset, or FILE.py:NAME with the name of a Python file, got {name!r}")
    reordered = [known for known in names() if sorted(known.split("-")) == sorted(name.split("-"))]
    near = reordered or difflib.get_close_matches(name, names(), n=3) or sorted(_CROPS)
    raise ValueError(f"recipe must be one of the presets, got {name!r}; did you mean {' or '.join(near)}?")


def _from_file(file: Path, name: str) -> Recipe:
    """A recipe that somebody wrote down in Python."""
    if not file.is_file():
        raise FileNotFoundError(f"recipe must be in a file that exists, got {file}; check the path")
    found = {key: value for key, value in runpy.run_path(str(file)).items() if isinstance(value, Recipe)}
    if name not in found:
        raise ValueError(f"recipe must be one of those in {file}, {', '.join(found) or 'which has none'}, got {name!r}")
    return found[name]


def evaluation(training: Recipe | None = None, *, resize: int | None = None, occlusion: float = 0.0) -> Recipe:
    """The evaluation recipe: centre crop, no flip, no policy.

    Args:
        training: The recipe that was trained with, for its normalisation; None is ImageNet's.
        resize: Length of the shorter side before the crop, in pixels; None is the output size (SA App. B.3).
        occlusion: Share of the image's area hidden by one square patch, in [0, 1] (SA section 4.3.3).
    """
    normalize = Normalize() if training is None else training.normalize
    occlude = Occlude(share=occlusion) if occlusion else None
    return Recipe(crop=CenterCrop(resize), flip=None, normalize=normalize, occlude=occlude)


def with_sigma_decay(recipe: Recipe, *, epoch: int, factor: float = 1000.0) -> Recipe:
    """The same recipe with its crop's sigma divided by `factor` from `epoch` on (SA App. B.1).

    Raises:
        ValueError: if the recipe's crop has no sigma.
    """
    crop = recipe.crop
    if not isinstance(crop, SoftCrop | SoftShift) or isinstance(crop.sigma, Schedule):
        raise ValueError(f"sigma decay must go with a soft crop of constant sigma, got {crop}")
    return replace(recipe, crop=replace(crop, sigma=StepDecay(crop.sigma, epoch, factor)))
