"""The loader's steps added in turn: what each one costs, in images/s and in CPU seconds.

The rungs of the ladder are cumulative, so that each contains all before it and steps that run side by side are counted
as they are in the loader: reading, the numbers, then the graph's stages in their order, then the hand-over with labels
and confidence, then what is done to finished batches.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ..pipelines import Loader, Recipe
from ..pipelines.ahead import Failure, WorkAhead
from ..pipelines.graph import graph_part, stages
from ..pipelines.playing import Player
from ..pipelines.preparing import Prepared
from ..pipelines.reading import SampleReader
from ..pipelines.runner import GraphRunner, Runner
from ..pipelines.sources import Source, open_source
from .measurement import Batches, Contender, Here
from .rates import Rate

HAND_OVER = "hand-over"
# slots of a recipe that work on finished batches, in their order
_LATE = {"occlude": "occlusion", "mix": "mix", "noise": "noise", "mollify": "mollification"}
_DEPTH = 2


@dataclass(frozen=True)
class Played:
    """What is played.

    Attributes:
        data: Image folder or shard set.
        recipe: What is done to each image.
        batch_size: Images of a batch.
        image_size: Side of the output in pixels.
        threads: CPU threads of the graph, or None for the loader's own choice.
        device: "cpu" or "cuda".
        dtype: Of the images: "float32", "float16" or "bfloat16".
        channels_last: Whether the images come with channels last.
    """

    data: str
    recipe: Recipe
    batch_size: int
    image_size: int
    threads: int | None
    device: str
    dtype: str = "float32"
    channels_last: bool = False

    def loader(self, recipe: Recipe | None = None, *, kind: Any = Loader, **settings: Any) -> Any:
        """A loader, or something like one, that plays it, or another recipe in the same way."""
        recipe = recipe or self.recipe
        output = {"dtype": getattr(torch, self.dtype), "channels_last": self.channels_last}
        targets = "soft" if recipe.needs_targets else "confidence"
        settings = {"num_threads": self.threads, "device": self.device, "targets": targets} | output | settings
        return kind(self.data, recipe, self.batch_size, self.image_size, **settings)


def of_loader(loader: Loader) -> Batches:
    """The batches of an epoch of a loader, as a contender wants them."""

    def epoch() -> Iterable[int]:
        for batch in loader:
            yield batch.images.shape[:-3].numel()

    return epoch


def ladder(played: Played) -> dict[str, Contender]:
    """The rungs, by the name of the step that each one adds."""
    source = open_source(played.data)
    before, after = _split(played)
    names = stages(before, raw=source.raw_shape is not None)
    rungs: dict[str, Batches] = {
        "read": _reading(played, source),
        "numbers": _counts(played.loader(before, kind=_NumbersOnly)),
        **{name: _up_to(played, before, name) for name in names},
        HAND_OVER: of_loader(played.loader(before)),
    }
    for slot in after:
        before = replace(before, **{slot: getattr(played.recipe, slot)})
        rungs[_LATE[slot]] = of_loader(played.loader(before))
    return {name: Here(batches) for name, batches in rungs.items()}


def rung(played: Played, name: str) -> Batches:
    """The graph up to the stage `name` of the recipe, without the hand-over."""
    return _up_to(played, _split(played)[0], name)


def _up_to(played: Played, recipe: Recipe, stage: str) -> Batches:
    loader = played.loader(recipe, kind=_UpTo)
    loader.stage = stage
    return _counts(loader)


def _counts(loader: Loader) -> Batches:
    return lambda: iter(loader)


def _split(played: Played) -> tuple[Recipe, list[str]]:
    """A recipe's part that the graph does, and the slots that it fills beside those, which come after it."""
    graphs = graph_part(played.recipe)
    return graphs, [slot for slot in _LATE if getattr(graphs, slot) != getattr(played.recipe, slot)]


