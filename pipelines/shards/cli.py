"""The command `softfeed convert`."""

import argparse
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .containers.formats import CONTAINERS
from .sources.opening import SOURCE_FORMATS, SourceOptions, open_source

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .convert import Conversion
    from .layout import ShardOptions
    from .progress import ConversionProgress
    from .sources.opening import Source

_EXAMPLES = """examples:
  softfeed convert imagenet/train shards/train
  softfeed convert s3://bucket/ILSVRC2012_img_train.tar shards/train --fetch-to /scratch
  softfeed convert cifar100/ shards/cifar-train --split train --raw

A conversion that was stopped goes on when the same command is run again.
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    """Add the command to the parser of `softfeed`."""
    parser = subparsers.add_parser(
        "convert",
        help="turn images into a shard set that reads fast",
        description="Convert labelled images to a shard set: shuffled WebDataset, TFRecord or RecordIO files with DALI "
        "indexes. Every image is decoded once to find the bad ones. SOURCE is an image folder (SOURCE/class/image) or "
        "a tar of one, ILSVRC2012 as published (train: the tar of tars; val: the flat tar), Parquet files of encoded "
        "images, CIFAR as published (python or binary version, unpacked or tar.gz), .npz or .npy arrays, MNIST's IDX "
        "files, or an existing WebDataset, TFRecord or RecordIO set, of softfeed or another program.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="file or folder of labelled images, or the URL of one that fsspec can open (with --fetch-to)",
    )
    parser.add_argument("dest", metavar="DEST", help="folder of the shard set: new, empty, or an unfinished conversion")
    _add_source_arguments(parser.add_argument_group("reading SOURCE"))
    _add_set_arguments(parser.add_argument_group("the shard set"))
    parser.add_argument(
        "--fetch-to", metavar="FOLDER", help="where to put the files of a SOURCE that is a URL; they are kept there"
    )
    parser.add_argument(
        "--workers", type=int, metavar="N", help="processes (default: one per core, fewer for a small SOURCE)"
    )
    parser.add_argument(
        "--dask",
        metavar="ADDRESS",
        help="do the work on a Dask cluster instead, given its scheduler, such as tcp://host:8786; its workers must "
        "see SOURCE and DEST under the same paths (default: on this machine)",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace a finished shard set, or an unfinished one of other images or options, in DEST",
    )
    return parser


def _add_source_arguments(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--source-format",
        choices=SOURCE_FORMATS,
        default="auto",
        help="default: auto, by what lies in SOURCE",
    )
    group.add_argument("--split", metavar="NAME", help="which split to take, such as train (default: the only one)")
    group.add_argument(
        "--image-column",
        metavar="NAME",
        help="Parquet column, array, TFRecord feature or WebDataset extension of images (default: image, img, x_train, "
        "image/encoded, the one that is an image's)",
    )
    group.add_argument(
        "--label-column",
        metavar="NAME",
        help="Parquet column, CIFAR-100 label, array, TFRecord feature or WebDataset extension of labels, or the "
        "position of the class among several labels in RecordIO (default: label, fine_label, y_train, "
        "image/class/label, cls)",
    )
    group.add_argument(
        "--labels",
        metavar="FILE",
        help="labels that are not with the images: for ILSVRC2012's validation tar the development kit, Kaggle's "
        "LOC_val_solution.csv or lines of image and label; for arrays an .npy file; for IDX the file of labels "
        "(default: beside SOURCE under their usual name)",
    )


def _add_set_arguments(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--format",
        choices=tuple(CONTAINERS),
        default="webdataset",
        help="container of the shards, which DALI and other programs read (default: webdataset)",
    )
    group.add_argument(
        "--raw",
        nargs="?",
        const=True,
        type=_raw_size,
        metavar="SIZE",
        help="store pixels instead of files: SIZE or HEIGHTxWIDTH resizes all images to that, whatever their aspect "
        "ratio; without SIZE all must have the size of the first (default: store files, but pixels of arrays)",
    )
    group.add_argument(
        "--no-raw",
        dest="raw",
        action="store_const",
        const=False,
        help="store the pixels of arrays as PNG files (default: as they are)",
    )
    _add_encoding_arguments(group)
    group.add_argument(
        "--shard-size",
        type=int,
        metavar="N",
        help="samples per shard (default: 1000, or fewer, at least 64, to have 16 shards)",
    )
    group.add_argument(
        "--val-share",
        type=float,
        metavar="SHARE",
        help="set a share of every class aside for validation, such as 0.1, drawn with --seed; makes the two sets "
        "DEST/train and DEST/val (default: one set, DEST)",
    )
    group.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the shuffle (default: 0)")
    group.add_argument("--no-shuffle", action="store_true", help="keep the order of SOURCE (default: shuffle all)")
    group.add_argument(
        "--no-check", action="store_true", help="read only the headers of images (default: decode every image)"
    )
    group.add_argument(
        "--max-bad",
        type=int,
        metavar="N",
        help="bad images to leave out before giving up (default: 0.1%% of all, rounded up)",
    )


def _add_encoding_arguments(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--max-side",
        type=int,
        metavar="N",
        help="scale images down whose longer side is above N pixels, and rewrite those as JPEG, but as PNG what comes "
        "as arrays (default: keep all)",
    )
    group.add_argument(
        "--quality",
        type=int,
        metavar="Q",
        help="rewrite all images as JPEG of this quality, 1 to 100 (default: keep the files; what other options "
        "rewrite gets 95)",
    )
    group.add_argument(
        "--subsampling",
        choices=("420", "422", "444"),
        help="rewrite all images as JPEG with this chroma subsampling, 420 for 4:2:0 (default: keep the files; what "
        "other options rewrite gets 420)",
    )
    group.add_argument(
        "--normalize",
        action="store_true",
        help="rewrite images that decoders may not agree on, such as CMYK, 16-bit, animated or turned by EXIF, as "
        "plain upright JPEG or PNG (default: list them in odd.json and keep them)",
    )


def _raw_size(text: str) -> int | tuple[int, int]:
    numbers = text.lower().split("x")
    if len(numbers) > 2 or not all(number.isdecimal() and int(number) > 0 for number in numbers):
        raise argparse.ArgumentTypeError(f"must be SIZE or HEIGHTxWIDTH in pixels, got {text!r}")
    return int(numbers[0]) if len(numbers) == 1 else (int(numbers[0]), int(numbers[1]))


def run(args: argparse.Namespace) -> int:
    """Run the command.

    Returns:
        exit status 0.

    Raises:
        ValueError, OSError: for what a user can put right, in one line.
    """
    # Here, so that `softfeed convert --help` does not wait for DALI.
    from .cluster import dask_cluster
    from .layout import ShardOptions
    from .progress import ConversionProgress
    from .remote import is_url

    options = ShardOptions(
        raw=args.raw,
        shard_samples=args.shard_size,
        seed=args.seed,
        shuffle=not args.no_shuffle,
        check=not args.no_check,
        format=args.format,
        max_side=args.max_side,
        quality=args.quality,
        subsampling=args.subsampling,
        normalize=args.normalize,
    )
    if is_url(args.dest):
        raise ValueError(f"DEST must be a folder of this machine, got {args.dest}; softfeed copy takes the set there")
    reading = SourceOptions(args.source_format, args.split, args.image_column, args.label_column, args.labels)
    if args.dask and args.workers is not None:
        raise ValueError(f"--workers must be left out with --dask, got {args.workers}; the cluster has its own")
    progress = ConversionProgress()
    cluster = dask_cluster(args.dask) if args.dask else nullcontext((None, args.workers))
    try:
        with cluster as (executor, workers):
            outcomes = _convert(
                open_source(_fetched(args, progress), reading),
                args,
                options,
                workers=workers,
                executor=executor,
                overwrite=args.overwrite,
                max_bad=args.max_bad,
                progress=progress,
            )
    except KeyboardInterrupt:
        raise progress.interrupted() from None
    finally:
        progress.close()
    for part, outcome in outcomes.items():
        sys.stdout.write(summary(outcome) if outcome else f"{part} was finished by an earlier run\n")
    return 0


def _fetched(args: argparse.Namespace, progress: "ConversionProgress") -> str | Path:
    """Where the source lies on this machine, fetched if it lies elsewhere."""
    from .fetching import fetch
    from .remote import is_url

    if not is_url(args.source):
        if args.fetch_to:
            raise ValueError(f"--fetch-to must be left out for a source of this machine, got {args.fetch_to}")
        return args.source
    if not args.fetch_to:
        raise ValueError(f"--fetch-to must name a folder for a source that lies elsewhere, got none for {args.source}")
    return fetch(args.source, Path(args.fetch_to), lambda done, total: progress("fetching", done, total, 0, 0))


def _convert(
    source: "Source", args: argparse.Namespace, options: "ShardOptions", **settings: Any
) -> "Mapping[str, Conversion | None]":
    """Outcome of each set that is made."""
    from .convert import convert
    from .splitting import convert_split

    if args.val_share is None:
        return {"all": convert(source, args.dest, options, **settings)}
    return convert_split(source, args.dest, options, val_share=args.val_share, **settings)


def summary(outcome: "Conversion") -> str:
    """Outcome of a conversion as a few aligned lines."""
    made = outcome.manifest
    height, width = made.largest
    unseen = "none" if made.created["options"]["check"] else "none by their headers, the rest was not checked"
    rows = {
        "shard set": str(outcome.folder),
        "samples": f"{made.num_samples:,} of {len(made.classes):,} classes",
        "shards": f"{len(made.shards):,}, {outcome.bytes / 1e6:,.1f} MB",
        "encoding": made.encoding if made.raw_shape is None else f"raw, {height}x{width} pixels each",
        "largest": f"{height} pixels high, {width} pixels wide",
        "bad images": f"{len(outcome.bad):,}, listed in bad.json" if outcome.bad else unseen,
        "odd images": _odd(outcome),
        "took": f"{outcome.elapsed_s:.1f} s",
    }
    if outcome.written:
        rows["took"] += f", {outcome.written / outcome.elapsed_s:,.0f} images/s"
    if outcome.written < made.num_samples:
        rows["resumed"] = f"{made.num_samples + len(outcome.bad) - outcome.written:,} images were done before"
    if not outcome.odd:
        del rows["odd images"]
    lines = [f"{name:<11} {value}" for name, value in rows.items()]
    lines += [f"  left out: {image.name}: {image.reason}" for image in outcome.bad[:5]]
    return "\n".join(lines) + "\n"


def _odd(outcome: "Conversion") -> str:
    rewritten = sum(image.rewritten for image in outcome.odd)
    kept = len(outcome.odd) - rewritten
    advice = "; --normalize rewrites them" if kept and outcome.manifest.raw_shape is None else ""
    return f"{len(outcome.odd):,}, listed in odd.json, {rewritten:,} rewritten{advice}"
