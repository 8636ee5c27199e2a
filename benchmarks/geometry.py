"""Where a batch's numbers are best computed: with numpy before the graph, or as operators of the graph.

`python -m softfeed.benchmarks.geometry` times the soft crop's windows, placement and confidence of one batch after
another, with the same functions of `softops` in both places. Reading and decoding are left out.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali.pipeline import pipeline_def

from .. import softops
from .machine import machine
from .measurement import Batches, Here, measure
from .program import Program, finish, in_one_line, settings_of
from .progress import Progress
from .result import Result

_SIZE = (224, 224)
_INPUTS = ("width", "height", "z0", "z1", "z2", "z3")


def _confidence(width: Any, height: Any, z0: Any, z1: Any, z2: Any, z3: Any) -> tuple[Any, ...]:
    window = softops.soft_resized_window(width, height, (z0, z1), (z2, z3), sigma=0.3, min_side=112.0)
    placement = softops.place(window, width, height, _SIZE)
    visible = softops.visibility(window, placement, width, height, _SIZE)
    return *placement, softops.confidence(softops.softening(visible), 1000)


def _batch(batch_size: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    sides = {"width": rng.integers(200, 600, batch_size), "height": rng.integers(200, 600, batch_size)}
    draws = {f"z{i}": rng.standard_normal(batch_size).clip(-3, 3) for i in range(4)}
    return {name: values.astype(np.float32) for name, values in (sides | draws).items()}


def _in_graph(batch_size: int, steps: int, threads: int) -> Batches:
    no_gpu: Any = None  # DALI's types leave out the None that its documentation names

    @pipeline_def(batch_size=batch_size, num_threads=threads, device_id=no_gpu, prefetch_queue_depth=1)
    def graph() -> tuple:
        return _confidence(*(fn.external_source(name=name, dtype=types.DALIDataType.FLOAT, ndim=0) for name in _INPUTS))

    pipeline, batch = graph(), _batch(batch_size)
    pipeline.build()

    def epoch() -> Iterable[int]:
        for _ in range(steps):
            yield len(pipeline.run(**batch)[0])

    return epoch


def _with_numpy(batch_size: int, steps: int) -> Batches:
    batch = _batch(batch_size)

    def epoch() -> Iterable[int]:
        for _ in range(steps):
            yield len(_confidence(**batch)[0])

    return epoch


@in_one_line
def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; returns the exit status."""
    program = Program("geometry", __doc__)
    program.add_argument("--threads", type=int, default=2, help="of DALI's graph (default: 2)")
    program.add_turns(seconds=2.0, repeats=5)
    options = program.parsed(arguments)
    contenders = {}
    for batch_size in (64, 256):
        contenders[f"numpy, batch {batch_size}"] = Here(_with_numpy(batch_size, 100))
        contenders[f"operators of the graph, batch {batch_size}"] = Here(_in_graph(batch_size, 100, options.threads))
    rates = measure(contenders, seconds=options.seconds, repeats=options.repeats, progress=Progress())
    about = (options.command, settings_of(options), {}, machine())
    finish(Result("geometry", *about, list(rates.values())), options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
