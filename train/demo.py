"""`softfeed demo`: the main job on real data that needs no network, in about a minute and a half."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ..pipelines import atomic

if TYPE_CHECKING:
    from .comparison import Run

REPORT_FILE = "report.html"


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the command to the parser of `softfeed`."""
    parser = commands.add_parser(
        "demo",
        help="train on handwritten digits with hard and soft crops, and report",
        description="Convert scikit-learn's 1,797 handwritten digits to shard sets, train a small network with the "
        "hard and with the soft crop from the same seeds, print a table and write report.html. A second call reuses "
        "the shard sets, and each training that was the same in data, settings, versions and code.",
    )
    parser.add_argument(
        "--output", type=Path, default=Path("demo-output"), metavar="DIR", help="default: %(default)s in this folder"
    )
    parser.add_argument("--epochs", type=int, default=16, metavar="N", help="of each training (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="trainings per recipe (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="the first seed (default: %(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: the GPU where there is one")
    parser.add_argument("--fresh", action="store_true", help="train again what an earlier call has trained")
    parser.add_argument("--open", action="store_true", help="show the report in the web browser at the end")


def run(args: argparse.Namespace) -> int:
    """Run the demonstration; the exit status."""
    _check(args)
    begin = time.perf_counter()
    _say(f"softfeed demo, writing to {args.output}")
    import torch

    threads = torch.get_num_threads()
    # The network is so small that two threads spend their time waiting for each other: on two busy cores, one thread
    # was up to 20 times as fast.
    torch.set_num_threads(1)
    try:
        report = _measure(args)
    finally:
        torch.set_num_threads(threads)
    _say(f"\nreport: {report.resolve()} ({time.perf_counter() - begin:.0f} s in all)")
    if args.open:
        import webbrowser

        webbrowser.open(report.resolve().as_uri())
    return 0


def _check(args: argparse.Namespace) -> None:
    if args.epochs < 1:
        raise ValueError(f"epochs must be at least 1, got {args.epochs}")
    if args.seeds < 1:
        raise ValueError(f"seeds must be at least 1, got {args.seeds}")
    if args.seed < 0:
        raise ValueError(f"seed must not be negative, got {args.seed}")
    if args.output.exists() and not args.output.is_dir():
        raise ValueError(f"output must be a folder, got the file {args.output}; choose another --output")


def _measure(args: argparse.Namespace) -> Path:
    """Prepare, train, print the table; the report's path."""
    from . import digits, findings
    from .comparison import Comparison, run_all
    from .distributed import Process, pick_device
    from .report import protocol, render

    process = Process(pick_device(args.device))
    _say("\n1 of 3: data")
    shards = digits.prepare(args.output, _say)
    _say(f"\n2 of 3: training, {args.epochs} epochs each, on the {'CPU' if process.device.type == 'cpu' else 'GPU'}")
    comparison = Comparison(shards, args.output / "runs", args.epochs, process)
    seeds = range(args.seed, args.seed + args.seeds)
    runs = run_all(comparison, seeds, fresh=args.fresh, announce=_announce)
    _say("\n3 of 3: report")
    page = render(comparison, runs, output=args.output).encode()
    atomic.write_bytes(args.output / REPORT_FILE, page)
    _say(f"\n{findings.table(runs)}\n\n{protocol(comparison, runs)}\n{findings.summary(runs)}")
    return args.output / REPORT_FILE


def _announce(name: str, run: Run | None) -> None:
    if run is None:
        _say(f"  {name}")  # a line of its own: progress bars come and go on the next
    else:
        how = f"measured {run.measured}" if run.reused else f"{run.elapsed_s:.0f} s"
        _say(f"    top-1 {run.clean.top1:.1%}, ECE {run.clean.ece:.3f}, top-1 hidden {run.occluded.top1:.1%} ({how})")


def _say(text: str) -> None:
    print(text, flush=True)
