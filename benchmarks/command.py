"""`softfeed bench`: how fast a data set is loaded, what each step costs, and what limits it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from .suites import DEFAULTS, SUITES, fill_in

if TYPE_CHECKING:
    from .result import Result
    from .session import Session

_EXAMPLES = """examples:
  softfeed bench imagenet/train                             # the steps, and a verdict
  softfeed bench imagenet/train --model resnet50            # and whether a training step would wait
  softfeed bench imagenet/train --output now.json --compare before.json
  softfeed bench imagenet/val --suite peers                 # other loaders on the same files
  softfeed bench /tmp/million --synthetic 1000000 --suite scaling

Everything takes turns, so the ratios hold on a machine that others use too; a ratio is the median over the repeats.
"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the command to the parser of `softfeed`."""
    parser = commands.add_parser(
        "bench",
        help="measure how fast data is loaded, and say what limits it",
        description="Measure images/s and CPU seconds per image of the loader's steps added in turn, and say what the "
        "bottleneck is, what would be possible without it, and what to change.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("data", metavar="DATA", help="image folder or shard set; with --synthetic where to write it")
    what = parser.add_argument_group("what is measured")
    suite = what.add_mutually_exclusive_group()
    suite.add_argument(
        "--suite",
        choices=tuple(SUITES),
        default="steps",
        help="steps: the loader's steps added in turn; operations: each operation against the soft crop, and soft "
        "against hard; peers: other loaders, on up to 20,000 images of a folder; storage: what smaller images give; "
        "scaling: threads, batch sizes, ranks, sizes of the set; memory: whether it stays flat (default: %(default)s)",
    )
    suite.add_argument("--peers", dest="suite", action="store_const", const="peers", help="same as --suite peers")
    what.add_argument(
        "--model",
        metavar="NAME",
        help="steps: also time a training step of this network (resnet50, small-cnn...) with data",
    )
    what.add_argument(
        "--recipe",
        metavar="NAME",
        help="a preset such as soft-imagenet; full: soft crop, flip, occlusion, mollification; or everything: that and "
        f"TrivialAugment (default: {DEFAULTS['recipe']}; peers and operations have recipes of their own)",
    )
    what.add_argument(
        "--synthetic",
        type=int,
        metavar="N",
        help="write a synthetic shard set of N samples to DATA, and play that; not for peers and storage",
    )
    what.add_argument(
        "--max-side",
        type=int,
        metavar="S",
        help="peers: first re-encode every image to this longest side, as a 4:2:0 JPEG of quality 90 (default: as they "
        "are)",
    )
    what.add_argument("--images", type=int, metavar="N", help=f"memory: images to play (default: {DEFAULTS['images']})")
    _add_playing(parser.add_argument_group("how it is played"))
    _add_results(parser.add_argument_group("results"))


def _add_playing(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--batch-size", type=int, default=64, metavar="N", help="images of a batch (default: 64)")
    group.add_argument(
        "--image-size", type=int, metavar="S", help="pixels a side (default: a raw set's own size, else 224)"
    )
    group.add_argument(
        "--threads", type=int, metavar="N", help="threads of the graph; workers of other loaders (default: the cores)"
    )
    group.add_argument(
        "--dtype",
        choices=("float32", "float16", "bfloat16"),
        help=f"of images, except for peers (default: {DEFAULTS['dtype']})",
    )
    group.add_argument(
        "--channels-last",
        action="store_true",
        default=None,
        help="images with channels last, except for peers (default: first)",
    )
    group.add_argument("--device", choices=("cpu", "cuda"), help="default: the GPU where there is one")
    group.add_argument(
        "--seconds", type=float, metavar="S", help="length of a turn, besides its warm-up; not for memory (default: 3)"
    )
    group.add_argument("--repeats", type=int, metavar="N", help="turns of each contender; not for memory (default: 5)")
    group.add_argument(
        "--cold",
        action="store_true",
        default=None,
        help="steps, operations, peers, storage: drop the files from the page cache before each turn (default: read "
        "every file once, so that it is warm)",
    )


def _add_results(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--output", "--json", type=Path, metavar="FILE", help="write the result as JSON")
    group.add_argument("--chart", type=Path, metavar="FILE", help="write a chart as PNG (default: beside --output)")
    group.add_argument(
        "--compare",
        type=Path,
        metavar="OLD",
        help="older result to compare with; exit status 1 if something got slower by more than the spread of both, at "
        "least 3 repeats each",
    )


def run(args: argparse.Namespace) -> int:
    """Measure as the command line says; the exit status, which is 1 if something failed that others outlived."""
    from . import result

    _check(args)
    old = None if args.compare is None else result.from_json(args.compare)
    session = _session(args)
    measured = _suite(args.suite)(session, args)
    print(measured)
    if args.output is not None:
        args.output.write_text(result.to_json(measured), encoding="utf-8")
    chart = args.chart or (args.output.with_suffix(".png") if args.output else None)
    if chart is not None:
        chart.write_bytes(_chart(measured))
    slower = 0 if old is None else _report(old, measured)
    return max(slower, int(bool(session.failed)))


def _check(args: argparse.Namespace) -> None:
    """Raise ValueError or OSError for what would fail only after everything was measured."""
    from .measurement import check_turns
    from .result import check_output

    for name in ("batch_size", "image_size", "threads", "images", "synthetic", "max_side"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"{name.replace('_', '-')} must be at least 1, got {value}")
    fill_in(args)
    check_turns(args.seconds, args.repeats)
    for name in ("output", "chart"):
        check_output(getattr(args, name), name)
    if args.chart is None and args.output is not None and args.output.suffix == ".png":
        raise ValueError(f"output must be a JSON file, got {args.output}; --chart names the picture")


def _session(args: argparse.Namespace) -> Session:
    from ..pipelines.process import pick_device
    from ..pipelines.sources import open_source
    from . import synthetic
    from .progress import Progress
    from .recorded import command_line
    from .session import Session, recipe_by_name
    from .steps import Played

    progress = Progress()
    progress.stage(f"opening {args.data}")
    if args.synthetic is not None:
        synthetic.write_set(Path(args.data), args.synthetic, report=progress.line)
    source = open_source(args.data)
    recipe = recipe_by_name(args.recipe, raw=source.raw_shape is not None)
    size = args.image_size or source.usual_size
    device = pick_device(args.device).type
    output = {"dtype": args.dtype, "channels_last": args.channels_last}
    played = Played(args.data, recipe, args.batch_size, size, args.threads, device, **output)
    return Session(played, args.seconds, args.repeats, args.cold, args.model, command_line(args.argv), progress)


def _suite(name: str) -> Callable[[Session, argparse.Namespace], Result]:
    import importlib

    return importlib.import_module(f".{name}_suite", __package__).run


def _chart(measured: Result) -> bytes:
    from . import chart
    from .steps import Step

    if "curves" in measured.facts:
        return chart.curves(measured.facts["curves"], measured.facts.get("axes", {}))
    title = f"{measured.suite}, {measured.settings['image_size']} pixels, batches of {measured.settings['batch_size']}"
    if measured.facts.get("steps"):
        return chart.added([Step(**step) for step in measured.facts["steps"]], title, measured.rates)
    return chart.bars(measured.rates, title, marked="softfeed")


def _report(old: Result, new: Result) -> int:
    """Print a comparison; 1 if something got slower."""
    from . import comparison

    changes, differences = comparison.compare(old, new), comparison.differences(old, new)
    print("\nnew / old")
    print("\n".join(map(str, [*changes, *comparison.cautions(old, new)])))
    if differences:
        print("\nwhat else differs between the two runs:\n" + "\n".join(differences))
    return int(any(change.verdict == "slower" for change in changes))
