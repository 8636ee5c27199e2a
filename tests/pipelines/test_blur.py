"""The blur against its definition: damped DCT coefficients, by scipy in float64."""

import numpy as np
import pytest
import torch
from scipy.fft import dctn, idctn
from softfeed.pipelines.blur import BOUND, DctBlur
from softfeed.pipelines.mollify import strengths


def definition(image, sigma):
    """SM's blur of one channel (height, width), float64."""
    height, width = image.shape
    down, across = np.arange(height)[:, None] / height, np.arange(width)[None] / width
    coefficients = dctn(image.astype(np.float64), type=2, norm="ortho")
    return idctn(coefficients * np.exp(-(sigma**2) / 2 * np.pi**2 * (down**2 + across**2)), type=2, norm="ortho")


def images_of(height, width, count):
    """White noise, which has every frequency, an edge, and a constant."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((count - 2, 3, height, width))
    edge = np.where(np.arange(width) < width // 2, -2.0, 2.5)
    images = np.concatenate([noise, np.broadcast_to(edge, (1, 3, height, width)), np.ones((1, 3, height, width))])
    return torch.from_numpy(images.astype(np.float32))


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 64), (224, 224), (40, 96), (1, 7)])
def test_bound_holds_over_the_whole_schedule(device, height, width):
    levels = np.unique(np.linspace(0, 255, 24).astype(int))
    images = images_of(height, width, len(levels))
    blurred = DctBlur(height, width, strengths(), torch.device(device))(images.to(device), levels).cpu().numpy()
    for image, result, level in zip(images.numpy(), blurred, levels, strict=True):
        sigma = 0.3 ** (1 - strengths()[level].astype(np.float64)) * width ** strengths()[level].astype(np.float64)
        for channel in range(3):
            difference = abs(result[channel] - definition(image[channel], sigma)).max()
            assert difference <= BOUND * abs(image).max(), f"strength {strengths()[level]:.3f}"


def test_photographs(device, photo_folder):
    from softfeed.pipelines import Loader, presets

    with Loader(photo_folder, presets.evaluation(), 10, device="cpu") as loader:
        (images,) = [batch.images for batch in loader]
    levels = np.linspace(0, 255, 10).astype(int)
    blurred = DctBlur(224, 224, strengths(), torch.device(device))(images.to(device), levels).cpu().numpy()
    for image, result, level in zip(images.numpy(), blurred, levels, strict=True):
        t = strengths()[level].astype(np.float64)
        expected = np.stack([definition(channel, 0.3 ** (1 - t) * 224**t) for channel in image])
        assert abs(result - expected).max() <= BOUND * abs(image).max()
        # a blur keeps the mean and never makes anything stand out more
        np.testing.assert_allclose(result.mean(), image.mean(), atol=1e-5)
        assert abs(result).max() <= abs(image).max() + 1e-4


def test_wide_blurs_take_the_cheap_way_and_narrow_ones_the_whole_matrix():
    blur = DctBlur(64, 64, strengths(), torch.device("cpu"))
    blur(torch.zeros(2, 3, 64, 64), np.array([10, 200]))
    assert (64, 10) in blur._matrices
    assert (-64, 200) in blur._matrices
    assert blur._matrices[-64, 200].shape[1] < 24
