"""One run of the benchmark: what is played, how long, in which state of the page cache, and what a result needs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..pipelines import Occlude, Recipe, SoftCrop, SoftShift, TrivialAugment, presets
from ..pipelines.described import described
from ..pipelines.mollify import Mollify
from ..pipelines.sources import Source, open_source
from . import page_cache
from .machine import machine
from .measurement import Contender, measure
from .progress import Progress
from .rates import Rate, Ratio
from .recorded import without_folders
from .result import Result
from .steps import Played
from .suites import recorded

FULL, EVERYTHING = "full", "everything"


def recipe_by_name(name: str, *, raw: bool) -> Recipe:
    """A preset, or "full": soft crop, flip, occlusion and mollification; or "everything": that and TrivialAugment.

    Args:
        name: Name of the recipe.
        raw: Whether the images are small raw ones, which those two recipes shift instead of cropping them.
    """
    if name not in (FULL, EVERYTHING):
        return presets.by_name(name)
    normalize = presets.CIFAR if raw else presets.by_name("soft-imagenet").normalize
    return Recipe(
        crop=SoftShift() if raw else SoftCrop(),
        policy=TrivialAugment() if name == EVERYTHING else None,
        normalize=normalize,
        occlude=Occlude(share=(0.0, 0.8)),
        mollify=Mollify(),
    )


@dataclass(frozen=True)
class Session:
    """What every suite gets.

    Attributes:
        played: Data, recipe, batch size and the like.
        seconds: Length of a contender's turn.
        repeats: Turns of each contender.
        cold: Whether files leave the page cache before each turn.
        model: Network of the training step, or None for none.
        command: What repeats the run.
        progress: Told what is going on.
        failed: Errors of contenders that failed in `measure`, by name.
    """

    played: Played
    seconds: float
    repeats: int
    cold: bool
    model: str | None
    command: str
    progress: Progress
    failed: dict[str, Exception] = field(default_factory=dict)

    def check_batch(self, images: int) -> None:
        """Raise ValueError if a batch is larger than a data set of so many images."""
        if self.played.batch_size > images:
            raise ValueError(
                f"batch-size must be at most {images:,}, the images that are played, got {self.played.batch_size:,}; "
                "choose a smaller --batch-size"
            )

    def measure(
        self, contenders: Mapping[str, Contender], files: Sequence[str], often: Collection[str] = ()
    ) -> tuple[dict[str, Rate], str]:
        """Rates of contenders, and the state of the page cache; `files` are all that any of them reads.

        Those that others are compared with may have turns more `often`.

        A contender that fails is left out of the rates, and `result` says so.
        """
        if self.cold:
            state = page_cache.COLD
        else:
            self.progress.stage("reading every file once, so that all lie in the page cache")
            state = page_cache.warm(files)
        before = (lambda: page_cache.drop(files)) if self.cold else (lambda: None)
        turns = {"seconds": self.seconds, "repeats": self.repeats, "progress": self.progress, "before": before}
        return measure(contenders, **turns, failed=self.failed, often=often), state

    def result(
        self,
        suite: str,
        rates: Sequence[Rate],
        *,
        cache: str,
        ratios: Sequence[Ratio] = (),
        facts: dict[str, Any] | None = None,
        verdict: Sequence[str] = (),
        packages: Sequence[str] = (),
    ) -> Result:
        """A result with everything that is known about this run."""
        played = self.played
        settings = {
            "recipe": repr(played.recipe),
            "recipe_fields": described(played.recipe),
            "batch_size": played.batch_size,
            "image_size": played.image_size,
            "threads": played.threads,
            "device": played.device,
            "dtype": played.dtype,
            "channels_last": played.channels_last,
            "model": self.model,
            "seconds": self.seconds,
            "repeats": self.repeats,
        }
        data = data_facts(open_source(played.data)) | {"page_cache": cache}
        about = machine(*packages)
        settings = recorded(suite, settings)
        facts, words = facts or {}, list(verdict)
        if self.failed:
            why = {name: without_folders(" ".join(str(error).split())) for name, error in self.failed.items()}
            facts, words = facts | {"failed": why}, words + [f"{name} failed: {error}" for name, error in why.items()]
        return Result(suite, self.command, settings, data, about, list(rates), list(ratios), facts, words)


def data_facts(source: Source) -> dict[str, Any]:
    """What a data set is, without saying where it lies."""
    kind, distinct = "shard set", {}
    sizes: Any = source.size
    if source.shard_set is None:
        kind, files = "image folder", [Path(file).stat() for file in source.files]
        sizes, count = [file.st_size for file in files], len({(file.st_dev, file.st_ino) for file in files})
        distinct = {} if count == len(files) else {"distinct": count}  # the others are links to the same files
    return {
        "name": source.root.name,
        "kind": kind if source.raw_shape is None else "raw shard set",
        "samples": len(source),
        **distinct,
        "classes": len(source.classes),
        "mean_bytes": round(sum(map(int, sizes)) / len(source)),
    }
