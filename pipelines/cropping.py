"""From a window to pixels: the numbers that the graph gets, and the stages that use them.

Three ways lead from a window to the output, chosen when the graph is built:

- `fused`: the visible part is decoded, resized to the pixels it takes, then placed, flipped and normalised in one step;
  on a CPU, windows that do not end on whole pixels are cut from the resized image instead.
- `canvas`: as before, but placed on a uint8 canvas, because a policy wants to work on it before normalisation.
- `shift`: raw images of the output size are flipped and normalised, then shifted.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from ..softops import Placement, Window
from .crops import Frame
from .output import Output
from .recipe import Normalize, Recipe

# The standard deviation that turns the one pixel of an invisible image into the fill value: what is left of it is
# below 1e-35, and 0 in half precision. Infinity would do it exactly, but DALI makes NaN of it.
_BLANKING_STD = np.float32(3e38)

_LONGEST = 64  # times the output's side that an image is resized to before its window is cut from it


def way(recipe: Recipe, *, raw: bool) -> str:
    """How a recipe's windows become pixels: "canvas", "fused" or "shift"."""
    if recipe.policy is not None:
        return "canvas"
    return "shift" if raw and not recipe.crop.resizes else "fused"


def _pixels(normalize: Normalize) -> tuple[list[float], list[float]]:
    """Mean and standard deviation for pixel values in [0, 255]."""
    return [255 * value for value in normalize.mean], [255 * value for value in normalize.std]


def _filter_radius(window: Window, size: int) -> np.ndarray:
    """Source pixels beside an output pixel that the antialiasing filter reads, (N, 2), vertical first."""
    return np.ceil(np.maximum(np.stack([window.height, window.width], axis=1) / size, 1)) + 1


def crop_numbers(
    recipe: Recipe,
    frame: Frame,
    window: Window,
    placement: Placement,
    flipped: np.ndarray,
    *,
    raw: bool,
    whole_images: bool,
) -> dict[str, np.ndarray]:
    """Graph inputs of a batch's windows, one row per sample; see the stages for their meaning."""
    inputs: dict[str, np.ndarray] = {"mirror": flipped.astype(np.int32)}
    if way(recipe, raw=raw) == "shift":
        # the flip comes first, so a flipped image shifts the other way
        left = np.where(flipped, -window.left, window.left)
        return inputs | {"shift": np.stack([window.top, left], axis=1).astype(np.int32)}
    visible = ((placement.width > 0) & (placement.height > 0))[:, None]
    numbers = _of_whole_images(frame, window) if whole_images else _of_visible_parts(recipe, frame, window, placement)
    inputs |= numbers.inputs
    if way(recipe, raw=raw) == "canvas":
        inputs["canvas_start"] = np.where(visible, -numbers.corner, frame.size).astype(np.int32)
        return inputs
    # crop_mirror_normalize places an image of n pixels at position p * (size - n) of the output
    free = frame.size - numbers.resized
    inputs["position"] = np.clip(numbers.corner / np.where(free == 0, 1, free), 0, 1).astype(np.float32)
    std = np.where(visible, np.array(_pixels(recipe.normalize)[1])[None], _BLANKING_STD)
    return inputs | {"std": std.astype(np.float32)}


class _Resizing(NamedTuple):
    """What is decoded and resized of N images."""

    inputs: dict[str, np.ndarray]
    corner: np.ndarray  # where the resized images lie in the output, (N, 2) pixels, vertical first
    resized: np.ndarray  # their sides, (N, 2) pixels, vertical first


def _of_visible_parts(recipe: Recipe, frame: Frame, window: Window, placement: Placement) -> _Resizing:
    """The visible part of each window is decoded, and resized to the pixels that it takes in the output."""
    # A window that shows nothing still needs a pixel to decode; the placing stages blank it.
    margin = 0 if recipe.crop.whole_pixels else _filter_radius(window, frame.size)
    sides = np.stack([frame.height, frame.width], axis=1)
    first = np.stack([placement.source_top, placement.source_left], axis=1)
    length = np.stack([placement.source_height, placement.source_width], axis=1)
    start = np.clip(np.floor(first) - margin, 0, sides - 1)
    inputs: dict[str, np.ndarray] = {
        "start": start.astype(np.int32),
        "extent": (np.clip(np.ceil(first + length) + margin, start + 1, sides) - start).astype(np.int32),
    }
    resized = np.stack([placement.height, placement.width], axis=1)
    if recipe.crop.resizes:
        inputs["resized"] = np.maximum(resized, 1)
    if not recipe.crop.whole_pixels:
        inputs["region_start"] = (first - inputs["start"]).astype(np.float32)
        inputs["region_end"] = (first - inputs["start"] + length).astype(np.float32)
    return _Resizing(inputs, np.stack([placement.top, placement.left], axis=1), resized)


