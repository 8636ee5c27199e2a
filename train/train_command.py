"""`softfeed train`: train a classifier on softly augmented images."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import data_options

if TYPE_CHECKING:
    from torch import nn

    from ..pipelines import Loader, Recipe
    from .checkpoint import Checkpoint
    from .distributed import Process
    from .engine import Trainer, TrainingPlan


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the command to the parser of `softfeed`."""
    parser = commands.add_parser(
        "train",
        help="train a classifier on softly augmented images",
        description=(
            "Train a classifier with SGD, Nesterov momentum, linear warm-up (5 epochs, at most a tenth of the run) and "
            "a cosine. Writes last.pt, best.pt (highest validation top-1) and TensorBoard scalars to the output "
            "folder. Ctrl-C or SIGTERM saves the run and ends it. Several processes: "
            "torchrun --nproc-per-node N -m softfeed.train.cli train ..."
        ),
    )
    parser.add_argument("data", metavar="DATA", help="training data: image folder or converted shard set")
    parser.add_argument("--val", metavar="DATA", help="validation data, scored after every epoch")
    parser.add_argument(
        "--model",
        default="resnet18",
        metavar="NAME",
        help="torchvision classifier, wrn-28-10 or small-cnn; ResNets get the CIFAR stem (3x3 first convolution, no "
        "pooling) for images of up to 64 pixels (default: %(default)s)",
    )
    parser.add_argument("--epochs", type=int, required=True, metavar="N", help="passes over the training data")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="new folder for this run")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from last.pt in the output folder, if it is there, with the same data and settings, also in the "
        "middle of an epoch, exactly as if there had been no stop; the number of processes may differ where "
        "--batch-size keeps the images of all processes together the same; with a recipe that mixes images, another "
        "number changes their partners",
    )
    parser.add_argument(
        "--save-every-minutes",
        type=float,
        default=10.0,
        metavar="M",
        help="within an epoch, save when the last time is so long ago; 0 for never (default: 10)",
    )
    parser.add_argument(
        "--save-every-steps",
        type=int,
        metavar="N",
        help="within an epoch, also save after every N steps (default: by time alone)",
    )
    parser.add_argument("--batch-size", type=int, default=64, metavar="N", help="images per process (default: 64)")
    parser.add_argument(
        "--lr",
        type=float,
        metavar="RATE",
        help="peak learning rate, used as given (default: 0.1 per 256 images of all processes together; per 128 for "
        "images of up to 64 pixels)",
    )
    parser.add_argument(
        "--weight-decay", type=float, metavar="W", help="default: 1e-4, or 5e-4 for images of up to 64 pixels"
    )
    data_options.add_options(parser)
    data_options.add_resize_option(parser, default="the image size itself, as in the paper")
    parser.add_argument(
        "--loss",
        default="target-weight",
        metavar="NAME",
        help="what the confidence softens: target, weight, target-weight, or plain for nothing (default: %(default)s)",
    )
    parser.add_argument(
        "--label-smoothing", type=float, default=0.0, metavar="A", help="share of every target spread over all classes"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed of weights, order and all draws (default: 0)"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: the GPU where there is one")
    parser.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help="threads for data per process (default: its share of the cores with a GPU, half of it without); "
        "OMP_NUM_THREADS sets those of the network on CPUs",
    )
    data_options.add_speed_options(parser)
    data_options.add_fault_options(parser)


def run(args: argparse.Namespace) -> int:
    """Train as the command line says; the exit status."""
    data_options.check_data(DATA=args.data, val=args.val)
    from .checkpoint import open_run
    from .distributed import agree, from_main, joined, rank_errors
    from .engine import Trainer
    from .saving import Saver
    from .skipped import report

    with joined(args.device) as process, ExitStack() as stack:
        checkpoint = from_main(lambda: open_run(args.output, resume=args.resume), process)
        job = agree(lambda: _prepare(args, process, stack), process)
        job.settings.update(from_main(lambda: _data_settings(args, job, checkpoint), process))
        with rank_errors(process):
            trainer = Trainer(job.model, job.plan, process, num_classes=job.batches.num_classes)
            if checkpoint is not None:
                trainer.restore(checkpoint)
        if process.is_main:
            print(_header(args, job, trainer), flush=True)
        rules = {"every_steps": args.save_every_steps, "every_minutes": args.save_every_minutes}
        saver = Saver(trainer, args.output, job.settings, job.batches.classes, **rules)
        with saver.watching():
            trainer.fit(job.batches, job.validation, after_epoch=saver.after_epoch, between=saver.between)
        lines = report({"training": job.batches, "validation": job.validation}, process)
        if lines and process.is_main:
            print("\n".join(lines), flush=True)
    return 0


@dataclass(frozen=True)
class _Job:
    """A run, checked and ready to start.

    Attributes:
        settings: what a resumed run must share, as plain values.
    """

    model: nn.Module
    plan: TrainingPlan
    batches: Loader
    validation: Loader | None
    settings: dict[str, Any]


