"""The suite `steps`: the ladder, memory of a loader of its own, a training step where one is wanted, and a verdict."""

from __future__ import annotations

import argparse
import statistics
from dataclasses import asdict
from typing import Any

from ..pipelines.sources import open_source
from . import verdict
from .gpu_time import gpu_busy
from .machine import machine
from .memory_suite import peak
from .processes import ContenderError, in_fresh_process
from .recorded import without_folders
from .result import Result
from .session import Session
from .steps import ladder, of_loader, steps_of
from .training import ALONE, LOADER, TOGETHER, contenders


def run(session: Session, args: argparse.Namespace) -> Result:
    """Measure the suite."""
    played = session.played
    source = open_source(played.data)
    rungs = ladder(played)
    training = {} if session.model is None else contenders(played, session.model)
    rates, cache = session.measure(rungs | training, source.files)
    steps = steps_of({name: rates[name] for name in rungs})
    on_gpu = played.device != "cpu"
    session.progress.turn("memory of a process with nothing but this loader")
    facts: dict[str, Any] = {"steps": [asdict(step) for step in steps]}
    unmeasured = []
    try:
        facts["peak_memory"] = in_fresh_process(peak, played, session.seconds)
    except ContenderError as error:  # which must not cost the turns that were measured
        facts["peak_memory"] = {"skipped": without_folders(str(error))}
        unmeasured.append(f"Peak memory was not measured: {facts['peak_memory']['skipped']}")
    if on_gpu:
        facts["gpu"] = gpu_busy(of_loader(played.loader()), session.seconds)
    cores = machine()["cores"]
    others = statistics.median(busy for name in rungs for busy in rates[name].others)
    words = verdict.of_steps(steps, cores=cores, gpu=on_gpu, others=others)
    if session.model is not None:
        words += verdict.of_training(session.model, rates[ALONE], rates[LOADER], rates[TOGETHER], gpu=on_gpu)
    return session.result("steps", list(rates.values()), cache=cache, facts=facts, verdict=words + unmeasured)
