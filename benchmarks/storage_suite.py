"""The suite `storage`: what smaller images in a shard set give, in images/s and in bytes.

Images of a folder, up to 4,000 of them, are converted to one set after the other: as they are (but those that are no
RGB JPEGs as JPEGs of quality 95), with chroma at half the resolution, and scaled down to several longest sides. What
that costs in accuracy is for a training run to say.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..pipelines import cores
from ..pipelines.shards.convert import convert
from ..pipelines.shards.layout import ShardOptions
from ..pipelines.sources import open_source
from .measurement import Contender, Here
from .peers_suite import files_below, same_files
from .rates import Rate, Ratio, ratio
from .result import Result
from .session import Session
from .steps import of_loader
from .verdict import of_epochs

AS_THEY_ARE = "as they are"
_IMAGES = 4000  # that are converted: enough for the rate, and few enough to wait for


def forms(image_size: int) -> dict[str, ShardOptions]:
    """The options of `softfeed convert` to measure, by what they are called in the table.

    Args:
        image_size: Side of the output in pixels. Scaled down images keep at least that on their shorter side, if they
            are at most 4:3 in shape.
    """
    smaller = {f"longest side {side}, 4:2:0, quality 90": side for side in (9 * image_size // 4, 4 * image_size // 3)}
    return {
        AS_THEY_ARE: ShardOptions(check=False),
        "4:2:0, quality 90": ShardOptions(subsampling="420", quality=90),
        **{name: ShardOptions(max_side=side, subsampling="420", quality=90) for name, side in smaller.items()},
    }


def run(session: Session, args: argparse.Namespace) -> Result:
    """Measure the suite.

    Raises:
        ValueError: if the data is no image folder, or the recipe is for images of one size.
    """
    source = open_source(session.played.data)
    if source.shard_set is not None:
        raise ValueError(f"data must be an image folder for storage, got the shard set {source.root}")
    if not session.played.recipe.crop.resizes:
        raise ValueError(
            f"recipe must have a crop that resizes for storage, got {type(session.played.recipe.crop).__name__}"
        )
    session.check_batch(min(len(source), _IMAGES))
    with tempfile.TemporaryDirectory(prefix="softfeed-storage-") as scratch:
        folder = same_files(source.root, Path(scratch, "images"), max_side=None, most=_IMAGES)
        contenders: dict[str, Contender] = {}
        facts: dict[str, Any] = {}
        for number, (name, options) in enumerate(forms(session.played.image_size).items()):
            session.progress.stage(f"converting: {name}")
            written = convert(folder, Path(scratch, f"set-{number}"), options, workers=cores.available())
            contenders[name] = Here(of_loader(replace(session.played, data=str(written.folder)).loader()))
            facts[name] = {"mean_bytes": mean_bytes(written.folder)}
        rates, cache = session.measure(contenders, files_below(Path(scratch)))
        images = len(open_source(folder))
    words = of_epochs(images, session.played.batch_size) + verdict(rates, facts)
    return session.result(
        "storage", list(rates.values()), cache=cache, ratios=ratios(rates), facts=facts, verdict=words
    )


def mean_bytes(folder: Path) -> int:
    """Bytes of an image of a set, on average."""
    return round(float(open_source(folder).size.mean()))


def ratios(rates: dict[str, Rate]) -> list[Ratio]:
    """Every form over the images as they are, if those were measured."""
    if AS_THEY_ARE not in rates:
        return []
    return [ratio(rate, rates[AS_THEY_ARE]) for name, rate in rates.items() if name != AS_THEY_ARE]


def verdict(rates: dict[str, Rate], facts: dict[str, Any]) -> list[str]:
    """What each form gives, in words."""
    if AS_THEY_ARE not in rates:
        return []
    before = facts[AS_THEY_ARE]["mean_bytes"]
    return [
        f"{name}: {ratio(rate, rates[AS_THEY_ARE]).median:.2f} times the images/s, with "
        f"{facts[name]['mean_bytes'] / before:.2f} of the bytes."
        for name, rate in rates.items()
        if name != AS_THEY_ARE
    ]
