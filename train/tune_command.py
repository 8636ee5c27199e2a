"""`softfeed tune`: find the fastest settings of the loader for a data set on this machine."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from . import data_options

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from ..pipelines import Loader
    from .tuning import Trial


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the command to the parser of `softfeed`."""
    parser = commands.add_parser(
        "tune",
        help="find the fastest settings of the loader for a data set on this machine",
        description=(
            "Plays batches of DATA with different settings in turn - threads and prefetch depth, on a GPU also the "
            "share of its JPEG engines and whether only visible parts are decoded - and prints those to use. A setting "
            "that is not clearly faster stays as it is, and so does what changes pixels: what a GPU that repeats "
            "subsampled chroma instead of interpolating it would give is told, not taken. It measures the loader "
            "alone: run it while nothing else is running, and on a CPU leave cores to the network."
        ),
    )
    parser.add_argument("data", metavar="DATA", help="data to play: image folder or converted shard set")
    data_options.add_recipe_options(parser)
    parser.add_argument("--batch-size", type=int, default=64, metavar="N", help="images per batch (default: 64)")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: the GPU where there is one")
    parser.add_argument(
        "--seconds",
        type=float,
        default=60.0,
        metavar="T",
        help="time to measure; slow images take longer, as each value is measured at least five times (default: 60)",
    )
    parser.add_argument(
        "--rounds", type=int, default=7, metavar="N", help="how often each value is measured at most (default: 7)"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON, with all that was measured")


def run(args: argparse.Namespace) -> int:
    """Tune as the command line says; the exit status."""
    data_options.check_data(DATA=args.data)
    with data_options.in_terms_of_options():
        return _tune(args)


def _tune(args: argparse.Namespace) -> int:
    from ..benchmarks.verdict import of_epochs
    from ..pipelines import Loader, presets
    from .tuning import check_budget, measured, tune

    check_budget(args.seconds, args.rounds)
    recipe, image_size = presets.by_name(data_options.recipe_name(args)), data_options.image_size(args)

    targets: dict[str, Any] = {"targets": "soft"} if recipe.needs_targets else {}

    def make(batch_size: int = args.batch_size, **settings: Any) -> Loader:
        # filled up, so that a data set of less than a batch can be played, too
        return Loader(
            args.data, recipe, batch_size, image_size, device=args.device, last_batch="fill", **targets, **settings
        )

    with make() as loader:
        data_options.check_own_size(loader)
        device, start = loader.device, loader.speed_settings
        for warning in of_epochs(loader.num_samples, args.batch_size):
            print(warning, file=sys.stderr)
    part = 0.2 * args.seconds
    decodes_on_gpu = "hw_decoder_load" in start
    seconds = args.seconds - (2 if decodes_on_gpu else 1) * part
    trials = []
    for trial in tune(make, start, _choices(start), seconds=seconds, rounds=args.rounds, report=_progress()):
        trials.append(trial)
        if not args.json:
            print(_table(trial), flush=True)
    settings = {trial.name: trial.chosen for trial in trials}
    sizes = (args.batch_size, max(1, args.batch_size // 4), max(1, args.batch_size // 2), 2 * args.batch_size)
    by_size = measured(
        lambda size: make(size, **settings),
        "batch_size",
        tuple(dict.fromkeys(sizes)),
        seconds=part,
        rounds=args.rounds,
    )
    by_pixels = None
    if decodes_on_gpu:
        ways = _ways_to_upsample(_settings(trials))
        by_pixels = measured(
            lambda options: make(**ways[options]), "fancy_upsampling", tuple(ways), seconds=part, rounds=args.rounds
        )
    if args.json:
        print(_as_json(args, device, trials, by_size, by_pixels))
    else:
        print(_advice(args, device, trials, by_size, by_pixels))
    return 0


def _choices(start: dict[str, Any]) -> dict[str, tuple[Any, ...]]:
    """Values to try, by setting, in the order of what matters most."""
    threads = start["num_threads"]
    around = sorted({max(1, threads // 2), max(1, threads - 1), threads, threads + 1, 2 * threads})
    choices: dict[str, tuple[Any, ...]] = {"num_threads": tuple(around)}
    if "hw_decoder_load" in start:
        choices["hw_decoder_load"] = (0.0, 0.25, 0.5, 0.65, 0.8, 1.0)
    if start.get("roi_decode"):  # where it crashes there is nothing to try
        choices["roi_decode"] = (True, False)
    return choices | {"prefetch": (1, 2, 3, 4)}


def _ways_to_upsample(settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Settings to use, and those with repeated chroma, by their options; the first changes no pixels.

    With repeated chroma the JPEG engines take batches in another way, for which another share may be best.
    """
    shares = sorted({0.0, 0.65, 1.0, settings["hw_decoder_load"]})
    ways = [
        {"fancy_upsampling": True, "hw_decoder_load": settings["hw_decoder_load"]},
        *({"fancy_upsampling": False, "hw_decoder_load": share} for share in shares),
    ]
    return {data_options.as_options(way): settings | way for way in ways}


def _settings(trials: list[Trial]) -> dict[str, Any]:
    """What to use; a loader decodes parts of images by default, and knows where that crashes, so only False counts."""
    chosen = {trial.name: trial.chosen for trial in trials}
    return {name: value for name, value in chosen.items() if (name, value) != ("roi_decode", True)}


def _progress() -> Callable[[str], None]:
    """Shows what is going on: in place on a terminal, else a line every few seconds."""
    shown_at = time.perf_counter()

    def show(text: str) -> None:
        nonlocal shown_at
        if sys.stderr.isatty():
            print(f"\r{text}\033[K", end="", file=sys.stderr, flush=True)
        elif time.perf_counter() - shown_at >= 10:
            shown_at = time.perf_counter()
            print(text, file=sys.stderr, flush=True)

    return show


def _table(trial: Trial) -> str:
    lines = [_rates(trial)]
    if trial.chosen == trial.values[0]:
        lines.append(f"  keeps {trial.name} = {trial.chosen}: no other value is clearly faster")
    else:
        lines.append(f"  takes {trial.name} = {trial.chosen}: {trial.gain:.2f} times as fast as {trial.values[0]}")
    return "\n".join(lines)


def _rates(trial: Trial) -> str:
    clear = "\r\033[K" if sys.stderr.isatty() and sys.stdout.isatty() else ""
    wide = max(6, *(len(str(value)) for value in trial.values))
    lines = [f"{clear}{trial.name:<18} images/s: median (lowest to highest of {len(trial.images_per_s[0])} rounds)"]
    for value, median, rates in sorted(zip(trial.values, trial.medians, trial.images_per_s, strict=True)):
        lines.append(f"  {value!s:>{wide}} {median:>12,.0f}   ({min(rates):,.0f} to {max(rates):,.0f})")
    return "\n".join(lines)


def _quicker(by_pixels: Trial | None) -> str | None:
    """Options that are clearly faster, but change pixels; None if there are none."""
    if by_pixels is None or by_pixels.fastest == by_pixels.values[0]:
        return None
    return by_pixels.fastest


def _offer(by_pixels: Trial) -> str:
    """What repeated chroma would give, and that it has a price."""
    quicker = _quicker(by_pixels)
    if quicker is None:
        told = "keeps fancy_upsampling = True: without it, pixels would change, and nothing is clearly faster"
    else:
        gain = replace(by_pixels, chosen=quicker).gain
        told = (
            f"keeps fancy_upsampling = True; {quicker} is {gain:.2f} times as fast, but changes pixels:\n"
            "  subsampled chroma is repeated, so that edges between colours differ from what CPUs and Pillow decode"
        )
    return f"{_rates(by_pixels)}\n  {told}"


def _advice(
    args: argparse.Namespace, device: torch.device, trials: list[Trial], by_size: Trial, by_pixels: Trial | None
) -> str:
    from ..pipelines import presets

    settings = _settings(trials)
    changed = {trial.name: trial.chosen for trial in trials if trial.chosen != trial.values[0]}
    head = "use these settings:" if changed else "the differences are noise; the defaults are as good as any:"
    name, image_size = data_options.recipe_name(args), data_options.image_size(args)
    played = f"--recipe {name} --image-size {image_size}"
    targets = {"targets": "soft"} if presets.by_name(name).needs_targets else {}
    keywords = ", ".join(f"{name}={value!r}" for name, value in (settings | targets).items())
    return "\n".join(
        [
            _rates(by_size) + "\n  with these settings; the batch size is for you to choose",
            *([] if by_pixels is None else [_offer(by_pixels)]),
            "",
            head,
            # the training command has a rule of its own for threads, which only a clear gain should overrule
            f"  softfeed train {' '.join([args.data, played, *data_options.as_options(changed).split(), '...'])}",
            *_told_of_threads(changed, settings["num_threads"], device),
            f"  Loader({args.data!r}, presets.by_name({name!r}), {args.batch_size}, {image_size}, {keywords})",
        ]
    )


def _told_of_threads(changed: dict[str, Any], tuned: int, device: torch.device) -> list[str]:
    """Why the command above, which leaves threads to training, takes another number than the loader below."""
    from .threads import default_data_threads

    trained = default_data_threads(device)
    if "num_threads" in changed or trained == tuned:
        return []
    why = ", to leave cores to the network" if trained < tuned else ""
    return [f"  (without --threads, train reads data with num_threads = {trained}, not {tuned}{why})"]


def _as_json(
    args: argparse.Namespace, device: torch.device, trials: list[Trial], by_size: Trial, by_pixels: Trial | None
) -> str:
    settings = _settings(trials)
    measured = [
        {
            "setting": trial.name,
            "in_use": trial.values[0],
            "chosen": trial.chosen,
            "images_per_s": [
                {"value": value, "median": median, "rounds": list(rates)}
                for value, median, rates in zip(trial.values, trial.medians, trial.images_per_s, strict=True)
            ],
        }
        for trial in (*trials, by_size, *([] if by_pixels is None else [by_pixels]))
    ]
    result = {
        "data": args.data,
        "device": str(device),
        "batch_size": args.batch_size,
        "settings": settings,
        "options": data_options.as_options(settings),
        "faster_with_other_pixels": _quicker(by_pixels),
        "measured": measured,
    }
    return json.dumps(result, indent=1)
