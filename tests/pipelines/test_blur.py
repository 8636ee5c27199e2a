"""The blur against its definition: damped DCT coefficients, by scipy in float64."""

import numpy as np
import pytest
import torch
from scipy.fft import dctn, idctn
from softfeed.pipelines.blur import BOUND, DctBlur
from softfeed.pipelines.mollify import strengths


def by_transform(blur, images, levels):
    blurred = images.copy()
    for image, level in zip(blurred, levels.tolist(), strict=True):
        blur.image(image, level)
    return blurred


def by_products(device):
    return lambda blur, images, levels: blur.batch(torch.from_numpy(images).to(device), levels).cpu().numpy()


WAYS = [
    pytest.param(by_transform, id="transform"),
    pytest.param(by_products("cpu"), id="products"),
    pytest.param(by_products("cuda"), id="products-cuda", marks=pytest.mark.gpu),
]


def definition(image, t):
    """SM's blur of strength t of an image (C, height, width), float64."""
    _, height, width = image.shape
    down, across = np.arange(height)[:, None] / height, np.arange(width)[None] / width
    sigma = 0.3 ** (1 - t) * float(width) ** t
    coefficients = dctn(image.astype(np.float64), type=2, norm="ortho", axes=(1, 2))
    decay = np.exp(-(sigma**2) / 2 * np.pi**2 * (down**2 + across**2))
    return idctn(coefficients * decay, type=2, norm="ortho", axes=(1, 2))


def check(way, images, levels):
    blurred = way(DctBlur(*images.shape[2:], strengths()), images, levels)
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


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 64), (224, 224), (40, 96), (1, 7)])
def test_bound_holds_over_the_whole_schedule(way, height, width):
    levels = np.unique(np.linspace(0, 255, 24).astype(int))
    check(way, images_of(height, width, len(levels)), levels)


def test_bound_holds_under_autocast():
    levels = np.array([10, 100, 250])
    with torch.autocast("cpu", torch.bfloat16):
        check(by_products("cpu"), images_of(32, 32, 3), levels)


@pytest.mark.parametrize("way", WAYS)
def test_photographs(way, photo_folder):
    from softfeed.pipelines import Loader, Recipe, SoftCrop

    # twenty windows of photographs, normalised, as mollification gets them
    with Loader(photo_folder, Recipe(crop=SoftCrop(sigma=0.1)), 10, device="cpu", last_batch="fill") as loader:
        images = torch.cat([batch.images for _ in range(2) for batch in loader]).numpy()
    blurred = check(way, images, np.linspace(0, 255, 20).astype(int))
    for image, result in zip(images, blurred, strict=True):
        # a blur keeps the mean and only takes from the rest
        np.testing.assert_allclose(result.mean(), image.mean(), atol=1e-5)
        assert result.var() <= image.var() + 1e-5
