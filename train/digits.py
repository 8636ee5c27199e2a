"""The demonstration's data: scikit-learn's handwritten digits as an image folder and as shard sets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..pipelines import Normalize
from ..pipelines.shards import shard_set

SIDE = 16  # pixels; the digits have 8, too few for whole-pixel shifts to differ much
TEST_COUNT = 360  # of 1,797
SPLITS = ("train", "test")
# Mean and standard deviation of the 1,437 training images at 16 pixels
NORMALIZE = Normalize(mean=(0.3098, 0.3098, 0.3098), std=(0.3476, 0.3476, 0.3476))


@dataclass(frozen=True)
class DigitSplit:
    """The images of one split.

    Attributes:
        images: uint8 (N, 16, 16, 3), grey, in order of their number.
        labels: int64 (N,), the digit.
        numbers: int64 (N,), positions among scikit-learn's 1,797.
    """

    images: np.ndarray
    labels: np.ndarray
    numbers: np.ndarray

    def file(self, row: int) -> str:
        """Where image `row` lies in its image folder: class, then number."""
        return f"{self.labels[row]}/{self.numbers[row]:04d}.png"


def load_split(name: str) -> DigitSplit:
    """The "train" or "test" digits: a fixed, stratified split, enlarged from 8 to 16 pixels (bicubic)."""
    from PIL import Image
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits: Any = load_digits()
    parts = train_test_split(
        np.arange(len(digits.target)), test_size=TEST_COUNT, stratify=digits.target, random_state=0
    )
    numbers = np.sort(parts[SPLITS.index(name)])
    levels = np.round(digits.images[numbers] * (255 / 16)).astype(np.uint8)  # ink in 17 steps, 0 to 16
    images = [Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BICUBIC) for image in levels]
    return DigitSplit(
        images=np.stack([np.asarray(image.convert("RGB")) for image in images]),
        labels=digits.target[numbers],
        numbers=numbers,
    )


def prepare(folder: Path, say: Callable[[str], None]) -> dict[str, Path]:
    """Write the digits as `folder/images` and convert them to raw shard sets, unless these are there and right.

    Args:
        folder: made if it is not there.
        say: gets a line now and then about what is being done.

    Returns:
        The shard set of each split.

    Raises:
        ValueError: if `folder` holds images of something else.
        OSError: if it cannot be written.
    """
    shards = {name: folder / "shards" / name for name in SPLITS}
    for name in SPLITS:
        split = load_split(name)
        if holds(shards[name], split):
            say(f"{name}: {len(split.labels):,} digits are in {shards[name]} already, every pixel checked")
            continue
        images = folder / "images" / name
        say(f"{name}: writing {len(split.labels):,} digits to {images}, {SIDE}x{SIDE} pixels each")
        _write_images(images, split)
        _convert(images, shards[name])
        if not holds(shards[name], split):
            raise ValueError(f"output must be a folder for the demo alone, got other images in {images}; remove them")
    return shards


def holds(folder: Path, split: DigitSplit) -> bool:
    """Whether `folder` is a shard set of exactly these pixels and labels."""
    try:
        found = shard_set.load(folder)
        if found.manifest.raw_shape != (SIDE, SIDE, 3) or len(found.samples) != len(split.labels):
            return False
        rows = {split.file(row): row for row in range(len(split.labels))}
        order = [rows.pop(found.sample_name(row), -1) for row in range(len(found.samples))]
        if -1 in order or not np.array_equal(found.samples["label"], split.labels[order]):
            return False
        shards = [path.read_bytes() for path in found.shard_paths]
    except (OSError, ValueError):
        return False
    places = zip(found.samples["shard"], found.samples["offset"], found.samples["size"], strict=True)
    pixels = b"".join(shards[shard][offset : offset + size] for shard, offset, size in places)
    return pixels == split.images[order].tobytes()


def _write_images(folder: Path, split: DigitSplit) -> None:
    from PIL import Image

    for digit in range(10):
        (folder / str(digit)).mkdir(parents=True, exist_ok=True)
    for row, image in enumerate(split.images):
        Image.fromarray(image).save(folder / split.file(row))


def _convert(images: Path, dest: Path) -> None:
    from ..pipelines.shards.convert import convert
    from ..pipelines.shards.layout import ShardOptions
    from ..pipelines.shards.progress import ConversionProgress

    progress = ConversionProgress()
    try:
        convert(images, dest, ShardOptions(raw=True), overwrite=True, max_bad=0, progress=progress)
    finally:
        progress.close()
