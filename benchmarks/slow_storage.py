"""What storage that takes its time costs a loader: samples asked for one by one, or several at once.

`python -m softfeed.benchmarks.slow_storage DATA` plays a loader whose reads each take some milliseconds longer, as
those of a network's storage do, with both ways in turn, and without a delay. `--output` writes JSON for
`benchmarks/results/`.
"""

from __future__ import annotations

import argparse
import sys
from itertools import product
from time import sleep
from typing import Any

from ..pipelines import Loader, presets
from ..pipelines.reading import SampleReader
from ..pipelines.sources import Source, open_source
from .machine import machine
from .measurement import Here, measure
from .program import Program, finish, in_one_line, settings_of
from .progress import Progress
from .rates import ratio
from .result import Result
from .session import data_facts
from .steps import of_loader

_NEVER_S, _ALWAYS_S = float("inf"), -1.0
_WAYS = {"one by one": _NEVER_S, "several at once": _ALWAYS_S, "as it finds out": None}


class _Delayed(SampleReader):
    """Reads samples that each take longer by some seconds."""

    delay_s = 0.0

    def _file(self, index: int) -> Any:
        self._wait()
        return super()._file(index)

    def _fill(self, index: int, image: Any) -> None:
        self._wait()
        super()._fill(index, image)

    def _wait(self) -> None:
        if self.delay_s:
            sleep(self.delay_s)


def _loader(source: Source, options: argparse.Namespace, delay_ms: float, slow_s: float | None) -> Loader:
    """A loader with slow storage, which calls it that from `slow_s` on."""
    loader = Loader(options.data, presets.by_name(options.recipe), options.batch_size, device="cpu")
    reader = loader._preparer._reader = _Delayed(source)
    reader.delay_s = delay_ms / 1e3
    if slow_s is not None:
        reader.slow_s = slow_s
    return loader


def _program() -> Program:
    program = Program("slow_storage", __doc__)
    program.add_data()
    program.add_recipe("soft-imagenet")
    program.add_sizes(batch_size=64)
    program.add_argument(
        "--delays", type=float, nargs="+", default=[0.0, 1.0, 5.0], help="milliseconds of a read (default: 0 1 5)"
    )
    program.add_turns(seconds=3.0, repeats=5)
    return program


@in_one_line
def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; returns the exit status."""
    options = _program().parsed(arguments)
    source = open_source(options.data)
    loaders = {
        f"{way}, {delay:g} ms": _loader(source, options, delay, slow_s)
        for delay, (way, slow_s) in product(options.delays, _WAYS.items())
    }
    contenders = {name: Here(of_loader(loader)) for name, loader in loaders.items()}
    rates = measure(contenders, seconds=options.seconds, repeats=options.repeats, progress=Progress())
    for loader in loaders.values():
        loader.close()
    gains = [
        ratio(rates[f"{way}, {delay:g} ms"], rates[f"one by one, {delay:g} ms"])
        for delay, way in product(options.delays, list(_WAYS)[1:])
    ]
    about = (options.command, settings_of(options), data_facts(source), machine())
    finish(Result("slow storage", *about, list(rates.values()), gains), options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
