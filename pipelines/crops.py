"""The crop slot of a recipe: which window of each image is taken, and what that leaves of its label.

Every crop draws its windows on the host, for a whole batch at once; `cropping.py` moves the pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

import numpy as np

from .. import softops
from ..softops import Window
from . import checks
from .draws import Draws
from .schedules import Scheduled, check_reached, value_at


class Frame(NamedTuple):
    """What a crop is asked for: the images' sizes, the output's, and the random draws."""

    draws: Draws
    width: np.ndarray  # float32 (N,), pixels
    height: np.ndarray  # float32 (N,), pixels
    size: int  # side of the square output, pixels
    epoch: float  # time for schedules, see schedules.py


class Crop(Protocol):
    """A crop slot: a frozen dataclass with these."""

    resizes: ClassVar[bool]  # False: the window has the image's own size, and nothing is interpolated
    random: ClassVar[bool]
    whole_pixels: ClassVar[bool]  # whether windows begin and end on whole source pixels

    def window(self, frame: Frame) -> Window:
        """Windows of a batch, fields float32 of shape (N,)."""
        ...

    def certainty(self, visibility: np.ndarray) -> np.ndarray:
        """Certainty left at a visibility, both float32 (N,) in [0, 1]."""
        ...


class _Softened:
    """A crop whose label softens with what it hides (SA Eq. 7)."""

    power: float
    plateau: float

    def certainty(self, visibility: np.ndarray) -> np.ndarray:
        return softops.softening(visibility, power=self.power, plateau=self.plateau)


class _Hard:
    """A crop that leaves the label as it is, whatever it hides."""

    def certainty(self, visibility: np.ndarray) -> np.ndarray:
        return np.ones_like(visibility)


def _check_soft(sigma: Scheduled, power: float, plateau: float) -> None:
    check_reached(checks.positive, "sigma", sigma)
    checks.positive("power", power)
    checks.interval("plateau", (plateau, 1.0), 0.0, 1.0)


@dataclass(frozen=True)
class SoftCrop(_Softened):
    """Soft crop-and-resize, for images of any size (SA App. B.3).

    Attributes:
        sigma: Strength, a share of the free range; a number > 0 or a schedule over epochs. 0.3 in the paper.
        power: k of the softening curve, > 0. 2 in the paper.
        plateau: Visibility from which an image counts as fully visible, in (0, 1]; 1 is Eq. 7.
        min_side: L_min, the side in source pixels below which windows do not shrink; None is half the output size.
        spread: Factor s on the standard deviation of the position, > 0; 1 is the paper's literal text, which
            would leave about a tenth of the windows outside the image.
    """

    sigma: Scheduled = 0.3
    power: float = 2.0
    plateau: float = 1.0
    min_side: float | None = None
    spread: float = 0.5

    resizes: ClassVar[bool] = True
    random: ClassVar[bool] = True
    whole_pixels: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_soft(self.sigma, self.power, self.plateau)
        checks.positive("spread", self.spread)
        if self.min_side is not None:
            checks.positive("min_side", self.min_side)

    def window(self, frame: Frame) -> Window:
        sigma = value_at(self.sigma, frame.epoch)
        limit = softops.resized_shift_limit(sigma, self.spread)
        return softops.soft_resized_window(
            frame.width,
            frame.height,
            tuple(frame.draws.normal("crop size", 2)),
            tuple(frame.draws.normal("crop position", 2, limit=limit)),
            sigma=sigma,
            min_side=frame.size / 2 if self.min_side is None else self.min_side,
            spread=self.spread,
        )


@dataclass(frozen=True)
class SoftShift(_Softened):
    """Soft fixed-size crop, for images that already have the output's size (CIFAR; SA section 4.1).

    Attributes:
        sigma: Standard deviation of the shift as a share of the side; a number > 0 or a schedule over epochs.
        power: k of the softening curve, > 0.
        plateau: Visibility from which an image counts as fully visible, in (0, 1]; 1 is Eq. 7.
    """

    sigma: Scheduled = 0.3
    power: float = 2.0
    plateau: float = 1.0

    resizes: ClassVar[bool] = False
    random: ClassVar[bool] = True
    whole_pixels: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_soft(self.sigma, self.power, self.plateau)

    def window(self, frame: Frame) -> Window:
        sigma = value_at(self.sigma, frame.epoch)
        z = frame.draws.normal("crop position", 2, limit=softops.shift_limit(sigma))
        return softops.shifted_window(frame.width, frame.height, (z[0], z[1]), sigma=sigma)


@dataclass(frozen=True)
class RandomResizedCrop(_Hard):
    """ImageNet's standard hard crop-and-resize (Szegedy et al. 2015); the label stays as it is.

    Attributes:
        scale: Smallest and largest share of the image's area, in (0, 1].
        ratio: Smallest and largest width / height, > 0.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    resizes: ClassVar[bool] = True
    random: ClassVar[bool] = True
    whole_pixels: ClassVar[bool] = True
    ATTEMPTS: ClassVar[int] = 10  # as in the crop's first publication and in torchvision

    def __post_init__(self) -> None:
        checks.interval("scale", self.scale, 0.0, 1.0)
        checks.interval("ratio", self.ratio, 0.0, float("inf"))

    def window(self, frame: Frame) -> Window:
        u = frame.draws.uniform("crop", 2 * self.ATTEMPTS + 2)
        attempts = [(u[2 * i], u[2 * i + 1]) for i in range(self.ATTEMPTS)]
        return softops.random_resized_window(
            frame.width, frame.height, attempts, (u[-2], u[-1]), scale=self.scale, ratio=self.ratio
        )


@dataclass(frozen=True)
class PadCrop(_Hard):
    """CIFAR's standard hard crop: pad, then take a window of the original size; the label stays as it is.

    Attributes:
        padding: Largest shift in pixels, >= 0.
    """

    padding: int = 4

    resizes: ClassVar[bool] = False
    random: ClassVar[bool] = True
    whole_pixels: ClassVar[bool] = True

    def __post_init__(self) -> None:
        checks.whole("padding", self.padding, least=0)

    def window(self, frame: Frame) -> Window:
        u = frame.draws.uniform("crop", 2)
        return softops.padded_window(frame.width, frame.height, (u[0], u[1]), padding=self.padding)


@dataclass(frozen=True)
class CenterCrop(_Hard):
    """The evaluation crop: shorter side resized to `resize` pixels, then the centre of the output's size.

    Windows are those of torchvision's `Resize` followed by `CenterCrop`.

    Attributes:
        resize: Length of the shorter side in pixels, at least the output size; None is the output size, as in
            the paper (SA App. B.3). 256 with an output of 224 is the older custom.
    """

    resize: int | None = None

    resizes: ClassVar[bool] = True
    random: ClassVar[bool] = False
    whole_pixels: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.resize is not None:
            checks.whole("resize", self.resize)

    def window(self, frame: Frame) -> Window:
        resize = frame.size if self.resize is None else self.resize
        shorter = np.minimum(frame.width, frame.height)

        def axis(side: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            resized = np.floor(resize * side.astype(np.float64) / shorter)  # as torchvision truncates
            # Python's round in torchvision rounds halves to even, as rint does
            offset = np.rint((resized - frame.size) / 2.0)
            return (offset * side / resized).astype(np.float32), (frame.size * side / resized).astype(np.float32)

        left, width = axis(frame.width)
        top, height = axis(frame.height)
        return Window(left, top, width, height)
