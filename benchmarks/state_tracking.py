"""What it costs to ask a loader for its state after every batch, which is what stateful frameworks do.

`python -m softfeed.benchmarks.state_tracking DATA` plays a loader with and without `state_dict()` after each batch, in
turn, and times the call by itself. Raw CIFAR-100 is the worst case: no images cost less. `--output` writes JSON for
`benchmarks/results/`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from ..pipelines import Loader, presets
from ..pipelines.sources import open_source
from .errors import in_one_line
from .machine import machine
from .measurement import Batches, Here, Progress, check_turns, measure, ratio
from .recorded import command_line
from .result import Result, check_output, to_json
from .session import data_facts

ASKED = "state after every batch"
_CALLS = 1000
_PROGRAM = "python -m softfeed.benchmarks.state_tracking"


def _parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=_PROGRAM, description=__doc__)
    parser.add_argument("data", type=Path, help="image folder or shard set")
    parser.add_argument("--recipe", default="soft-cifar", help="preset (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=128, help="default: %(default)s")
    parser.add_argument("--image-size", type=int, default=32, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of a turn (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=9, help="turns of each (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    return parser.parse_args(words)


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
    words = sys.argv[1:] if arguments is None else arguments
    options = _parse(words)
    check_turns(options.seconds, options.repeats)
    check_output(options.output)
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
    kept = {name: value for name, value in vars(options).items() if name not in ("data", "output")}
    command, data = command_line(words, _PROGRAM), data_facts(open_source(options.data))
    cost = [ratio(rates[ASKED], without)]
    result = Result("state tracking", command, kept, data, machine(), list(rates.values()), cost, facts)
    print(result)
    if options.output:
        options.output.write_text(to_json(result), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
