"""The DALI graph of a recipe: bytes and numbers in, normalised images out.

Nothing is drawn in the graph and no Python runs in it. Every input but the images' bytes is a small array of numbers
from `plan.Plan`, so the graph is a pure function of its inputs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali.pipeline import Pipeline, pipeline_def

from .cropping import normalized, on_canvas, placed, resized, shifted, way
from .decoder import Decoder, visible_part
from .output import Output
from .recipe import Recipe
from .views import DECODED, of_view

_TYPES = {np.dtype(np.float32): types.DALIDataType.FLOAT, np.dtype(np.int32): types.DALIDataType.INT32}

IMAGES = "images"  # name of the input with encoded bytes or raw pixels


@dataclass(frozen=True, kw_only=True)
class GraphOptions:
    """How a graph is built; but for the last, none of these changes what it computes.

    Attributes:
        batch_size: Largest batch.
        num_threads: CPU threads of the graph.
        device_id: GPU to run on, or None for the CPU.
        prefetch: Batches in flight.
        decoder: Settings of the decoder; of no meaning for raw images.
        reuses_memory: Whether a batch is written where an earlier one was, so that it is good until the next one is
            asked for; else it is of whoever takes it.
        two_graphs: Whether images are resized between two graphs, see `split`, which changes the pixels at borders.
    """

    batch_size: int
    num_threads: int
    device_id: int | None
    prefetch: int
    decoder: Decoder
    reuses_memory: bool = False
    two_graphs: bool = False


def graph_part(recipe: Recipe) -> Recipe:
    """The recipe without the steps that are done to the batches which the graph hands over, see `finishing`."""
    return replace(recipe, occlude=None, mix=None, noise=None, mollify=None)


def computed_after_graph(recipe: Recipe) -> bool:
    """Whether steps compute with a recipe's pixels after the graph, for which those must be float32."""
    return not (recipe.mix is None and recipe.noise is None and recipe.mollify is None)


def build_graph(
    recipe: Recipe,
    example: dict[str, np.ndarray],
    options: GraphOptions,
    *,
    size: int,
    raw: bool,
    output: Output,
    until: str | None = None,
    begins_resized: bool = False,
) -> Pipeline:
    """Build the graph of a recipe, or a part of it.

    Args:
        recipe: The steps.
        example: Inputs of one plan, which tell the names, types and shapes of the graph's inputs.
        options: Threads, device and the like.
        size: Side of the square output in pixels.
        raw: Whether the images come as raw uint8 HWC pixels instead of encoded bytes.
        output: Type, float32 or float16, and layout of the finished images.
        until: The stage, one of `stages`, to end after; None for all of them.
        begins_resized: Whether the graph begins after the resize, with uint8 HWC images of the size that they come in.

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
        source = _source(options, pixels=raw or begins_resized)
        views, decoder = [inputs], None if raw else options.decoder
        if recipe.views > 1:
            views = [of_view(inputs, view) for view in range(recipe.views)]
            if "start" in views[0]:
                shared = {"start": inputs[DECODED[0]], "extent": inputs[DECODED[1]]}
                source, decoder = visible_part(source, shared, decoder), None
        last = stages(recipe, raw=raw)[-1] if until is None else until
        if begins_resized:
            return _placed(recipe, source, inputs, size=size, output=output, until=last)
        return tuple(_stages(recipe, source, view, decoder, size=size, output=output, until=last) for view in views)

    return graph(
        batch_size=options.batch_size,
        num_threads=options.num_threads,
        device_id=options.device_id,
        prefetch_queue_depth=options.prefetch,
        exec_dynamic=not options.reuses_memory,
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
    return names


def _source(options: GraphOptions, *, pixels: bool) -> Any:
    """Encoded bytes, or pixels on the device."""
    layout: dict[str, Any] = {"ndim": 3, "layout": "HWC"} if pixels else {"ndim": 1}
    images = fn.external_source(name=IMAGES, dtype=types.DALIDataType.UINT8, no_copy=True, **layout)
    return images.gpu() if pixels and options.device_id is not None else images


def _stages(
    recipe: Recipe,
    images: Any,
    inputs: dict[str, Any],
    decoder: Decoder | None,
    *,
    size: int,
    output: Output,
    until: str,
) -> Any:
    """Images after the stage `until`, one of `stages`; later ones, which may want other inputs, are not built.

    Args:
        recipe: The steps.
        images: Encoded bytes, or without a decoder uint8 HWC pixels.
        inputs: Nodes of the numbers of one view.
        decoder: Settings of the decoder, if there is something to decode.
        size: Side of the square output in pixels.
        output: Type and layout of the finished images.
        until: The last stage.
    """
    if "shift" in inputs:
        images = normalized(images, inputs, recipe.normalize, output)
        if until == "normalise":
            return images
        return shifted(images, inputs, size=size)
    images = visible_part(images, inputs, decoder)
    if until in ("decode", "cut"):
        return images
    if recipe.crop.resizes:
        images = resized(images, inputs)
        if until == "resize":
            return images
    return _placed(recipe, images, inputs, size=size, output=output, until=until)


def _placed(recipe: Recipe, images: Any, inputs: dict[str, Any], *, size: int, output: Output, until: str) -> Any:
    """Images, uint8 HWC, after those of the stages that follow the resize."""
    if recipe.policy is not None:
        images = on_canvas(images, inputs, recipe.normalize, size=size)
        images = recipe.policy.apply(images, inputs, size=size)
        if until == "policy":
            return images
        return normalized(images, inputs, recipe.normalize, output)
    return placed(images, inputs, recipe.normalize, output, size=size)
