"""Softly augmented batches: what is done to images, and the loader that does it.

Importing this package does not start DALI; making a `Loader` does.
"""

from . import presets
from .crops import CenterCrop, PadCrop, RandomResizedCrop, SoftCrop, SoftShift
from .loader import Loader
from .masks import Cutout, GridMask, HideAndSeek, RandomErasing
from .mollify import AdditiveNoise, Mollify
from .occlusion import Occlude
from .policies import RandAugment, TrivialAugment
from .reading import ReadError
from .recipe import Flip, Normalize, Recipe
from .schedules import Cosine, Linear, StepDecay
from .shapes import UnreadableImageError

__all__ = [
    "AdditiveNoise",
    "CenterCrop",
    "Cosine",
    "Cutout",
    "Flip",
    "GridMask",
    "HideAndSeek",
    "Linear",
    "Loader",
    "Mollify",
    "Normalize",
    "Occlude",
    "PadCrop",
    "RandAugment",
    "RandomErasing",
    "RandomResizedCrop",
    "ReadError",
    "Recipe",
    "SoftCrop",
    "SoftShift",
    "StepDecay",
    "TrivialAugment",
    "UnreadableImageError",
    "presets",
]
