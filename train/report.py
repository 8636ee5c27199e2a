"""The demonstration's report: one HTML file with everything in it."""

from __future__ import annotations

import base64
import io
import platform
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..pipelines import cores
from . import digits, figures, findings, pixels
from .comparison import BATCH_SIZE, MODEL, OCCLUSION, RECIPES, Comparison, Run, dali_version

TILES = 16


@dataclass(frozen=True)
class Tile:
    """One example image: a PNG, its label, and its confidence in [1/10, 1]."""

    png: bytes
    label: int
    confidence: float


def render(comparison: Comparison, runs: Sequence[Run], *, output: Path) -> str:
    """The report as HTML that refers to nothing outside itself.

    Args:
        comparison: how the runs were made.
        runs: at least one of each recipe.
        output: the demonstration's folder, for the commands.
    """
    import jinja2

    template = (Path(__file__).parent / "templates" / "report.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["embedded"] = _embedded
    first_seed = runs[0].seed
    batches = [{"recipe": name, "tiles": examples(comparison, name, seed=first_seed)} for name in RECIPES]
    return environment.from_string(template).render(
        rows=_rows(runs),
        summary=findings.summary(runs),
        protocol=protocol(comparison, runs),
        recipes={name: repr(recipe) for name, recipe in RECIPES.items()},
        occlusion=f"{OCCLUSION:.0%}",
        batches=batches,
        count=len(batches[0]["tiles"]),
        first_seed=first_seed,
        losses=_losses(runs),
        reliability=_reliability(runs),
        commands=commands(output, seed=first_seed),
        facts=facts(comparison, runs),
        side=digits.SIDE,
    )


def protocol(comparison: Comparison, runs: Sequence[Run]) -> str:
    """How many epochs, seeds and test images stand behind the numbers, in one or two sentences."""
    seeds = sorted({run.seed for run in runs})
    epochs = f"{comparison.epochs} epoch{'s' if comparison.epochs > 1 else ''}"
    test = f"{digits.TEST_COUNT} test digits, of which one is {1 / digits.TEST_COUNT:.2%}"
    if len(seeds) == 1:
        return f"One seed ({seeds[0]}), {epochs}, {test}."
    return f"Mean and range over {len(seeds)} seeds ({seeds[0]} to {seeds[-1]}), {epochs} each; {test}."


def examples(comparison: Comparison, recipe: str, *, seed: int) -> list[Tile]:
    """The first images of the first epoch, as the network sees them."""
    with comparison.loader("train", RECIPES[recipe], seed=seed, batch_size=TILES) as batches:
        images, labels, confidence = next(iter(batches))
    levels = pixels.levels(images, RECIPES[recipe].normalize)
    rows = zip(levels, labels.tolist(), confidence.tolist(), strict=True)
    return [Tile(_png(image), label, share) for image, label, share in rows]


def commands(output: Path, *, seed: int) -> list[str]:
    """What to type next: first with the demonstration's own network, then with other images."""
    run, test = output / "runs" / f"soft-seed{seed}" / "last.pt", output / "shards" / "test"
    return [
        f"softfeed eval {shlex.quote(str(run))} {shlex.quote(str(test))} --occlusion 0.6",
        "",
        "# photos/train and photos/val hold one folder of images for each class",
        "softfeed convert photos/train shards/train",
        "softfeed convert photos/val shards/val",
        "softfeed train shards/train --val shards/val --model resnet50 --recipe soft-imagenet --epochs 90 --output run",
        "softfeed eval run/best.pt shards/val",
    ]


def facts(comparison: Comparison, runs: Sequence[Run]) -> dict[str, str]:
    """Network, training, machine and versions."""
    reused = sum(run.reused for run in runs)
    settings = comparison.settings(runs[0].recipe, runs[0].seed)
    computed = f"{sum(run.elapsed_s for run in runs):.0f} s for {len(runs)} trainings, the last at {runs[-1].measured}"
    gpu = comparison.process.device
    return {
        "Network": f"{MODEL}, images of {digits.SIDE} pixels, batch {BATCH_SIZE}",
        "Training": f"SGD, Nesterov momentum, lr {settings['lr']:.3g}, weight decay {settings['weight_decay']:.3g}, "
        f"warm-up and cosine; loss {settings['loss']}",
        "Took": computed + (f"; {reused} of them were done by an earlier call" if reused else ""),
        "Machine": f"{_processor()}, {cores.available()} cores"
        + (f", {torch.cuda.get_device_name(gpu)}" if gpu.type == "cuda" else ", no GPU used"),
        "Versions": f"softfeed {version('softfeed')}, Python {platform.python_version()}, PyTorch {torch.__version__}, "
        f"DALI {dali_version()}, {platform.system()}",
    }


def _rows(runs: Sequence[Run]) -> list[dict[str, Any]]:
    return [
        {
            "name": metric.name,
            "cells": [findings.cell(findings.values(runs, recipe, metric), metric) for recipe in RECIPES],
            "better": findings.better(runs, metric),
        }
        for metric in findings.METRICS
    ]


def _losses(runs: Sequence[Run]) -> list[dict[str, Any]]:
    charts = {"train_loss": "Training loss", "nll": "NLL on the test digits"}
    return [
        {"png": figures.curves(runs, quantity, title), "alt": f"{title} over the epochs, by recipe"}
        for quantity, title in charts.items()
    ]


def _reliability(runs: Sequence[Run]) -> list[dict[str, Any]]:
    views = {"clean": "whole", "occluded": f"{OCCLUSION:.0%} hidden"}
    return [
        {
            "png": figures.reliability_of(runs, recipe, scores, f"{recipe}, digits {view}"),
            "alt": f"Reliability diagram of the {recipe} recipe, digits {view}",
        }
        for scores, view in views.items()
        for recipe in RECIPES
    ]


def _png(image: np.ndarray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _embedded(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names and names[0] not in ("", "unknown") else platform.machine()
