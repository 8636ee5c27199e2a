"""Which sample goes into which shard: options, order, and the jobs that follow from them."""

import hashlib
import json
import math
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import nvidia.dali
import PIL

from .containers.formats import CONTAINERS
from .decoding import Decoded, Decoder
from .encoding import SUBSAMPLINGS, Encoding
from .job import Item, ShardJob, read_image
from .manifest import FORMAT_VERSION
from .sources.opening import ARRAY_FORMATS, Source
from .sources.spool import Extents

_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class ShardOptions:
    """What decides the bytes of a shard set, given its source.

    Attributes:
        raw: store uint8 RGB pixels: None for a source of pixels only (arrays, a raw shard set), whose pixels would
            otherwise become PNG files; False for no, True for images that must all have the size of the first, or a
            size in pixels, one number or (height, width), that all are resized to; they do not keep their aspect ratio.
        shard_samples: samples per shard, positive; None for 1,000, or fewer (at least 64) so that there are 16 shards.
        seed: of the shuffle, 0 or more.
        shuffle: put the samples in a random order over all shards, instead of the order of the source.
        check: decode every image whole; if False, only headers are read and damage behind them goes unseen.
        format: container format of the shards, "webdataset", "tfrecord" or "recordio".
        max_side: longest side of an image in pixels; larger ones are scaled down and rewritten as JPEG. None for any.
        quality: rewrite all images as JPEG of this quality, 1 to 100. None to keep files as they are; what other
            options rewrite gets 95.
        subsampling: rewrite all images as JPEG with this chroma subsampling, "420", "422" or "444". None to keep files
            as they are; what other options rewrite gets 4:2:0.
        normalize: rewrite images that decoders may not agree on as plain ones; see `encoding.Encoding`.

    Raises:
        ValueError: if a value is out of range, or images are to be rewritten without `check`.
    """

    raw: bool | int | tuple[int, int] | None = None
    shard_samples: int | None = None
    seed: int = 0
    shuffle: bool = True
    check: bool = True
    format: str = "webdataset"
    max_side: int | None = None
    quality: int | None = None
    subsampling: str | None = None
    normalize: bool = False

    def __post_init__(self) -> None:
        if self.format not in CONTAINERS:
            raise ValueError(f"format must be one of {', '.join(CONTAINERS)}, got {self.format!r}")
        is_raw = self.raw is not None and self.raw is not False
        if is_raw and min(self.raw if isinstance(self.raw, tuple) else (int(self.raw or 0),)) < 1:
            raise ValueError(f"raw must be a positive size in pixels, or (height, width), got {self.raw}")
        if self.shard_samples is not None and self.shard_samples < 1:
            raise ValueError(f"shard_samples must be positive, got {self.shard_samples}")
        if self.seed < 0:
            raise ValueError(f"seed must be 0 or more, got {self.seed}")
        if self.max_side is not None and self.max_side < 1:
            raise ValueError(f"max_side must be positive, got {self.max_side}")
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise ValueError(f"quality must be in [1, 100], got {self.quality}")
        if self.subsampling is not None and self.subsampling not in SUBSAMPLINGS:
            raise ValueError(f"subsampling must be one of {', '.join(SUBSAMPLINGS)}, got {self.subsampling!r}")
        rewriting = [name for name in ("max_side", "quality", "subsampling") if getattr(self, name) is not None]
        if is_raw and rewriting:
            raise ValueError(f"{rewriting[0]} must be left out for raw pixels, got {getattr(self, rewriting[0])}")
        rewriting += ["raw"] if is_raw else []
        rewriting += ["normalize"] if self.normalize else []
        if rewriting and not self.check:
            raise ValueError(f"check must be True with {rewriting[0]}, got False; those images are decoded whole")


