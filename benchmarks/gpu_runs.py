"""Everything that is worth measuring on a GPU, one run after another, each with a file of its own.

`python -m softfeed.benchmarks.gpu_runs IMAGE_FOLDER --results FOLDER` writes `FOLDER/NAME-gpu.json` and charts:

- `steps`: the decode-and-resize graph against the full recipe, step by step, GPU time, and a ResNet-50 step's waiting;
  `steps-float16` the same with float16 images, channels last;
- `operations`: soft against hard, each operation alone, the full recipe over the graph up to the resize;
- `peers`: other loaders; `peers-500` the same on images re-encoded to 500 pixels;
- `storage`: what smaller images give;
- `alternatives`: the blur's own cost for a batch of 256;
- `outputs`: float32, float16 and bfloat16, channels first and last, shares of the JPEG engines;
- `memory`: host and GPU over 200,000 images;
- `scaling`: threads and batch sizes.

A run that fails is named at the end, and the others go on.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from .errors import in_one_line

BENCH = ("-m", "softfeed.train.cli", "bench")


def runs(data: str, device: str) -> dict[str, list[str]]:
    """Arguments of Python for each run, by its name; `--output` is added to them."""
    large = ["--device", device, "--batch-size", "256"]
    return {
        "steps": [*BENCH, data, *large, "--model", "resnet50"],
        "steps-float16": [*BENCH, data, *large, "--model", "resnet50", "--dtype", "float16", "--channels-last"],
        "operations": [*BENCH, data, *large, "--suite", "operations"],
        "peers": [*BENCH, data, *large, "--suite", "peers"],
        "peers-500": [*BENCH, data, *large, "--suite", "peers", "--max-side", "500"],
        "storage": [*BENCH, data, *large, "--suite", "storage", "--dtype", "float16"],
        "alternatives": ["-m", "softfeed.benchmarks.alternatives", *large],
        "outputs": ["-m", "softfeed.benchmarks.outputs", data, *large],
        "memory": [*BENCH, data, *large, "--suite", "memory"],
        "scaling": [*BENCH, data, "--device", device, "--suite", "scaling"],
    }


@in_one_line
def main(arguments: list[str] | None = None) -> int:
    """Run everything; returns 1 if a run failed."""
    parser = argparse.ArgumentParser(
        prog="python -m softfeed.benchmarks.gpu_runs",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("data", help="image folder")
    parser.add_argument(
        "--results", type=Path, default=Path("benchmarks/results"), help="folder (default: %(default)s)"
    )
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to try the commands out (default: cuda)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these runs")
    options = parser.parse_args(arguments)
    every = runs(options.data, options.device)
    unknown = set(options.only or ()) - set(every)
    if unknown:
        raise ValueError(f"only must name runs of {', '.join(every)}, got {', '.join(sorted(unknown))}")
    if not options.results.is_dir():
        raise FileNotFoundError(f"results must be a folder that exists, got {options.results}; make it first")
    failed = []
    for name in options.only or every:
        print(f"\n== {name}", flush=True)
        output = str(options.results / f"{name}-{'gpu' if options.device == 'cuda' else options.device}.json")
        if subprocess.run([sys.executable, *every[name], "--output", output]).returncode:
            failed.append(name)
    if failed:
        print(f"\nfailed: {', '.join(failed)}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
