"""What it costs to ask a loader for its state after every batch, which is what stateful frameworks do.

`python -m softfeed.benchmarks.state_tracking DATA` plays a loader with and without `state_dict()` after each batch, in
turn, and times the call by itself. Raw CIFAR-100 is the worst case: no images cost less. `--output` writes JSON for
`benchmarks/results/`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ..pipelines import Loader, presets
from .errors import in_one_line
from .machine import machine
from .measurement import Batches, Here, Progress, measure

_CALLS = 1000


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m softfeed.benchmarks.state_tracking", description=__doc__)
    parser.add_argument("data", type=Path, help="image folder or shard set")
    parser.add_argument("--recipe", default="soft-cifar", help="preset (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=128, help="default: %(default)s")
    parser.add_argument("--image-size", type=int, default=32, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of a turn (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=9, help="turns of each (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    return parser.parse_args(arguments)


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
    options = _parse(arguments)
    loaders = [
        Loader(options.data, presets.by_name(options.recipe), options.batch_size, options.image_size, device="cpu")
        for _ in range(2)
    ]
    plain, asked = (Here(_played(loader, asked=asked)) for loader, asked in zip(loaders, (False, True), strict=True))
    contenders = {"plain": plain, "state after every batch": asked, "plain again": plain}
    rates = measure(contenders, seconds=options.seconds, repeats=options.repeats, progress=Progress())
    before, with_state, after = (np.array(rate.images_per_s) for rate in rates.values())
    ratios = with_state / ((before + after) / 2)
    begin = time.perf_counter()
    for _ in range(_CALLS):
        loaders[1].state_dict()
    call_us = 1e6 * (time.perf_counter() - begin) / _CALLS
    for loader in loaders:
        loader.close()
    batch_us = 1e6 * options.batch_size / rates["plain"].median
    print("\n".join(map(str, rates.values())))
    print(f"with / without state: {np.median(ratios):.3f} ({ratios.min():.3f} to {ratios.max():.3f})")
    print(f"one call: {call_us:.1f} us, {call_us / batch_us:.2%} of a batch of {options.batch_size}")
    if options.output:
        kept = {name: value for name, value in vars(options).items() if name not in ("data", "output")}
        result = {
            "command": f"python -m softfeed.benchmarks.state_tracking {options.data.name}",
            "settings": kept,
            "machine": machine(),
            "images_per_s": {name: list(rate.images_per_s) for name, rate in rates.items()},
            "ratio": {"median": float(np.median(ratios)), "all": ratios.tolist()},
            "call_us": call_us,
            "share_of_a_batch": call_us / batch_us,
            "others": {name: list(rate.others) for name, rate in rates.items()},
        }
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