def fitting(source: Source, options: ShardOptions) -> ShardOptions:
    """The options, with `raw` decided: the size of a source that holds pixels and no image files, else False.

    Raises:
        ValueError: if a source of pixels is not to be looked at, or a class is called what the manifest cannot hold.
    """
    if wrong := [name for name in source.classes if _SURROGATE.search(name)]:  # of bytes that are no UTF-8
        raise ValueError(f"class names must be UTF-8, got {wrong[0]!a} in {source.root}; rename it")
    if holds_pixels(source) and not options.check:
        raise ValueError("check must be True for a source of pixels, got False; there is no header to look at instead")
    if options.raw is not None:
        return options
    raw_shape = getattr(source, "raw_shape", None)
    if raw_shape is None or any(
        value is not None for value in (options.max_side, options.quality, options.subsampling)
    ):
        return replace(options, raw=False)
    return replace(options, raw=tuple(raw_shape[:2]))


def holds_pixels(source: Source) -> bool:
    """Whether a source has pixels that are no image files: arrays, or a raw shard set."""
    return source.format in ARRAY_FORMATS or getattr(source, "raw_shape", None) is not None


def rewrites(source: Source, options: ShardOptions) -> bool:
    """Whether image files are encoded anew, some or all of them."""
    asked = (options.max_side, options.quality, options.subsampling)
    return options.normalize or holds_pixels(source) or any(value is not None for value in asked)


def samples_per_shard(options: ShardOptions, total: int) -> int:
    """Samples of every shard but the last."""
    return options.shard_samples or min(1000, max(64, math.ceil(total / 16)))


def plan(source: Source, options: ShardOptions) -> dict[str, Any]:
    """Everything that the bytes of the set depend on, as JSON: equal plans give equal sets."""
    listing = hashlib.sha256()
    stamps = source.stamps()
    for stamp in stamps:
        listing.update(f"{stamp}\n".encode("utf-8", "surrogateescape"))
    # A split is known by its files and columns; in an image folder files come and go.
    files = [stamp.name for stamp in stamps] if source.format != "folder" else []
    return {
        "origin": [str(source.root.resolve()), *files],
        "softfeed": version("softfeed"),
        "dali": nvidia.dali.__version__,
        "pillow": PIL.__version__,  # it rewrites images
        "format_version": FORMAT_VERSION,
        "source_format": source.format,
        "num_samples": len(source.labels),
        "listing_sha256": listing.hexdigest(),
        "options": json.loads(json.dumps(asdict(options))),
    }


def shard_jobs(source: Source, extents: Extents, options: ShardOptions, folder: Path) -> Iterator[ShardJob]:
    """One job per shard, in order."""
    total = len(source.labels)
    order = np.random.default_rng(options.seed).permutation(total) if options.shuffle else np.arange(total)
    encoding = Encoding(
        raw_shape=_raw_shape(source, extents, options),
        resizes=options.raw is not True,
        max_side=options.max_side,
        quality=options.quality,
        subsampling=options.subsampling,
        normalize=options.normalize,
        is_array=holds_pixels(source) and options.raw is False,
    )
    step = samples_per_shard(options, total)
    for number, first in enumerate(range(0, total, step)):
        rows = order[first : first + step].tolist()
        items = _items(source, extents, rows)
        yield ShardJob(folder, number, first, items, encoding, options.check, options.format)


def _items(source: Source, extents: Extents, rows: list[int]) -> list[Item]:
    names = source.names(rows)
    return [
        Item(
            file=extents.files[int(extents.file[row])],
            offset=int(extents.offset[row]),
            size=int(extents.size[row]),
            label=int(source.labels[row]),
            name=name,
            class_name=source.classes[int(source.labels[row])],
            unwrap=extents.unwrap,
            own_file=extents.own_files,
        )
        for row, name in zip(rows, names, strict=True)
    ]


def _raw_shape(source: Source, extents: Extents, options: ShardOptions) -> tuple[int, int] | None:
    """Height and width that every image must have; that of the first good image unless given."""
    if isinstance(options.raw, tuple):
        return options.raw
    if options.raw is None or options.raw is False:
        return None
    if options.raw is not True:
        return options.raw, options.raw
    decoder = Decoder()
    for row in range(len(source.labels)):
        (item,) = _items(source, extents, [row])
        image = read_image(item)
        decoded = decoder.decode([image])[0] if isinstance(image, bytes) else image
        if isinstance(decoded, Decoded):
            return decoded.height, decoded.width
    raise ValueError(f"source must hold an image that decodes, got none in {source.root}")
