"""The DALI graph of a recipe: bytes and numbers in, normalised images out.

Nothing is drawn in the graph and no Python runs in it. Every input but the images' bytes is a small array of numbers
from `plan.Plan`, so the graph is a pure function of its inputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali.pipeline import Pipeline, pipeline_def

from .cropping import normalized, on_canvas, placed, resized, shifted, way
from .decoder import Decoder, visible_part
from .occlusion import occlusion_stage
from .output import Output
from .recipe import Recipe
from .views import DECODED, of_view

_TYPES = {np.dtype(np.float32): types.DALIDataType.FLOAT, np.dtype(np.int32): types.DALIDataType.INT32}

IMAGES = "images"  # name of the input with encoded bytes or raw pixels


@dataclass(frozen=True)
class GraphOptions:
    """How a graph is built; none of these changes what it computes.

    Attributes:
        batch_size: Largest batch.
        num_threads: CPU threads of the graph.
        device_id: GPU to run on, or None for the CPU.
        prefetch: Batches in flight.
        decoder: Settings of the decoder; of no meaning for raw images.
    """

    batch_size: int
    num_threads: int
    device_id: int | None
    prefetch: int
    decoder: Decoder


def build_graph(
    recipe: Recipe,
    example: dict[str, np.ndarray],
    options: GraphOptions,
    *,
    size: int,
    raw: bool,
    output: Output,
    until: str | None = None,
) -> Pipeline:
    """Build the graph of a recipe.

    Args:
        recipe: The steps.
        example: Inputs of one plan, which tell the names, types and shapes of the graph's inputs.
        options: Threads, device and the like.
        size: Side of the square output in pixels.
        raw: Whether the images come as raw uint8 HWC pixels instead of encoded bytes.
        output: Type, float32 or float16, and layout of the finished images.
        until: The stage, one of `stages`, to end after, for measurements; None for all of them.

    Returns:
        A pipeline with an output for each view, on the device, images of (3, size, size), or (size, size, 3) with
        channels last.
    """

    # Only a policy needs conditionals, and turning them on rewrites the whole function.
    @pipeline_def(enable_conditionals=recipe.policy is not None)
    def graph() -> Any:
        inputs = {
            name: fn.external_source(name=name, ndim=array.ndim - 1, dtype=_TYPES[array.dtype])
            for name, array in example.items()
        }
        source, views, decoder = _source(options, raw=raw), [inputs], None if raw else options.decoder
        if recipe.views > 1:
            views = [of_view(inputs, view) for view in range(recipe.views)]
            if "start" in views[0]:
                shared = {"start": inputs[DECODED[0]], "extent": inputs[DECODED[1]]}
                source, decoder = visible_part(source, shared, decoder), None
        last = stages(recipe, raw=raw)[-1] if until is None else until
        return tuple(_stages(recipe, source, view, decoder, size=size, output=output)[last] for view in views)

    return graph(
        batch_size=options.batch_size,
        num_threads=options.num_threads,
        device_id=options.device_id,
        prefetch_queue_depth=options.prefetch,
        # affinity pins DALI's threads to the first cores, on which every other loader of the machine pins its own
        set_affinity=False,
    )


def stages(recipe: Recipe, *, raw: bool) -> list[str]:
    """Names of the stages that a recipe's graph has, in the order in which they run."""
    if way(recipe, raw=raw) == "shift":
        names = ["normalise", "shift"]
    else:
        names = ["cut" if raw else "decode", *["resize"] * recipe.crop.resizes, *["policy"] * bool(recipe.policy)]
        names.append("normalise")
    return [*names, *["occlusion"] * bool(recipe.occlude)]


def _source(options: GraphOptions, *, raw: bool) -> Any:
    """Encoded bytes, or raw pixels on the device."""
    layout: dict[str, Any] = {"ndim": 3, "layout": "HWC"} if raw else {"ndim": 1}
    images = fn.external_source(name=IMAGES, dtype=types.DALIDataType.UINT8, no_copy=True, **layout)
    return images.gpu() if raw and options.device_id is not None else images


def _stages(
    recipe: Recipe, images: Any, inputs: dict[str, Any], decoder: Decoder | None, *, size: int, output: Output
) -> dict[str, Any]:
    """Images after each of the `stages`.

    Args:
        recipe: The steps.
        images: Encoded bytes, or without a decoder uint8 HWC pixels.
        inputs: Nodes of the numbers of one view.
        decoder: Settings of the decoder, if there is something to decode.
        size: Side of the square output in pixels.
        output: Type and layout of the finished images.
    """
    after = {}
    if "shift" in inputs:
        images = after["normalise"] = normalized(images, inputs, recipe.normalize, output)
        images = after["shift"] = shifted(images, inputs, size=size)
    else:
        images = after["decode"] = after["cut"] = visible_part(images, inputs, decoder)
        if recipe.crop.resizes:
            images = after["resize"] = resized(images, inputs)
        if recipe.policy is not None:
            images = on_canvas(images, inputs, recipe.normalize, size=size)
            images = after["policy"] = recipe.policy.apply(images, inputs, size=size)
            images = after["normalise"] = normalized(images, inputs, recipe.normalize, output)
        else:
            images = after["normalise"] = placed(images, inputs, recipe.normalize, output, size=size)
    if recipe.occlude is not None:
        after["occlusion"] = occlusion_stage(images, inputs)
    return after
