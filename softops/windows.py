"""Crop windows: where they lie, what of the image they show, and how much of it that is.

Everything is in whole pixels held in float32 (exact up to 2**24), because the same numbers move the pixels and
make the label: a window that is rounded twice, or differently in two places, lets image and label disagree.
Windows may reach outside the image. All arrays of one call have the same shape S.
"""

from __future__ import annotations

from typing import NamedTuple

from ._elementwise import Array, Number, maximum, minimum, round_half_up, select


class Window(NamedTuple):
    """A rectangle in source pixels, each field of shape S; `left` and `top` may be negative."""

    left: Array
    top: Array
    width: Array
    height: Array


class Placement(NamedTuple):
    """What a window shows and where that goes, each field of shape S.

    The rectangle (`source_left`, `source_top`, `source_width`, `source_height`) of the image, in source pixels,
    fills the rectangle (`left`, `top`, `width`, `height`) of the output, in output pixels. Where `width` or
    `height` is 0 nothing of the image is visible.
    """

    source_left: Array
    source_top: Array
    source_width: Array
    source_height: Array
    left: Array
    top: Array
    width: Array
    height: Array


def shift_limit(sigma: Number) -> Number:
    """Largest |z| that `shifted_window` accepts: shifts are truncated to one window length (SA section 4.1)."""
    return 1.0 / sigma


def resized_shift_limit(sigma: Number, spread: float = 0.5) -> Number:
    """Largest |z| that `soft_resized_window` accepts for a position: |t| < (W + w) / 2 (SA App. B.3)."""
    return 0.5 / (spread * sigma)


def shifted_window(width: Array, height: Array, z: tuple[Array, Array], *, sigma: Number) -> Window:
    """Fixed-size soft crop: a window of the image's size, shifted by a truncated Gaussian (SA section 4.1).

    Shifts are rounded to the nearest pixel. The paper's Listing 1 rounds towards 0, which doubles the share of
    windows that are not shifted at all.

    Args:
        width: Image width in pixels, > 0.
        height: Image height in pixels, > 0.
        z: Standard normal draws for x and y, truncated to |z| <= `shift_limit(sigma)`.
        sigma: Standard deviation as a share of the side, > 0 (0.3 in the paper).
    """

    def shift(side: Array, draw: Array) -> Array:
        return maximum(minimum(round_half_up(sigma * side * draw), side), -1.0 * side)

    return Window(shift(width, z[0]), shift(height, z[1]), width, height)


def soft_resized_window(
    width: Array,
    height: Array,
    z_size: tuple[Array, Array],
    z_position: tuple[Array, Array],
    *,
    sigma: Number,
    min_side: float,
    spread: float = 0.5,
) -> Window:
    """Soft crop-and-resize window (SA App. B.3, with its spread halved by default: see `spread`).

    Args:
        width: Image width W in pixels, > 0.
        height: Image height H in pixels, > 0.
        z_size: Standard normal draws for the window's width and height.
        z_position: Standard normal draws for x and y, truncated to |z| < `resized_shift_limit(sigma, spread)`.
        sigma: Standard deviation, > 0 (0.3 in the paper).
        min_side: L_min > 0, the side in pixels below which a window does not shrink (112 in the paper); no window
            has a side of less than one pixel.
        spread: s, the factor on the standard deviation of the position; 1 is the paper's literal text, which for a
            window of the image's size is twice the paper's own rule for CIFAR.
    """

    def axis(side: Array, size_draw: Array, position_draw: Array) -> tuple[Array, Array]:
        slack = maximum(side - min_side, 0.0)
        # at least one pixel: a min_side below half a pixel would round to an empty window
        length = maximum(round_half_up(side - slack * minimum(sigma * abs(size_draw), 1.0)), 1.0)
        offset = spread * sigma * (side + length) * position_draw
        return round_half_up((side - length) * 0.5 + offset), length

    left, window_width = axis(width, z_size[0], z_position[0])
    top, window_height = axis(height, z_size[1], z_position[1])
    return Window(left, top, window_width, window_height)


def padded_window(width: Array, height: Array, u: tuple[Array, Array], *, padding: int) -> Window:
    """Pad-and-crop, CIFAR's standard hard crop: every whole shift in [-padding, padding] equally likely.

    Args:
        width: Image width in pixels, > 0.
        height: Image height in pixels, > 0.
        u: Uniform draws in [0, 1) for x and y.
        padding: Largest shift in pixels, >= 0.
    """

    def shift(draw: Array) -> Array:
        # draws next to 1 round up to 1 in float32, hence the bound
        return minimum(round_half_up(draw * (2 * padding + 1) - 0.5), 2.0 * padding) - padding

    return Window(shift(u[0]), shift(u[1]), width, height)


