"""The suite `peers`: other loaders on the same files, in processes of their own, in turn."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from ..pipelines import cores
from ..pipelines.shards.convert import convert
from ..pipelines.shards.layout import ShardOptions
from ..pipelines.sources import open_source
from .peers.job import Job
from .peers.registry import MAPPED, PEERS, RAW, SHARED, contender, packages, regime
from .processes import ContenderError, OwnProcess
from .rates import Rate, Ratio, ratio
from .recorded import without_folders
from .repeated import copies, some_of
from .result import Result
from .session import Session
from .verdict import of_epochs

_LEAST = 4000  # images of an epoch: fewer are played several times over, so that its beginning and end count little
_SHARED_MEMORY = Path("/dev/shm")
_AHEAD = 2  # batches of a worker, which is DataLoader's own choice
MOST = 20_000  # images that are copied, which must not take hours


def run(session: Session, args: argparse.Namespace) -> Result:
    """Measure the suite.

    Raises:
        ValueError: if the data is neither an image folder nor a raw shard set, or raw images are to be re-encoded.
    """
    source = open_source(session.played.data)
    if source.shard_set is not None and source.raw_shape is None:
        raise ValueError(f"data must be an image folder for peers, got the shard set {source.root}")
    if source.raw_shape is not None and args.max_side is not None:
        raise ValueError(f"max-side must not be given for raw images, got {args.max_side}; it is for image folders")
    names = list(PEERS if source.raw_shape is None else RAW)
    workers = session.played.threads or cores.available()
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="softfeed-peers-")))
        folder, shards, images = source.root, source.root, len(source)
        if source.raw_shape is None:
            session.progress.stage("writing a folder and a shard set for all")
            folder = same_files(source.root, scratch / "images", max_side=args.max_side)
            images = min(images, MOST)
            shards = convert(folder, scratch / "shards", ShardOptions(check=False), workers=1).folder
        played = session.played
        job = Job(folder, shards, scratch, played.batch_size, played.image_size, workers, played.device)
        contenders, skipped = _started(names, job, session, stack)
        rates, cache = session.measure(dict(contenders), files_below(scratch if folder != source.root else folder))
    table = ratios(rates)
    facts: dict[str, Any] = {
        "regimes": {name: regime(name) for name in rates},
        "peer_versions": {package: version for name in rates for package, version in packages(name).items()},
        "skipped": skipped,
        "workers": workers,
        "images": images,
        "max_side": args.max_side,
    }
    words = of_epochs(max(images, _LEAST) if folder != source.root else images, session.played.batch_size)
    words += verdict(rates) + [f"{name} was skipped: {reason}" for name, reason in skipped.items()]
    return session.result("peers", list(rates.values()), cache=cache, ratios=table, facts=facts, verdict=words)


def _started(
    names: list[str], job: Job, session: Session, stack: ExitStack
) -> tuple[dict[str, OwnProcess], dict[str, str]]:
    """Peers that started and could play, and why the others could not."""
    started, skipped = {}, without_room(names, job)
    for name in names:
        if name in skipped:
            session.progress.line(f"{name} is skipped: {skipped[name]}")
            continue
        if session.cold and name in MAPPED:
            skipped[name] = "it maps its file into memory, and mapped pages cannot be dropped from the page cache"
            continue
        session.progress.stage(f"starting {name}")
        try:
            process = stack.enter_context(OwnProcess(partial(contender, name, job)))
            process.play(0.01)
        except ContenderError as error:
            skipped[name] = without_folders(str(error))
            session.progress.line(f"{name} is skipped: {error}")
        else:
            started[name] = process
    return started, skipped


def without_room(names: Sequence[str], job: Job) -> dict[str, str]:
    """Peers whose workers' batches would not fit into shared memory beside those of the peers before them, and why.

    A worker that finds no room there is killed, and may leave its loader waiting for ever.
    """
    if not _SHARED_MEMORY.is_dir():
        return {}
    left, reasons = shutil.disk_usage(_SHARED_MEMORY).free, {}
    for name in names:
        batches = job.workers * _AHEAD + 1 if job.workers else 0
        need = batches * job.batch_size * 3 * job.image_size**2 * SHARED.get(name, 0)
        if need <= left:
            left -= need
        else:
            reasons[name] = (
                f"{_SHARED_MEMORY} must have room for {need / 1e9:.2f} GB of its workers' batches, got "
                f"{left / 1e9:.2f} GB beside those of the loaders before it; use a smaller batch, or fewer threads"
            )
    return reasons


def files_below(folder: Path) -> list[str]:
    """All files in a folder, those that links lead to in their place, each once."""
    return sorted({str(path.resolve()) for path in folder.rglob("*") if path.is_file()})


def same_files(source: Path, folder: Path, *, max_side: int | None, most: int = MOST) -> Path:
    """An image folder of RGB JPEGs that every peer can read, several times over if there are few.

    Args:
        source: Image folder. Its RGB JPEGs are linked to; other images are written anew as JPEGs of quality 95.
        folder: Where to.
        max_side: Longest side in pixels; then every image is written anew as a 4:2:0 JPEG of quality 90.
        most: How many images to take; of more, as many in even steps over all classes.
    """
    images = some_of(source, most)
    made: dict[Path, Path] = {}  # by the file itself, as many of the images may be links to it
    for number, (path, name) in enumerate(images):
        first, original = folder / name / f"0-{number:08d}.jpg", path.resolve()
        first.parent.mkdir(parents=True, exist_ok=True)
        if original in made:
            first.symlink_to(made[original])
        else:
            _write(original, first, max_side)
            made[original] = first.resolve()
        for copy in range(1, copies(len(images), _LEAST)):
            first.with_name(f"{copy}-{number:08d}.jpg").symlink_to(made[original])
    return folder


def _write(original: Path, first: Path, max_side: int | None) -> None:
    with Image.open(original) as image:
        if max_side is not None:
            image = image.convert("RGB")
            image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
            image.save(first, quality=90, subsampling="4:2:0")
        elif image.format == "JPEG" and image.mode == "RGB":
            first.symlink_to(original)
        else:
            image.convert("RGB").save(first, quality=95)


_PAIRS = (
    ("softfeed, soft crop", "softfeed, hard crop"),
    ("softfeed, soft crop", "torchvision, Pillow, soft crop"),
    ("softfeed, soft shift", "softfeed, padded crop"),
    ("softfeed, soft shift", "torchvision, Pillow, soft shift"),
    ("softfeed, full recipe, shard set", "softfeed, soft crop, shard set"),
)


def ratios(rates: dict[str, Rate]) -> list[Ratio]:
    """The pairs that do the same work, then the soft crop over every peer."""
    pairs = [*_PAIRS, *(("softfeed, soft crop", name) for name in rates if not name.startswith("softfeed"))]
    return [ratio(rates[a], rates[b]) for a, b in dict.fromkeys(pairs) if a in rates and b in rates]


def verdict(rates: dict[str, Rate]) -> list[str]:
    """Who is quicker, in words; a peer that wins is named first."""
    own = next((rate for name, rate in rates.items() if name.startswith("softfeed")), None)
    others = [rate for name, rate in rates.items() if not name.startswith("softfeed")]
    if own is None or not others:
        return []
    quicker = [rate for rate in others if ratio(own, rate).median < 1]
    lines = [f"{rate.name} is quicker than {own.name}: {rate.median / own.median:.2f} times." for rate in quicker]
    return lines or [f"No other loader here is quicker than {own.name}."]
