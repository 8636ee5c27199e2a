"""What a loader's forms of output and its decoder's settings cost: images per second, and memory of the GPU.

`python -m softfeed.benchmarks.outputs DATA` plays, in turn, float32, float16 and bfloat16, channels first and last; on
a GPU also shares of the JPEG engines, and parts of images against whole ones. `--output` writes JSON for
`benchmarks/results/`; `make bench-gpu DATA=...` runs this, `softfeed tune` and the GPU's tests.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from importlib import metadata
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..pipelines import Loader, presets
from ..train.tuning import check_budget, played_in_turn
from .errors import in_one_line

FIRST = "float32, channels first"


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m softfeed.benchmarks.outputs", description=__doc__)
    parser.add_argument("data", type=Path, help="image folder or shard set")
    parser.add_argument("--recipe", default="soft-imagenet", help="preset (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--threads", type=int, help="threads of the graph (default: the loader's own choice)")
    parser.add_argument("--seconds", type=float, default=120.0, help="time to measure (default: 120)")
    parser.add_argument("--rounds", type=int, default=7, help="how often each is played at most (default: 7)")
    parser.add_argument("--device", help="cpu or cuda (default: the GPU where there is one)")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    return parser.parse_args(arguments)


def _variants(loader: Loader) -> dict[str, dict[str, Any]]:
    """What to play, as keyword arguments of a loader, by name."""
    dtypes, layouts = (torch.float32, torch.float16, torch.bfloat16), (False, True)
    variants: dict[str, dict[str, Any]] = {
        f"{str(dtype).removeprefix('torch.')}, channels {'last' if last else 'first'}": {
            "dtype": dtype,
            "channels_last": last,
        }
        for dtype, last in product(dtypes, layouts)
    }
    if "hw_decoder_load" in loader.speed_settings:
        half = {"dtype": torch.float16, "channels_last": True}
        for share in (0.0, 0.5, 1.0):
            variants[f"float16, {share:.0%} to the JPEG engines"] = {**half, "hw_decoder_load": share}
        variants["float16, whole images decoded"] = {**half, "roi_decode": False}
    return variants


def _gpu_bytes(make: Callable[..., Loader], settings: dict[str, Any]) -> int:
    """Memory that a loader takes of the GPU, DALI's and torch's, after two epochs or twenty batches."""
    torch.cuda.synchronize()
    before = torch.cuda.mem_get_info()[0]
    with make(**settings) as loader:
        for _ in range(2):
            for step, _batch in enumerate(loader):
                if step == 10:
                    break
        torch.cuda.synchronize()
        return before - torch.cuda.mem_get_info()[0]


@in_one_line
def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; returns the exit status."""
    options = _parse(arguments)
    check_budget(options.seconds, options.rounds)
    recipe = presets.by_name(options.recipe)

    def make(**settings: Any) -> Loader:
        fixed = {"device": options.device, "num_threads": options.threads, "last_batch": "fill"}
        return Loader(options.data, recipe, options.batch_size, options.image_size, **fixed, **settings)

    with make() as loader:
        device, variants = loader.device, _variants(loader)
    rates = played_in_turn(
        [lambda settings=settings: make(**settings) for settings in variants.values()],
        seconds=options.seconds,
        rounds=options.rounds,
        report=lambda done: print(f"round {done}/{options.rounds}", file=sys.stderr, flush=True),
    )
    rows = []
    for (name, settings), row in zip(variants.items(), rates, strict=True):
        ratio = float(np.median(np.array(row) / np.array(rates[0])))
        rows.append({"name": name, "median": float(np.median(row)), "ratio": ratio, "images_per_s": row})
        line = f"{name:<40} {rows[-1]['median']:>10,.0f} images/s ({min(row):,.0f} to {max(row):,.0f})  x {ratio:.2f}"
        if device.type == "cuda":
            rows[-1]["gpu_bytes"] = _gpu_bytes(make, settings)
            line += f"  {rows[-1]['gpu_bytes'] / 2**30:.2f} GiB"
        print(line)
    if options.output:
        _write(options, device, rows)
    return 0


def _write(options: argparse.Namespace, device: torch.device, rows: list[dict[str, Any]]) -> None:
    kept = {name: value for name, value in vars(options).items() if name not in ("data", "output")}
    installed = {found.metadata["Name"] or "": found.version for found in metadata.distributions()}
    result = {
        "command": f"python -m softfeed.benchmarks.outputs {options.data.name}",
        "settings": kept,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "versions": {name: installed[name] for name in installed if name.startswith(("torch", "nvidia-dali"))},
        "ratio_to": FIRST,
        "rates": rows,
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
