"""`softfeed eval`: accuracy and calibration of a trained classifier."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from ..pipelines import atomic
from . import data_options

if TYPE_CHECKING:
    from torch import nn

    from ..pipelines import Loader
    from .checkpoint import Checkpoint
    from .distributed import Process
    from .metrics import Scores


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the command to the parser of `softfeed`."""
    parser = commands.add_parser(
        "eval",
        help="measure accuracy and calibration of a checkpoint",
        description="Print top-1, top-5, NLL (nats) and ECE (10 bins) of a checkpoint on a data set.",
    )
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="last.pt or best.pt of a run")
    parser.add_argument("data", metavar="DATA", help="image folder or converted shard set")
    parser.add_argument(
        "--occlusion", type=float, default=0.0, metavar="SHARE", help="hide this share of every image by a square"
    )
    data_options.add_resize_option(parser, default="as in the training of the checkpoint")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the scores and the bins of the ECE")
    parser.add_argument("--batch-size", type=int, default=64, metavar="N", help="images per process (default: 64)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the squares' places (default: 0)")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: the GPU where there is one")
    parser.add_argument("--threads", type=int, metavar="N", help="threads for data per process")
    data_options.add_fault_options(parser)


def run(args: argparse.Namespace) -> int:
    """Evaluate as the command line says; the exit status."""
    if not 0 <= args.occlusion <= 1:
        raise ValueError(f"occlusion must be a share in [0, 1], got {args.occlusion:g}; --occlusion 0.4 hides 40 %")
    from .checkpoint import load
    from .distributed import agree, from_main, joined, rank_errors
    from .engine import evaluate
    from .skipped import report

    with joined(args.device) as process, ExitStack() as stack:
        if args.json is not None:
            from_main(lambda: _check_json(args.json), process)
        checkpoint = from_main(lambda: load(args.checkpoint), process)
        data_options.check_data(DATA=args.data)
        model, loader = agree(lambda: _prepare(args, checkpoint, process, stack), process)
        with rank_errors(process):
            scores = evaluate(model, loader, num_classes=loader.num_classes, process=process)
            skipped = report({"evaluation": loader}, process)
        if process.is_main:
            numbers = f"top-1 {scores.top1:.2%}  top-5 {scores.top5:.2%}  NLL {scores.nll:.4f}  ECE {scores.ece:.4f}"
            about = [*data_options.told_of_empty_classes(loader, option="data"), *skipped]
            print("\n".join([f"{numbers}  ({scores.num_samples:,} images)", *about]))
            if args.json is not None:
                _write_json(args, scores, _resize(args, checkpoint))
    return 0


def _check_json(path: Path) -> None:

    if path.is_dir():
        raise IsADirectoryError(f"json must be a file, got the folder {path}; name a file in it")
    atomic.require_writable(path.parent, name="json")


def _prepare(
    args: argparse.Namespace, checkpoint: Checkpoint, process: Process, stack: ExitStack
) -> tuple[nn.Module, Loader]:
    from ..pipelines import Loader, Normalize, Recipe, presets
    from . import models
    from .threads import share_cores

    settings = checkpoint.settings
    missing = sorted({"image_size", "mean", "model", "std"} - set(settings))
    if missing:
        raise ValueError(
            f"checkpoint must be written by softfeed train, got {args.checkpoint} without {missing[0]} in its settings"
        )
    trained = Recipe(normalize=Normalize(tuple(settings["mean"]), tuple(settings["std"])))
    resize = _resize(args, checkpoint)
    data_options.check_resize(resize, settings["image_size"])
    with data_options.classes_of("the checkpoint", option="data"):
        loader = Loader(
            args.data,
            presets.evaluation(trained, resize=resize, occlusion=args.occlusion),
            args.batch_size,
            settings["image_size"],
            classes=checkpoint.classes,
            seed=args.seed,
            device=process.device,
            num_threads=share_cores(process, args.threads),
            **data_options.fault_settings(args),
        )
    stack.enter_context(loader)
    outputs = len(checkpoint.classes) + settings.get("extra_classes", 0)
    model = models.build(settings["model"], outputs, image_size=settings["image_size"])
    model.load_state_dict(checkpoint.model)
    return model.to(process.device), loader


def _resize(args: argparse.Namespace, checkpoint: Checkpoint) -> int | None:
    """Pixels of the shorter side before the crop; None for the image size, which checkpoints without a word mean."""
    return checkpoint.settings.get("resize") if args.resize is None else args.resize


def _write_json(args: argparse.Namespace, scores: Scores, resize: int | None) -> None:
    import json
    from dataclasses import asdict

    evaluated = {"data": args.data, "resize": resize, "occlusion": args.occlusion}
    result = {"checkpoint": str(args.checkpoint), **evaluated, **asdict(scores)}
    text = json.dumps(result, indent=1) + "\n"
    args.json.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_bytes(args.json, text.encode())
