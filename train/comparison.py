"""The demonstration's measurement: the same small network, trained with the hard and with the soft crop."""

from __future__ import annotations

import json
import platform
import time
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from ..pipelines import Loader, PadCrop, Recipe, atomic, presets
from . import checkpoint, digits, models
from .distributed import Process, seed_step
from .engine import Trainer, TrainingPlan, evaluate
from .metrics import ReliabilityBin, Scores
from .schedule import default_lr

MODEL = "small-cnn"
BATCH_SIZE = 64
OCCLUSION = 0.4  # share of the image
SCORES_FILE = "scores.json"

# Both as the presets for small images have them, but a mirrored digit is another digit or none. The hard crop's
# customary 4 pixels of 32 are 2 of 16.
RECIPES = {
    "hard": replace(presets.by_name("hard-cifar"), crop=PadCrop(padding=2), flip=None, normalize=digits.NORMALIZE),
    "soft": replace(presets.by_name("soft-cifar"), flip=None, normalize=digits.NORMALIZE),
}


@dataclass(frozen=True)
class Run:
    """One training and what it came to.

    Attributes:
        recipe: key of `RECIPES`.
        seed: of the weights, the order and all draws.
        history: the engine's row of each epoch, with the scores on the test digits.
        clean: scores on the test digits after the last epoch.
        occluded: the same with 40 % of every digit hidden.
        elapsed_s: wall time.
        measured: date and time of the end, UTC.
        reused: whether an earlier call did the work.
    """

    recipe: str
    seed: int
    history: list[dict[str, float]]
    clean: Scores
    occluded: Scores
    elapsed_s: float
    measured: str
    reused: bool = False


@dataclass(frozen=True)
class Comparison:
    """How the runs are made.

    Attributes:
        shards: the shard set of each split.
        folder: each run gets a folder in here.
        epochs: passes over the training digits, at least 1.
        process: where to compute; alone.
    """

    shards: dict[str, Path]
    folder: Path
    epochs: int
    process: Process

    def run(self, recipe: str, seed: int, *, fresh: bool = False) -> Run:
        """Train and score, or, unless `fresh`, fetch the scores of a run that was the same in everything."""
        settings = self.settings(recipe, seed)
        folder = self.folder / f"{recipe}-seed{seed}"
        known = None if fresh else _read_run(folder / SCORES_FILE, settings)
        return known or self._train(recipe, seed, settings, folder)

    def settings(self, recipe: str, seed: int) -> dict[str, Any]:
        """Everything that the numbers of a run depend on, as plain values."""
        plan = self._plan(seed)
        normalize = RECIPES[recipe].normalize
        return {
            "model": MODEL,
            "image_size": digits.SIDE,
            "recipe": repr(RECIPES[recipe]),
            "mean": list(normalize.mean),
            "std": list(normalize.std),
            "batch_size": BATCH_SIZE,
            "seed": seed,
            "epochs": plan.epochs,
            "lr": plan.lr,
            "weight_decay": plan.weight_decay,
            "loss": repr(plan.loss),
            "occlusion": OCCLUSION,
            "device": self.process.device.type,
            "versions": [
                f"python {platform.python_version()}",
                f"torch {torch.__version__}",
                f"dali {dali_version()}",
                f"source {_source_checksum():08x}",
            ],
            "data": [zlib.crc32((self.shards[name] / "dataset.json").read_bytes()) for name in digits.SPLITS],
        }

    def _plan(self, seed: int) -> TrainingPlan:
        lr = default_lr(batch_size=BATCH_SIZE, image_size=digits.SIDE)
        return TrainingPlan(epochs=self.epochs, lr=lr, seed=seed)

    def loader(
        self, split: str, recipe: Recipe, *, batch_size: int = BATCH_SIZE, seed: int = 0, **options: Any
    ) -> Loader:
        """A loader of "train" or "test" digits; `options` as for `Loader`."""
        device = self.process.device
        return Loader(
            self.shards[split], recipe, batch_size, digits.SIDE, seed=seed, device=device, num_threads=1, **options
        )

    def _train(self, recipe: str, seed: int, settings: dict[str, Any], folder: Path) -> Run:
        begin = time.perf_counter()
        training = RECIPES[recipe]
        seed_step(seed=seed, epoch=0, step=0, rank=0)  # the same weights for both recipes
        trainer = Trainer(models.build(MODEL, 10, image_size=digits.SIDE), self._plan(seed), self.process)
        occluding = presets.evaluation(training, occlusion=OCCLUSION)
        with (
            self.loader("train", training, seed=seed) as batches,
            self.loader("test", presets.evaluation(training)) as clean,
            self.loader("test", occluding) as occluded,
        ):
            trainer.fit(batches, clean)
            scores = [evaluate(trainer.model, test, process=self.process) for test in (clean, occluded)]
            folder.mkdir(parents=True, exist_ok=True)
            checkpoint.save(folder / checkpoint.LAST, trainer.checkpoint(settings, batches.classes))
        measured = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
        run = Run(recipe, seed, trainer.history, scores[0], scores[1], time.perf_counter() - begin, measured)
        text = json.dumps({"settings": settings, "run": asdict(run)}, indent=1) + "\n"
        atomic.write_bytes(folder / SCORES_FILE, text.encode())
        return run


def run_all(
    comparison: Comparison, seeds: range, *, fresh: bool, announce: Callable[[str, Run | None], None]
) -> list[Run]:
    """Every recipe with every seed, the recipes in turn.

    Args:
        comparison: how.
        seeds: at least one.
        fresh: do again what was done before.
        announce: gets "hard, seed 1 (3 of 6)" before a run, with None, and after it, with the run.
    """
    runs = []
    for seed in seeds:
        for recipe in RECIPES:
            name = f"{recipe}, seed {seed} ({len(runs) + 1} of {len(RECIPES) * len(seeds)})"
            announce(name, None)
            runs.append(comparison.run(recipe, seed, fresh=fresh))
            announce(name, runs[-1])
    return runs


def _read_run(path: Path, settings: dict[str, Any]) -> Run | None:
    """The run in a scores file; None if there is none, or of other settings, or it cannot be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["settings"] != settings:
            return None
        run = content["run"] | {"reused": True}
        return Run(**(run | {name: _scores(run[name]) for name in ("clean", "occluded")}))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _scores(content: dict[str, Any]) -> Scores:
    bins = tuple(ReliabilityBin(**row) for row in content.pop("bins"))
    return Scores(**content, bins=bins)


def dali_version() -> str:
    """DALI's version."""
    import nvidia.dali

    return nvidia.dali.__version__


@cache
def _source_checksum() -> int:
    """CRC-32 of this package's code, for a version number alone does not change with every edit."""
    checksum = zlib.crc32(version("softfeed").encode())
    package = Path(__file__).parent.parent
    for part in ("softops", "pipelines", "train"):
        for file in sorted((package / part).rglob("*.py")):
            checksum = zlib.crc32(file.read_bytes(), checksum)
    return checksum