def _prepare(args: argparse.Namespace, process: Process, stack: ExitStack) -> _Job:
    from ..pipelines.described import described
    from . import models
    from .distributed import seed_step
    from .saving import check_rules

    check_rules(every_steps=args.save_every_steps, every_minutes=args.save_every_minutes)
    recipe, image_size = data_options.recipe(args), data_options.image_size(args)
    data_options.check_resize(args.resize, image_size)
    batch_size = args.batch_size * process.world_size
    plan = _plan(args, image_size=image_size, batch_size=batch_size)
    batches, validation = _loaders(args, recipe, image_size, process, stack)
    settings = {
        "model": args.model,
        "image_size": image_size,
        "resize": args.resize,
        "recipe": repr(recipe),
        "recipe_fields": described(recipe),
        "mean": list(recipe.normalize.mean),
        "std": list(recipe.normalize.std),
        "extra_classes": recipe.extra_classes,
        "num_samples": batches.num_samples,
        "batch_size": batch_size,
        "seed": plan.seed,
        "epochs": plan.epochs,
        "lr": plan.lr,
        "weight_decay": plan.weight_decay,
        "loss": repr(plan.loss),
        "loss_fields": described(plan.loss),
    }
    seed_step(seed=args.seed, epoch=0, step=0, rank=0)  # the same weights on every rank
    model = models.build(args.model, batches.num_targets, image_size=image_size)
    return _Job(model, plan, batches, validation, settings)


def _data_settings(args: argparse.Namespace, job: _Job, checkpoint: Checkpoint | None) -> dict[str, Any]:
    """What the data is, for the settings; raises if the run to resume had other data or other settings."""
    from ..pipelines.described import is_described
    from ..pipelines.fingerprint import fingerprint
    from .checkpoint import require_same

    data = {"data": fingerprint(args.data), "val": None if args.val is None else fingerprint(args.val)}
    if checkpoint is not None:
        saved, given = checkpoint.settings, job.settings | data
        for name, value in (("recipe", job.batches.recipe), ("loss", job.plan.loss)):
            fields = f"{name}_fields"
            if fields in saved and is_described(saved[fields], value):  # maybe with another repr
                given |= {name: saved.get(name), fields: saved[fields]}
        saved = {"resize": None} | saved  # as evaluation was before there was a choice
        require_same(replace(checkpoint, settings=saved), given, job.batches.classes)
    return data


def _loaders(
    args: argparse.Namespace, recipe: Recipe, image_size: int, process: Process, stack: ExitStack
) -> tuple[Loader, Loader | None]:
    from ..pipelines import Loader, presets
    from .threads import share_cores

    options: dict[str, Any] = {
        "seed": args.seed,
        "device": process.device,
        "num_threads": share_cores(process, args.threads),
        "channels_last": True,  # as the network computes
        **data_options.speed_settings(args),
        **data_options.fault_settings(args),
    }
    with data_options.in_terms_of_options():
        batches = stack.enter_context(
            Loader(args.data, recipe, args.batch_size, image_size, **options, **_targets(args, recipe))
        )
        data_options.check_own_size(batches)
    if args.val is None:
        return batches, None
    evaluation = presets.evaluation(recipe, resize=args.resize)
    options["fancy_upsampling"] = True  # as in `softfeed eval`, on any machine, so that scores compare
    options["classes"] = batches.classes
    with data_options.classes_of("the training data", option="val"):
        validation = stack.enter_context(Loader(args.val, evaluation, args.batch_size, image_size, **options))
    return batches, validation


def _targets(args: argparse.Namespace, recipe: Recipe) -> dict[str, Any]:
    """The loader's options for targets that labels and confidences cannot say."""
    if not recipe.needs_targets:
        return {}
    return {"targets": "soft", "softening": "none" if args.loss == "plain" else args.loss}


def _plan(args: argparse.Namespace, *, image_size: int, batch_size: int) -> TrainingPlan:
    from .engine import TrainingPlan
    from .losses import SoftLoss
    from .schedule import default_lr, default_weight_decay

    lr, weight_decay = args.lr, args.weight_decay
    return TrainingPlan(
        epochs=args.epochs,
        lr=default_lr(batch_size=batch_size, image_size=image_size) if lr is None else lr,
        weight_decay=default_weight_decay(image_size=image_size) if weight_decay is None else weight_decay,
        loss=SoftLoss(args.loss, label_smoothing=args.label_smoothing),
        seed=args.seed,
    )


def _header(args: argparse.Namespace, job: _Job, trainer: Trainer) -> str:
    settings, batches, process = job.settings, job.batches, trainer.process
    lines = [
        f"{args.model} on {batches.num_samples:,} images of {batches.num_classes} classes, {settings['image_size']} "
        f"pixels; batch {settings['batch_size']}, lr {job.plan.lr:.3g}, {process.world_size} x {process.device.type}",
        f"recipe: {settings['recipe']}",
    ]
    if job.validation is not None:
        lines += data_options.told_of_empty_classes(job.validation, option="val")
    if args.resume:
        done = f"{trainer.epoch} of {args.epochs} epochs done"
        if trainer.steps_to_skip:
            done += f", and {trainer.steps_to_skip} of {len(batches)} steps of the next"
        elif not trainer.epoch:
            done = "nothing to resume yet, starting anew"
        lines.append(f"{args.output}: {done}")
    return "\n".join(lines)
