"""Pictures from which a crop can be read off, and results made of given numbers."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from softfeed.benchmarks.rates import Rate
from softfeed.benchmarks.result import Result

SIDE = 256


@pytest.fixture(scope="session")
def ramp_folder(tmp_path_factory):
    """24 JPEGs of 256 x 256 in two classes: red grows to the right, green downwards, blue tells the class."""
    root = tmp_path_factory.mktemp("ramps")
    ramp = np.arange(SIDE, dtype=np.uint8)
    pixels = np.empty((SIDE, SIDE, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = ramp[None], ramp[:, None]
    for number in range(24):
        label = number % 2
        pixels[..., 2] = (60, 200)[label]
        path = root / "images" / f"class{label}" / f"{number:02d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, quality=98, subsampling=0)
    return root / "images"


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """20 images of 16 x 16 random pixels in two classes, as PNG."""
    root, rng = tmp_path_factory.mktemp("noise"), np.random.default_rng(0)
    for number in range(20):
        path = root / "images" / f"class{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(path)
    return root / "images"


def rate(name, *images_per_s, cpu_s=0.001, waiting=(), others=()):
    return Rate(name, images_per_s, (cpu_s,) * len(images_per_s), tuple(waiting), tuple(others))


def result(*rates, suite="steps", **changes):
    fields = {
        "settings": {"batch_size": 64},
        "data": {"name": "d"},
        "machine": {"cores": 2, "processor": "p", "versions": {"torch": "2.15"}},
    }
    return Result(suite, "softfeed bench d", **fields | changes, rates=list(rates))