def _reading(played: Played, source: Source) -> Batches:
    reader = SampleReader(source)
    order = np.random.default_rng(0).permutation(len(source))
    indices = [order[first : first + played.batch_size] for first in range(0, len(order), played.batch_size)]

    def epoch() -> Iterator[int]:
        for images, _ in _ahead(reader.read, indices):
            yield len(images)

    return epoch


class _WithoutGraph(Player):
    """Prepares batches and lets them go."""

    def _submit(self, prepared: Prepared, build: Any) -> None:
        pass

    def _collect(self, in_flight: Any, build: Any) -> Any:
        return in_flight.popleft(), None


class _NumbersOnly(Loader):
    """A loader without a graph: batches are read, and everything about them is drawn and computed."""

    _PLAYER = _WithoutGraph

    def _finish(self, prepared: Prepared, images: Any) -> int:
        return len(prepared.index) * self.recipe.views


class _UpTo(Loader):
    """A loader whose graph ends after a stage, and that hands nothing over: images stay where DALI left them."""

    stage = ""

    def _new_runner(self, example: dict[str, np.ndarray], **options: Any) -> Runner:
        return super()._new_runner(example, until=self.stage, kind=_NothingToTorch, **options)

    def _finish(self, prepared: Prepared, images: Any) -> int:
        return len(images)


class _NothingToTorch(GraphRunner):
    """Runs a graph that may want fewer inputs, and leaves its output as it is: maybe images of several sizes."""

    def submit(self, images: Any, inputs: dict[str, np.ndarray]) -> None:
        super().submit(images, {name: array for name, array in inputs.items() if _is_fed(self._graph, name)})

    def _handed_over(self, outputs: Any) -> range:
        return range(sum(map(len, outputs)))


def _is_fed(graph: Any, name: str) -> bool:
    """Whether an input is left in a graph: those that only later stages use are not."""
    try:
        graph.input_feed_count(name)
    except KeyError:
        return False
    return True


def _ahead(produce: Any, items: Iterable[Any]) -> Iterator[Any]:
    """What a thread produces of items a few ahead, as the loader does it."""
    ahead = WorkAhead(produce, items, depth=_DEPTH)
    try:
        for result in ahead:
            if isinstance(result, Failure):
                raise result.error
            yield result
    finally:
        ahead.close()


@dataclass(frozen=True)
class Step:
    """What one step adds to the time per image.

    Attributes:
        name: The step.
        images_per_s: Rate of everything up to and with it.
        wall_us: Microseconds per image that it adds; may be below 0 by noise, or because it has less to hand over.
        cpu_us: CPU microseconds per image that it adds.
    """

    name: str
    images_per_s: float
    wall_us: float
    cpu_us: float


def steps_of(rates: dict[str, Rate]) -> list[Step]:
    """Differences between the rungs of a ladder; they add up to the time per image of the last rung."""
    steps = []
    wall = cpu = 0.0
    for name, rate in rates.items():
        steps.append(Step(name, rate.median, 1e6 / rate.median - wall, 1e6 * rate.cpu_s - cpu))
        wall, cpu = 1e6 / rate.median, 1e6 * rate.cpu_s
    return steps


def spreads_of(rates: Mapping[str, Rate], steps: Sequence[Step]) -> list[tuple[tuple[float, float], ...]]:
    """Least and greatest of the microseconds that each step adds in the repeats: by the clock, and of the CPU."""
    spreads = []
    before = [(0.0, 0.0)] * len(rates[steps[0].name].images_per_s)
    for step in steps:
        rate = rates[step.name]
        now = [(1e6 / images, 1e6 * cpu) for images, cpu in zip(rate.images_per_s, rate.cpu_s_per_image, strict=True)]
        walls, cpus = zip(*((b - a, d - c) for (a, c), (b, d) in zip(before, now, strict=True)), strict=True)
        # the step's own value is a difference of medians, which may lie outside
        spreads.append(
            tuple(
                (min(value, *some), max(value, *some)) for value, some in ((step.wall_us, walls), (step.cpu_us, cpus))
            )
        )
        before = now
    return spreads
