"""Blurs as they are defined, by scipy in float64, and images to blur."""

import numpy as np
from scipy.fft import dctn, idctn
from softfeed.pipelines.blur import BOUND
from softfeed.pipelines.image_blur import ImageBlur
from softfeed.pipelines.mollify import LEVELS, strengths


def one_by_one(images, levels, way=None):
    """Blurred images; all of them in the same way, if one is named."""
    blur = ImageBlur(*images.shape[2:], strengths())
    if way is not None:
        blur.ways = [way] * LEVELS
    blurred = images.copy()
    for image, level in zip(blurred, levels.tolist(), strict=True):
        blur(image, level)
    return blurred


def definition(image, t):
    """SM's blur of strength t of an image (C, height, width), float64."""
    _, height, width = image.shape
    down, across = np.arange(height)[:, None] / height, np.arange(width)[None] / width
    sigma = 0.3 ** (1 - t) * float(width) ** t
    coefficients = dctn(image.astype(np.float64), type=2, norm="ortho", axes=(1, 2))
    decay = np.exp(-(sigma**2) / 2 * np.pi**2 * (down**2 + across**2))
    return idctn(coefficients * decay, type=2, norm="ortho", axes=(1, 2))


def check(way, images, levels):
    blurred = way(images, levels)
    assert blurred.dtype == np.float32
    for image, result, level in zip(images, blurred, levels, strict=True):
        t = strengths()[level].astype(np.float64)
        assert abs(result - definition(image, t)).max() <= BOUND * abs(image).max(), f"strength {t:.3f}"
    return blurred


def images_of(height, width, count):
    """White noise, which has every frequency, an edge, and a constant."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((count - 2, 3, height, width))
    edge = np.where(np.arange(width) < width // 2, -2.0, 2.5)
    images = np.concatenate([noise, np.broadcast_to(edge, (1, 3, height, width)), np.ones((1, 3, height, width))])
    return images.astype(np.float32)
