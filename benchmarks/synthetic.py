"""Synthetic data sets of any size: images with the sizes and bytes of ImageNet's, few of them many times over.

A set of a million samples is one shard of at most a thousand images, under as many names (hard links) as it takes, and
a table of samples that is as long as a real one. Opening, shuffling, addressing and decoding cost what they cost with
real images; reading from a disk does not, for all shards are the same few bytes in the page cache.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from ..pipelines.shards import manifest, shard_set
from ..pipelines.shards.convert import convert
from ..pipelines.shards.layout import ShardOptions

_DISTINCT = 64  # images; at a batch of 64 every batch has other ones
_SHARD = 1000  # samples
_CLASSES = 10

# Height and width of ImageNet's training images in pixels: its commonest sizes, and of the rest a small one, a large
# one and a very large one, with their shares rounded so that the mean is near ImageNet's 110 KB
_SIZES = {(375, 500): 0.55, (500, 375): 0.15, (333, 500): 0.15, (250, 250): 0.11, (768, 1024): 0.03, (1200, 1600): 0.01}


def photograph(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """An image whose amplitudes fall with frequency as a photograph's do, uint8 (height, width, 3)."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = np.inf
    planes = []
    for deviation in (55.0, 12.0, 12.0):  # light, then two colours
        wave = rng.standard_normal(frequency.shape) + 1j * rng.standard_normal(frequency.shape)
        plane = np.fft.irfft2(wave / frequency**1.1, (height, width))
        planes.append(deviation * plane / plane.std())
    light, red, blue = planes
    light = light + rng.normal(115, 5.0, light.shape)  # a sensor's grain
    pixels = np.stack([light + red, light - 0.5 * red - 0.2 * blue, light + blue], axis=2)
    return pixels.clip(0, 255).astype(np.uint8)


def write_images(folder: Path, count: int, *, seed: int = 0) -> Path:
    """Write an image folder of `count` JPEGs, of which at most 64 are different and the others links to them."""
    rng = np.random.default_rng(seed)
    sizes = list(_SIZES)
    originals: list[Path] = []
    for number in range(count):
        path = folder / f"class{number % _CLASSES}" / f"{number:08d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        if number < _DISTINCT:
            height, width = sizes[rng.choice(len(sizes), p=list(_SIZES.values()))]
            Image.fromarray(photograph(rng, height, width)).save(path, quality=91)
            originals.append(path)
        else:
            originals[number % _DISTINCT] = _linked(originals[number % _DISTINCT], path)
    return folder


def _linked(original: Path, path: Path) -> Path:
    """Let a file be there under another name, or copy it if it has as many names as its file system allows.

    Returns:
        The file that has room for further names.
    """
    try:
        os.link(original, path)
    except OSError as error:
        if error.errno != errno.EMLINK:
            raise
        shutil.copyfile(original, path)
        return path
    return original


def write_set(folder: Path, samples: int, *, report: Callable[[str], None] = lambda line: None) -> Path:
    """Write a shard set of synthetic samples, or keep the one that is there if it has as many.

    Args:
        folder: Where to; new, or written by this function before.
        samples: Number of samples, >= 1; rounded up to whole shards of 1,000 above that.
        report: Told what is going on.

    Returns:
        The folder.

    Raises:
        ValueError: if `samples` is below 1, or the folder holds something else.
        FileNotFoundError: if the folder's own folder does not exist.
    """
    if samples < 1:
        raise ValueError(f"synthetic must be at least 1, got {samples}")
    shards = -(-samples // _SHARD)
    samples = samples if shards == 1 else shards * _SHARD
    if folder.exists() and any(folder.iterdir()):
        if not shard_set.is_shard_set(folder) or shard_set.load(folder).manifest.num_samples != samples:
            raise ValueError(f"synthetic data of {samples} samples must go to a new folder, got {folder}")
        return folder
    if not folder.absolute().parent.is_dir():
        raise FileNotFoundError(f"synthetic data must go to a folder that exists, got {folder}; make its parent first")
    report(f"writing {samples:,} synthetic samples to {folder}")
    scratch = folder.absolute().with_name(f".{folder.absolute().name}.synthetic")  # a run that was killed left this
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        images = write_images(scratch / "images", min(samples, _SHARD))
        made = convert(images, scratch / "set", ShardOptions(shard_samples=_SHARD), workers=1).folder
        if shards > 1:
            _multiply(made, shards)
        made.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def _multiply(folder: Path, times: int) -> None:
    """Let the only shard of a set be there `times` times."""
    made = manifest.from_json((folder / manifest.MANIFEST_FILE).read_text(encoding="utf-8"))
    (shard,) = made.shards
    shards = [shard]
    originals = {"file": folder / shard.file, "index": folder / str(shard.index)}
    for number in range(1, times):
        names = {"file": shard.file, "index": str(shard.index)}  # a WebDataset has an index by shard
        renamed = {kind: name.replace("000000", f"{number:06d}") for kind, name in names.items()}
        for kind, name in renamed.items():
            originals[kind] = _linked(originals[kind], folder / name)
        shards.append(replace(shard, **renamed))
    rows = np.load(folder / manifest.SAMPLES_FILE)
    table = np.tile(rows, times)
    table["shard"] = np.repeat(np.arange(times), len(rows))
    count = len(rows) * times
    entry = manifest.write_samples(folder, table)
    manifest.write(folder, replace(made, num_samples=count, samples=entry, shards=tuple(shards)))
