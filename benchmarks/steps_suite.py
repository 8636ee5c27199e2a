"""The suite `steps`: the ladder, memory of a loader of its own, a training step where one is wanted, and a verdict."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ..pipelines.sources import open_source
from . import verdict
from .gpu_time import busy_with
from .machine import machine
from .memory_suite import peak
from .processes import ContenderError, in_fresh_process
from .recorded import without_folders
from .result import Result
from .session import Session
from .steps import ladder, steps_of
from .training import ALONE, LOADER, TOGETHER, contenders

# What is looked at by itself, as a function for a process in which nothing but the loader is
_LOOKS = {"peak_memory": ("Peak memory", peak), "gpu": ("GPU time", busy_with)}


def run(session: Session, args: argparse.Namespace) -> Result:
    """Measure the suite."""
    played = session.played
    source = open_source(played.data)
    session.check_batch(len(source))
    rungs = ladder(played)
    training = {} if session.model is None else contenders(played, session.model)
    rates, cache = session.measure(rungs | training, source.files)
    steps = steps_of({name: rates[name] for name in rungs if name in rates})
    on_gpu = played.device != "cpu"
    looks, unmeasured = look(session, ("peak_memory", "gpu") if on_gpu else ("peak_memory",))
    facts: dict[str, Any] = {"steps": [asdict(step) for step in steps]} | looks
    words = verdict.of_epochs(len(source), played.batch_size)
    if steps:
        others = statistics.median(busy for name in rungs if name in rates for busy in rates[name].others)
        words += verdict.of_steps(steps, cores=machine()["cores"], gpu=on_gpu, others=others)
    if {ALONE, LOADER, TOGETHER} <= set(rates):
        words += verdict.of_training(str(session.model), rates[ALONE], rates[LOADER], rates[TOGETHER], gpu=on_gpu)
    return session.result("steps", list(rates.values()), cache=cache, facts=facts, verdict=words + unmeasured)


def look(session: Session, names: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Facts of the given names, and a sentence for each that could not be had."""
    facts, unmeasured = {}, []
    for name in names:
        what, function = _LOOKS[name]
        session.progress.stage(f"{what} of a process with nothing but this loader, which is started for it")
        try:
            facts[name] = in_fresh_process(function, session.played, session.seconds)
        except ContenderError as error:  # which must not cost the turns that were measured
            facts[name] = {"skipped": without_folders(str(error))}
            unmeasured.append(f"{what} was not measured: {facts[name]['skipped']}")
    return facts, unmeasured
