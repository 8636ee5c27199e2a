"""What it costs to ask a loader for its state after every batch, which is what stateful frameworks do.

`python -m softfeed.benchmarks.state_tracking DATA` plays a loader with and without `state_dict()` after each batch, in
turn, and times the call by itself. Raw CIFAR-100 is the worst case: no images cost less. `--output` writes JSON for
`benchmarks/results/`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from dataclasses import replace

from ..pipelines import Loader, presets
from ..pipelines.sources import open_source
from .machine import machine
from .measurement import Batches, Here, measure
from .program import Program, finish, in_one_line, settings_of
from .progress import Progress
from .rates import ratio
from .result import Result
from .session import data_facts

ASKED = "state after every batch"
_CALLS = 1000


def _program() -> Program:
    program = Program("state_tracking", __doc__)
    program.add_data()
    program.add_recipe("soft-cifar")
    program.add_sizes(batch_size=128, image_size=32)
    program.add_turns(seconds=5.0, repeats=9)
    return program


def _played(loader: Loader, *, asked: bool) -> Batches:
    def epoch() -> Iterable[int]:
        for batch in loader:
            if asked:
                loader.state_dict()
            yield len(batch.images)

    return epoch


@in_one_line
def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; returns the exit status."""
    options = _program().parsed(arguments)
    loaders = [
        Loader(options.data, presets.by_name(options.recipe), options.batch_size, options.image_size, device="cpu")
        for _ in range(2)
    ]
    plain, asked = (Here(_played(loader, asked=asked)) for loader, asked in zip(loaders, (False, True), strict=True))
    contenders = {"plain": plain, ASKED: asked, "plain again": plain}
    rates = measure(contenders, seconds=options.seconds, repeats=options.repeats, progress=Progress())
    plain_rates = zip(rates["plain"].images_per_s, rates["plain again"].images_per_s, strict=True)
    without = replace(rates["plain"], images_per_s=tuple((first + again) / 2 for first, again in plain_rates))
    begin = time.perf_counter()
    for _ in range(_CALLS):
        loaders[1].state_dict()
    call_us = 1e6 * (time.perf_counter() - begin) / _CALLS
    for loader in loaders:
        loader.close()
    batch_us = 1e6 * options.batch_size / rates["plain"].median
    facts = {"call_us": call_us, "share_of_a_batch": call_us / batch_us}
    about = (options.command, settings_of(options), data_facts(open_source(options.data)), machine())
    cost = [ratio(rates[ASKED], without)]
    finish(Result("state tracking", *about, list(rates.values()), cost, facts), options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
