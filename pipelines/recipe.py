"""What is done to each image: one named slot per step, in the order in which the steps run."""

from __future__ import annotations

from dataclasses import dataclass, field

from . import checks
from .augmix import AugMix
from .crops import CenterCrop, Crop, PadCrop, RandomResizedCrop, SoftCrop, SoftShift
from .masks import Cutout, GridMask, HideAndSeek, RandomErasing
from .mixing import CopyPaste, CutMix, Mix, Mixup, Mosaic
from .mollify import AdditiveNoise, Mollify
from .occlusion import Mask, Occlude
from .policies import AutoAugment, Policy, RandAugment, TrivialAugment


@dataclass(frozen=True)
class Flip:
    """Horizontal flip, which leaves the label as it is.

    Attributes:
        probability: Share of images that are flipped, in [0, 1].
    """

    probability: float = 0.5

    def __post_init__(self) -> None:
        checks.share("probability", self.probability)


@dataclass(frozen=True)
class Normalize:
    """Per-channel normalisation `(x - mean) / std`, for pixel values scaled to [0, 1].

    The defaults are ImageNet's. Where a window reaches outside its image, the output is 0, the mean colour.

    Attributes:
        mean: Mean of the red, green and blue channel, in [0, 1]; a list, array or tensor becomes a tuple of floats.
        std: Standard deviation of the three channels, > 0; likewise.
    """

    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        for name, check in (("mean", checks.share), ("std", checks.positive)):
            values = getattr(self, name)
            values = values.tolist() if hasattr(values, "tolist") else values
            if not isinstance(values, tuple | list):
                raise ValueError(f"{name} must have three values, one per channel, got {values!r}")
            if len(values) != 3:
                raise ValueError(f"{name} must have three values, one per channel, got {len(values)}")
            for value in values:
                check(name, value)
            # recipes are compared and written down, and arrays have no equality and too few digits for that
            object.__setattr__(self, name, tuple(map(float, values)))
        for value in self.std:
            if value > 2:
                raise ValueError(f"std must be that of pixels scaled to [0, 1], got {value}; divide by 255")


_SLOTS: dict[str, tuple[type, ...]] = {
    "crop": (SoftCrop, SoftShift, RandomResizedCrop, PadCrop, CenterCrop),
    "flip": (Flip,),
    "policy": (RandAugment, TrivialAugment, AutoAugment, AugMix),
    "normalize": (Normalize,),
    "occlude": (Occlude, RandomErasing, Cutout, HideAndSeek, GridMask),
    "mix": (Mixup, CutMix, CopyPaste, Mosaic),
    "noise": (AdditiveNoise,),
    "mollify": (Mollify,),
}
_NORMALISED = ("occlude", "mix", "noise", "mollify")  # slots whose steps need a normalised image


@dataclass(frozen=True)
class Recipe:
    """The steps of an augmentation, in the order in which they run; None leaves a step out.

    The `repr` of a recipe builds it again, which is what a log needs to repeat a run.

    Attributes:
        crop: Which window is taken: `SoftCrop`, `SoftShift`, `RandomResizedCrop`, `PadCrop` or `CenterCrop`.
        flip: Horizontal flip.
        policy: `RandAugment`, `TrivialAugment`, `AutoAugment` or `AugMix`.
        normalize: Mean and standard deviation of the output.
        occlude: What hides a part of the image: `Occlude`, `RandomErasing`, `Cutout`, `HideAndSeek` or `GridMask`.
        mix: What makes an image of several samples: `Mixup`, `CutMix`, `CopyPaste` or `Mosaic`.
        noise: Additive noise on the normalised image.
        mollify: Noise or DCT blur of the normalised image.
        views: Versions of each sample, each with draws of its own, for self-supervised training.

    Raises:
        TypeError: if a step is in the slot of another kind, or there is no crop or normalisation.
        ValueError: if there are several views of a crop that is not random.
    """

    crop: Crop = field(default_factory=SoftCrop)
    flip: Flip | None = field(default_factory=Flip)
    policy: Policy | None = None
    normalize: Normalize = field(default_factory=Normalize)
    occlude: Mask | None = None
    mix: Mix | None = None
    noise: AdditiveNoise | None = None
    mollify: Mollify | None = None
    views: int = 1

    def __post_init__(self) -> None:
        for slot, kinds in _SLOTS.items():
            step = getattr(self, slot)
            if not isinstance(step, kinds) and step is not None:
                right = [name for name, others in _SLOTS.items() if isinstance(step, others)]
                advice = f"; it belongs in {right[0]}" if right else ""
                if right and right[0] in _NORMALISED and slot not in _NORMALISED:
                    advice += ", as it needs a normalised image"
                kinds_of_slot = ", ".join(kind.__name__ for kind in kinds)
                raise TypeError(f"{slot} must be one of {kinds_of_slot}, got {step!r}{advice}")
        for slot in ("crop", "normalize"):
            if getattr(self, slot) is None:
                raise TypeError(f"{slot} must be given, got None; every image is cut and normalised")
        checks.whole("views", self.views)
        if self.views > 1 and not self.crop.random:
            raise ValueError(f"views must be 1 for a crop that is not random, got {self.views} with {self.crop}")

    @property
    def training(self) -> bool:
        """Whether this is meant for training: its crop is random, or it flips, mixes samples or follows a policy.

        What hides, blurs or disturbs a part of each image also tests a model, so that it tells nothing.
        """
        return self.crop.random or any(step is not None for step in (self.flip, self.policy, self.mix))

    @property
    def extra_classes(self) -> int:
        """Classes that targets have beyond those of the data: 1 for labels that mollification adds one to, else 0."""
        return int(self.mollify is not None and self.mollify.label.startswith("add"))

    @property
    def needs_targets(self) -> bool:
        """Whether labels and confidences cannot say what the targets are, so that a loader must make them."""
        return self.mix is not None or (self.mollify is not None and self.mollify.label != "smooth")
