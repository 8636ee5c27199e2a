"""The numbers of a batch: everything that is decided before a pixel moves.

One plan feeds both the graph and the label, so image and confidence cannot disagree. It is made with numpy, for a
whole batch at once: the same geometry as operators of the graph took about 0.1 ms per image at a batch of 64
(`python -m softfeed.benchmarks.geometry`), which is more than a small image costs altogether.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .. import softops
from .cropping import crop_numbers
from .crops import Frame
from .draws import Draws
from .mixing import Mixing
from .mollify import ROLES, Mollification, strengths
from .occlusion import Patches
from .recipe import Recipe
from .views import by_view


@dataclass(frozen=True)
class Plan:
    """What is done to each of N samples.

    Attributes:
        inputs: Arrays for the graph, by the name of their input, one row per sample; see `views.by_view` for several
            views.
        certainty: float32 (N,) in [0, 1], the product over the steps.
        window: The windows, in source pixels.
        placement: What they show, and where that goes in the output.
        visibility: float32 (N,) in [0, 1].
        flipped: bool (N,).
        patches: The occluding patches, or None.
        mixing: How the images are made of several samples, or None.
        mixed_certainty: Certainty of each of these J samples in the image, float32 (N, J); or None.
        noise: Amplitudes of the additive noise, float32 (N,), and seeds of its pixels, int64 (N,); or None.
        mollification: Roles and strengths of the mollification, or None.
        gamma: Certainty that mollification takes by another way than `certainty`, float32 (N,); or None.
        policy: What the policy drew, by name, or empty.
        views: Versions of each sample, which follow each other.
    """

    inputs: dict[str, np.ndarray]
    certainty: np.ndarray
    window: softops.Window
    placement: softops.Placement
    visibility: np.ndarray
    flipped: np.ndarray
    patches: Patches | None
    mixing: Mixing | None
    mixed_certainty: np.ndarray | None
    noise: tuple[np.ndarray, np.ndarray] | None
    mollification: Mollification | None
    gamma: np.ndarray | None
    policy: dict[str, np.ndarray]
    views: int

    def details(self) -> dict[str, np.ndarray]:
        """What was drawn, by name, one row per sample.

        - `certainty`: of the sample's own label, float32 (N,).
        - `window` and `placement`: (left, top, width, height), the one in source pixels, the other, which is the
          window's visible part, in output pixels before the flip.
        - `patches`: (left, top, width, height) of up to M rectangles, int32 (N, M, 4) in output pixels, and `covered`,
          the number of pixels that they cover.
        - `mix_row`, `mix_share`, `mix_certainty`: the J samples that an image shows, as rows of the batch, their shares
          and their certainties in it, (N, J); `mix_box`: where, and from where, int32 (N, J, 6), see `mixing.Mixing`.
        - `noise_amplitude`, `mollify_role`, `mollify_strength`, and `mollify_gamma` for other labels than smooth ones.
        - `policy_operation_0`, `policy_magnitude_0`, `policy_sign_0` and so on, see `policies` and `augmix`.
        """
        details = {
            "certainty": self.certainty,
            "window": np.stack(self.window, axis=1),
            "placement": np.stack(self.placement[4:], axis=1),
            "visibility": self.visibility,
            "flipped": self.flipped,
        }
        if self.patches is not None:
            details["patches"] = np.stack(self.patches, axis=2)
            details["covered"] = self.patches.covered()
        if self.mixing is not None:
            details["mix_row"] = self.mixing.row % (len(self.certainty) // self.views)
            details["mix_share"] = self.mixing.share
            if self.mixed_certainty is not None:
                details["mix_certainty"] = self.mixed_certainty
            if self.mixing.box is not None:
                details["mix_box"] = self.mixing.box
        if self.noise is not None:
            details["noise_amplitude"] = self.noise[0]
        if self.mollification is not None:
            details["mollify_role"] = np.array(ROLES)[self.mollification.role]
            details["mollify_strength"] = strengths()[self.mollification.level]
        if self.gamma is not None:
            details["mollify_gamma"] = self.gamma
        return details | self.policy


class GraphWork(NamedTuple):
    """What a graph is given, and what is left to it; a plan has the numbers for that."""

    raw: bool = False  # whether images come as raw pixels
    whole_images: bool = False  # whether they are resized whole, and their windows cut from the result


def plan(
    recipe: Recipe,
    draws: Draws,
    shape: tuple[np.ndarray, np.ndarray],
    *,
    size: int,
    epoch: float,
    work: GraphWork = GraphWork(),  # noqa: B008 - a tuple
) -> Plan:
    """Draw and compute a batch's numbers.

    Args:
        recipe: The steps.
        draws: The batch's random draws.
        shape: Heights and widths of the images in pixels, each (N,), > 0.
        size: Side of the square output in pixels.
        epoch: Time in epochs, for schedules: the epoch's number plus the share of it that has passed.
        work: What the graph does.
    """
    height, width = (side.astype(np.float32) for side in shape)
    frame = Frame(draws, width, height, size, epoch)
    window = recipe.crop.window(frame)
    placement = softops.place(window, width, height, (size, size))
    visibility = softops.visibility(window, placement, width, height, (size, size))
    certainties = [recipe.crop.certainty(visibility)]
    flipped = np.zeros(draws.count, bool)
    if recipe.flip is not None:
        flipped = draws.uniform("flip", 1)[0] < recipe.flip.probability
    inputs = crop_numbers(recipe, frame, window, placement, flipped, raw=work.raw, whole_images=work.whole_images)
    policy = {}
    if recipe.policy is not None:
        numbers = recipe.policy.numbers(draws, epoch)
        inputs |= numbers
        policy = recipe.policy.details(numbers)
    patches = None
    if recipe.occlude is not None:
        patches = recipe.occlude.patches(draws, size, epoch)
        certainties.append(recipe.occlude.certainty(patches, size))
    mixing = None if recipe.mix is None else recipe.mix.draw(draws, size, epoch)
    unmixed = len(certainties)  # what comes from here on is done to the mixed image
    noise = mollification = gamma = None
    if recipe.noise is not None:
        noise = recipe.noise.amplitude(draws, epoch), draws.seeds("noise pixels")
        certainties.append(recipe.noise.certainty(noise[0]))
    if recipe.mollify is not None:
        mollification = recipe.mollify.draw(draws, epoch)
        certainty = recipe.mollify.certainty(mollification)
        if recipe.mollify.label == "smooth":
            certainties.append(certainty)
        else:
            gamma = 1 - certainty
    mixed_certainty = None
    if mixing is not None:
        brought = softops.combined(*certainties[:unmixed])[mixing.row]
        mixed_certainty = softops.combined(brought, *(late[:, None] for late in certainties[unmixed:]))
    return Plan(
        inputs=inputs if draws.views == 1 else by_view(inputs, draws.views),
        certainty=softops.combined(*certainties),
        window=window,
        placement=placement,
        visibility=visibility,
        flipped=flipped,
        patches=patches,
        mixing=mixing,
        mixed_certainty=mixed_certainty,
        noise=noise,
        mollification=mollification,
        gamma=gamma,
        policy=policy,
        views=draws.views,
    )