def random_resized_window(
    width: Array,
    height: Array,
    attempts: list[tuple[Array, Array]],
    u_position: tuple[Array, Array],
    *,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Window:
    """RandomResizedCrop, ImageNet's standard hard crop (Szegedy et al. 2015; SA App. B.3).

    Area uniform in `scale`, logarithm of the aspect ratio uniform in `ratio`; the first attempt that fits inside
    the image is taken, and the largest central window of a permitted ratio if none does.

    Args:
        width: Image width in pixels, > 0.
        height: Image height in pixels, > 0.
        attempts: Pairs of uniform draws in [0, 1) for area and ratio, tried in this order (customarily ten).
        u_position: Uniform draws in [0, 1) for x and y among the positions inside the image.
        scale: Smallest and largest share of the image's area.
        ratio: Smallest and largest width / height.
    """
    # at least one pixel: one row of an image with ratio[1] < 1/2 would round to an empty window
    window_width = minimum(width, maximum(round_half_up(height * ratio[1]), 1.0))
    window_height = minimum(height, maximum(round_half_up(width / ratio[0]), 1.0))
    pending = width > 0.0  # every sample still looks for a window that fits
    for u_area, u_ratio in attempts:
        area = width * height * (scale[0] + (scale[1] - scale[0]) * u_area)
        aspect = ratio[0] * (ratio[1] / ratio[0]) ** u_ratio
        w = round_half_up((area * aspect) ** 0.5)
        h = round_half_up((area / aspect) ** 0.5)
        fits = (w > 0.0) & (w <= width) & (h > 0.0) & (h <= height) & pending
        window_width, window_height = select(fits, w, window_width), select(fits, h, window_height)
        pending = pending ^ fits

    def start(side: Array, length: Array, draw: Array) -> Array:
        free = side - length
        drawn = minimum(round_half_up(draw * (free + 1.0) - 0.5), free)
        return select(pending, round_half_up(free * 0.5 - 0.5), drawn)

    return Window(
        start(width, window_width, u_position[0]),
        start(height, window_height, u_position[1]),
        window_width,
        window_height,
    )


def place(window: Window, width: Array, height: Array, size: tuple[int, int]) -> Placement:
    """Which pixels of the image a window shows, and which pixels of the output they fill.

    Args:
        window: The window, resized to `size` as a whole.
        width: Image width in pixels.
        height: Image height in pixels.
        size: Output (height, width) in pixels.
    """

    def axis(start: Array, length: Array, side: Array, out: int) -> tuple[Array, Array, Array, Array]:
        first, last = maximum(start, 0.0), minimum(start + length, side)
        out_first = round_half_up((first - start) * float(out) / length)
        out_last = round_half_up((last - start) * float(out) / length)
        return first, maximum(last - first, 0.0), out_first, maximum(out_last - out_first, 0.0)

    source_left, source_width, left, out_width = axis(window.left, window.width, width, size[1])
    source_top, source_height, top, out_height = axis(window.top, window.height, height, size[0])
    return Placement(source_left, source_top, source_width, source_height, left, top, out_width, out_height)


def visibility(window: Window, placement: Placement, width: Array, height: Array, size: tuple[int, int]) -> Array:
    """Share of the image's pixels that a window shows, from the output pixels that the image fills (SA Eq. 7's v).

    "Proportion of original pixels left": the image's area divides, not the window's, so a small window inside
    the image has a small visibility. Counted in output pixels, the ones a network sees.

    Returns:
        float32 of shape S; 1 for the whole image, 0 for nothing visible. In [0, 1] for windows no larger than the
        image, as all of this module are.
    """
    filled = placement.width * placement.height / float(size[0] * size[1])
    return filled * ((window.width / width) * (window.height / height))


def intersection_over_union(a: Window, b: Window) -> Array:
    """IoU of two windows of one image (SA Eqs. 9 and 10).

    Returns:
        float32 of shape S in [0, 1]; 0 for windows that do not touch.
    """

    def overlap(start_a: Array, length_a: Array, start_b: Array, length_b: Array) -> Array:
        return maximum(minimum(start_a + length_a, start_b + length_b) - maximum(start_a, start_b), 0.0)

    shared = overlap(a.left, a.width, b.left, b.width) * overlap(a.top, a.height, b.top, b.height)
    return shared / (a.width * a.height + b.width * b.height - shared)
