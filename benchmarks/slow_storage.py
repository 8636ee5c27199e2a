"""What storage that takes its time costs a loader: samples asked for one by one, or several at once.

`python -m softfeed.benchmarks.slow_storage DATA` plays a loader whose reads each take some milliseconds longer, as
those of a network's storage do, with both ways in turn, and without a delay. `--output` writes JSON for
`benchmarks/results/`.
"""

from __future__ import annotations

import argparse
import sys
import time
from itertools import product
from pathlib import Path
from typing import Any

from ..pipelines import Loader, presets
from ..pipelines.reading import SampleReader
from ..pipelines.sources import Source, open_source
from .errors import in_one_line
from .machine import machine
from .measurement import Here, Progress, check_turns, measure, ratio
from .recorded import command_line
from .result import Result, check_output, to_json
from .session import data_facts
from .steps import of_loader

_PROGRAM = "python -m softfeed.benchmarks.slow_storage"
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
            time.sleep(self.delay_s)


def _loader(source: Source, options: argparse.Namespace, delay_ms: float, slow_s: float | None) -> Loader:
    """A loader with slow storage, which calls it that from `slow_s` on."""
    loader = Loader(options.data, presets.by_name(options.recipe), options.batch_size, device="cpu")
    reader = loader._preparer._reader = _Delayed(source)
    reader.delay_s = delay_ms / 1e3
    if slow_s is not None:
        reader.slow_s = slow_s
    return loader


def _parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=_PROGRAM, description=__doc__)
    parser.add_argument("data", type=Path, help="image folder or shard set")
    parser.add_argument("--recipe", default="soft-imagenet", help="preset (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=64, help="default: %(default)s")
    parser.add_argument(
        "--delays", type=float, nargs="+", default=[0.0, 1.0, 5.0], help="milliseconds of a read (default: 0 1 5)"
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a turn (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    return parser.parse_args(words)


@in_one_line
def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; returns the exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    options = _parse(words)
    check_turns(options.seconds, options.repeats)
    check_output(options.output)
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
    kept = {name: value for name, value in vars(options).items() if name not in ("data", "output")}
    command = command_line(words, _PROGRAM)
    result = Result("slow storage", command, kept, data_facts(source), machine(), list(rates.values()), gains)
    print(result)
    if options.output:
        options.output.write_text(to_json(result), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
