"""Softly augmented batches: what is done to images, and the loader that does it.

Names are imported when they are first used, so that a program which only converts or asks for help does not wait for
torch and DALI.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import presets
    from .augmix import AugMix
    from .crops import CenterCrop, PadCrop, RandomResizedCrop, SoftCrop, SoftShift
    from .faults import ErrorBudgetError, SampleError
    from .loader import Loader
    from .masks import Cutout, GridMask, HideAndSeek, RandomErasing
    from .mixing import CopyPaste, CutMix, Mixup, Mosaic
    from .mollify import AdditiveNoise, Mollify
    from .occlusion import Occlude
    from .policies import AutoAugment, RandAugment, TrivialAugment
    from .reading import ReadError
    from .recipe import Flip, Normalize, Recipe
    from .schedules import Cosine, Linear, StepDecay
    from .shapes import GraphError, UnreadableImageError

__all__ = [
    "AdditiveNoise",
    "AugMix",
    "AutoAugment",
    "CenterCrop",
    "CopyPaste",
    "Cosine",
    "CutMix",
    "Cutout",
    "ErrorBudgetError",
    "Flip",
    "GraphError",
    "GridMask",
    "HideAndSeek",
    "Linear",
    "Loader",
    "Mixup",
    "Mollify",
    "Mosaic",
    "Normalize",
    "Occlude",
    "PadCrop",
    "RandAugment",
    "RandomErasing",
    "RandomResizedCrop",
    "ReadError",
    "Recipe",
    "SampleError",
    "SoftCrop",
    "SoftShift",
    "StepDecay",
    "TrivialAugment",
    "UnreadableImageError",
    "presets",
]

_MODULES = {
    "AdditiveNoise": "mollify",
    "AugMix": "augmix",
    "AutoAugment": "policies",
    "CenterCrop": "crops",
    "CopyPaste": "mixing",
    "Cosine": "schedules",
    "CutMix": "mixing",
    "Cutout": "masks",
    "ErrorBudgetError": "faults",
    "Flip": "recipe",
    "GraphError": "shapes",
    "GridMask": "masks",
    "HideAndSeek": "masks",
    "Linear": "schedules",
    "Loader": "loader",
    "Mixup": "mixing",
    "Mollify": "mollify",
    "Mosaic": "mixing",
    "Normalize": "recipe",
    "Occlude": "occlusion",
    "PadCrop": "crops",
    "RandAugment": "policies",
    "RandomErasing": "masks",
    "RandomResizedCrop": "crops",
    "ReadError": "reading",
    "Recipe": "recipe",
    "SampleError": "faults",
    "SoftCrop": "crops",
    "SoftShift": "crops",
    "StepDecay": "schedules",
    "TrivialAugment": "policies",
    "UnreadableImageError": "shapes",
}


def __getattr__(name: str) -> Any:
    if name == "presets":
        return import_module(".presets", __name__)
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