def _of_whole_images(frame: Frame, window: Window) -> _Resizing:
    """Images are decoded and resized whole, as torchvision does it, so far that the window has the output's size.

    For windows that lie within their images and do not end on whole pixels of them, but do so of the resized ones. An
    image that would become very long is first cut to the whole pixels around its window, which changes the scale by up
    to a pixel, as it might not fit into memory.
    """
    sides = np.stack([frame.height, frame.width], axis=1).astype(np.float64)
    first = np.stack([window.top, window.left], axis=1).astype(np.float64)
    length = np.stack([window.height, window.width], axis=1).astype(np.float64)
    resized = np.rint(sides * frame.size / length)
    corner = -np.rint(first * frame.size / length)
    start = np.zeros(sides.shape)
    cut = (resized > _LONGEST * frame.size).any(axis=1)
    start[cut] = np.floor(first[cut])
    sides[cut] = np.minimum(np.ceil(first + length), sides)[cut] - start[cut]
    resized[cut], corner[cut] = frame.size, 0
    inputs = {"start": start.astype(np.int32), "extent": sides.astype(np.int32), "resized": resized.astype(np.float32)}
    return _Resizing(inputs, corner, resized)


def resized(images: Any, inputs: dict[str, Any]) -> Any:
    """Resize to (`resized`) pixels, linearly and with antialiasing: uint8 HWC."""
    from nvidia.dali import fn, types

    region = {}
    if "region_start" in inputs:  # the window does not end on whole source pixels
        region = {"roi_start": inputs["region_start"], "roi_end": inputs["region_end"]}
    return fn.resize(
        images, size=inputs["resized"], interp_type=types.DALIInterpType.INTERP_LINEAR, antialias=True, **region
    )


def resized_on_cpu(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """An image resized linearly with antialiasing, as `fn.resize` does it but at the image's border.

    There, the filter takes the weights that fall on the image, as torchvision's and Pillow's do; DALI's repeats the
    outermost pixels.

    Args:
        image: uint8 (h, w, 3).
        height: Of the result, in pixels, > 0.
        width: Of the result, in pixels, > 0.

    Returns:
        uint8 (height, width, 3), within one value of the exact result, as each of the two axes is rounded.
    """
    if image.shape[:2] in ((height, width), (1, 1)):
        # torch would copy the one with threads of its own, which a forked child does not have, and takes the other for
        # an image with channels first
        return np.ascontiguousarray(np.broadcast_to(image, (height, width, 3)))
    # as a batch of one with channels last, which the quick way is for
    pixels = torch.from_numpy(image)[None].permute(0, 3, 1, 2)
    pixels = torch.nn.functional.interpolate(pixels, (height, width), mode="bilinear", antialias=True)
    return pixels.permute(0, 2, 3, 1)[0].numpy()


def placed(images: Any, inputs: dict[str, Any], normalize: Normalize, output: Output, *, size: int) -> Any:
    """Place at `position` on a canvas of zeros, flip where `mirror`, normalise: finished (size, size) images."""
    from nvidia.dali import fn

    return fn.crop_mirror_normalize(
        images,
        crop=(size, size),
        crop_pos_y=inputs["position"][0],
        crop_pos_x=inputs["position"][1],
        out_of_bounds_policy="pad",
        fill_values=[0.0],
        mirror=inputs["mirror"],
        mean=_pixels(normalize)[0],
        std=inputs["std"],
        **_written_as(output),
    )


def on_canvas(images: Any, inputs: dict[str, Any], normalize: Normalize, *, size: int) -> Any:
    """Place on a canvas of the mean colour, rounded to whole values: uint8 HWC (size, size, 3)."""
    return _window_of(images, inputs["canvas_start"], size, [float(round(value)) for value in _pixels(normalize)[0]])


def normalized(images: Any, inputs: dict[str, Any], normalize: Normalize, output: Output) -> Any:
    """Flip where `mirror` and normalise."""
    from nvidia.dali import fn

    mean, std = _pixels(normalize)
    return fn.crop_mirror_normalize(images, mirror=inputs["mirror"], mean=mean, std=std, **_written_as(output))


def shifted(images: Any, inputs: dict[str, Any], *, size: int) -> Any:
    """Take the (size, size) window at `shift` of normalised images, 0 outside."""
    return _window_of(images, inputs["shift"], size, [0.0])


def _written_as(output: Output) -> dict[str, Any]:
    """What tells `crop_mirror_normalize`, which computes in float32, the type and layout to write."""
    from nvidia.dali import types

    dtype = {torch.float32: types.DALIDataType.FLOAT, torch.float16: types.DALIDataType.FLOAT16}[output.dtype]
    return {"dtype": dtype, "output_layout": "HWC" if output.channels_last else "CHW"}


def _window_of(images: Any, start: Any, size: int, fill: list[float]) -> Any:
    """The (size, size) window that starts at (vertical, horizontal) `start`, which may reach outside."""
    from nvidia.dali import fn

    return fn.slice(
        images, start=start, shape=[size, size], axis_names="HW", out_of_bounds_policy="pad", fill_values=fill
    )
