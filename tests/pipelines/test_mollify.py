"""Noise and mollification of finished batches, and the confidence that goes with them."""

import numpy as np
import pytest
import torch
from scipy import stats
from softfeed.pipelines import (
    AdditiveNoise,
    CenterCrop,
    Loader,
    Mollify,
    Normalize,
    Occlude,
    Recipe,
    SoftCrop,
    presets,
)
from softfeed.pipelines.draws import Draws
from softfeed.pipelines.finishing import Finisher, normal_pixels
from softfeed.pipelines.mollify import ROLES, Mollification, strengths
from softfeed.pipelines.threads import RowThreads

GREY = Normalize(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def play(data, recipe, count=100, epochs=1, size=32, device="cpu", **options):
    with Loader(data, recipe, count, size, device=device, last_batch="fill", details=True, **options) as loader:
        batches = [batch for _ in range(epochs) for batch in loader]
    images = torch.cat([batch.images for batch in batches]).cpu()
    confidence = torch.cat([batch.confidence for batch in batches]).cpu().numpy()
    details = {name: np.concatenate([batch.details[name] for batch in batches]) for name in batches[0].details}
    return images, confidence, details


def test_roles_come_with_their_weights_and_strengths_with_their_distribution():
    drawn = Mollify(clean=1, noise=2, blur=0, pure_noise=3, alpha=2, beta=5).draw(Draws(0, 0, 0, 30_000))
    counts = np.bincount(drawn.role, minlength=4)
    assert counts[2] == 0
    assert stats.chisquare(counts[[0, 1, 3]], [5000, 10_000, 15_000]).pvalue > 1e-3
    # the table's steps of 1/255 are finer than the test sees
    assert stats.kstest(strengths()[drawn.level], stats.beta(2, 5).cdf).statistic < 0.01
    assert len(np.unique(drawn.seed)) == 30_000


def test_default_strength_is_beta_1_2():
    drawn = Mollify().draw(Draws(1, 0, 0, 30_000))
    assert stats.kstest(strengths()[drawn.level], stats.beta(1, 2).cdf).statistic < 0.01
    assert stats.chisquare(np.bincount(drawn.role, minlength=3)).pvalue > 1e-3


@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_cosine_noise_has_the_stated_mean_and_variance(device, t):
    """64 images of 3 x 32 x 32 pixels: a standard error of 0.2 % for the mean and 0.3 % for the variance."""
    level = np.abs(strengths() - t).argmin()
    images = torch.full((64, 3, 32, 32), 2.0, device=device)
    numbers = Mollification(np.full(64, 1, np.int8), np.full(64, level), np.arange(64))
    Finisher(32, torch.device(device), RowThreads(2)).mollify(images, numbers)
    angle = float(strengths()[level]) * np.pi / 2
    noise = images.cpu().double() - 2 * np.cos(angle)
    assert abs(noise.mean()) < 0.01 * np.sin(angle)
    assert abs(noise.var() / np.sin(angle) ** 2 - 1) < 0.01
    flat = noise.flatten(1).numpy()
    assert abs(np.corrcoef(flat)[np.triu_indices(64, 1)]).max() < 0.12, "images share noise"
    assert abs((flat[:, 1:] * flat[:, :-1]).mean()) < 0.01 * np.sin(angle) ** 2, "neighbouring pixels share noise"
    assert stats.kstest(flat[0] / np.sin(angle), "norm").pvalue > 1e-3


def test_normal_pixels_are_normal_and_independent():
    """Half a million pixels: the standard error of the variance is 0.2 %, of a correlation 0.0014."""
    images = np.stack([normal_pixels(seed, (3, 100, 100)) for seed in range(17)]).astype(np.float64)
    flat = images.reshape(17, -1)
    assert abs(flat.mean()) < 5 / np.sqrt(flat.size)
    assert abs(flat.var() - 1) < 0.01
    assert abs(stats.kurtosis(flat.ravel())) < 0.05
    assert stats.kstest(flat.ravel(), "norm").pvalue > 1e-3
    assert abs(np.corrcoef(flat)[np.triu_indices(17, 1)]).max() < 0.03, "images share noise"
    for lag in (1, 2, 3, 4, 100, 10_000):  # four pixels come from one random number
        assert abs((flat[:, lag:] * flat[:, :-lag]).mean()) < 0.01, f"pixels {lag} apart share noise"
    np.testing.assert_array_equal(normal_pixels(3, (5,)), normal_pixels(3, (2, 5))[0], "a size changes the noise")


def test_finishing_does_not_depend_on_the_number_of_threads():
    numbers = Mollify(1, 1, 1, 1).draw(Draws(0, 0, 0, 40))
    images = torch.randn(40, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    results = []
    for threads in (1, 5):
        result = images.clone()
        Finisher(32, torch.device("cpu"), RowThreads(threads)).mollify(result, numbers)
        results.append(result)
    torch.testing.assert_close(*results, rtol=0, atol=0)
    assert (results[0] != images).any()


def test_every_role_does_what_it_says(noise_folder, device):
    recipe = Recipe(crop=CenterCrop(), flip=None, normalize=presets.CIFAR)
    mollified = Recipe(crop=CenterCrop(), flip=None, normalize=presets.CIFAR, mollify=Mollify(1, 1, 1, 1))
    plain = play(noise_folder, recipe, device=device)[0]
    images, confidence, details = play(noise_folder, mollified, device=device)
    role, t = details["mollify_role"], details["mollify_strength"].astype(np.float64)
    assert set(role) == set(ROLES)
    is_role = {name: torch.from_numpy(role == name) for name in ROLES}
    torch.testing.assert_close(images[is_role["clean"]], plain[is_role["clean"]], rtol=0, atol=0)
    certainty = np.select(
        [role == name for name in ROLES], [np.ones(100), np.cos(t * np.pi / 2) ** 2, 1 - t, np.zeros(100)]
    )
    np.testing.assert_allclose(confidence, 1 / 3 + 2 / 3 * certainty, rtol=0, atol=1e-6)
    pure = images[is_role["pure_noise"]]
    assert abs(pure.var() - 1) < 0.03
    # noise keeps cos of the image: its inner product with the image tells
    for row in np.flatnonzero(role == "noise"):
        x = plain[row].double().flatten()
        kept = float(images[row].double().flatten() @ x / (x @ x))
        assert abs(kept - np.cos(t[row] * np.pi / 2)) < 5 / np.sqrt(float(x @ x))
    for row in np.flatnonzero((role == "blur") & (t > 0.5)):
        assert images[row].var() < 0.2 * plain[row].var()
        torch.testing.assert_close(images[row].mean(), plain[row].mean(), rtol=0, atol=1e-5)


def test_confidence_of_a_combined_recipe_is_the_product_rule(photo_folder):
    recipe = Recipe(
        crop=SoftCrop(sigma=0.5, power=3, min_side=40),
        occlude=Occlude(share=0.3, power=2),
        noise=AdditiveNoise(),
        mollify=Mollify(1, 1, 1, 1, noise_power=2, blur_power=0.5),
    )
    _, confidence, details = play(photo_folder, recipe, count=250, epochs=8, size=32)
    assert len(confidence) == 2000
    v, side = details["visibility"].astype(np.float64), details["patches"][:, 0, 2]
    t, role = details["mollify_strength"].astype(np.float64), details["mollify_role"]
    a = abs(details["noise_amplitude"].astype(np.float64))
    crop = 1 - (1 - v) ** 3
    occlusion = 1 - (side**2 / 32**2) ** 2
    noise = 1 - np.minimum(a / 0.3, 1)
    mollify = np.select(
        [role == name for name in ROLES],
        [np.ones(2000), 1 - np.sin(t * np.pi / 2) ** 4, 1 - np.sqrt(t), np.zeros(2000)],
    )
    np.testing.assert_allclose(confidence, 0.5 + 0.5 * crop * occlusion * noise * mollify, rtol=0, atol=3e-7)


def test_additive_noise(noise_folder, device):
    recipe = Recipe(crop=CenterCrop(), flip=None, normalize=GREY)
    noisy = Recipe(crop=CenterCrop(), flip=None, normalize=GREY, noise=AdditiveNoise(sigma=0.5, pixel_sigma=0.2))
    plain = play(noise_folder, recipe, device=device)[0]
    images, confidence, details = play(noise_folder, noisy, device=device)
    amplitude = details["noise_amplitude"].astype(np.float64)
    spread = (images - plain).double().flatten(1).std(dim=1).numpy()
    np.testing.assert_allclose(spread, abs(amplitude) * 0.2, rtol=0.06, atol=1e-4)
    np.testing.assert_allclose(confidence, 1 / 3 + 2 / 3 * (1 - np.minimum(abs(amplitude) / 1.5, 1)), atol=1e-6)
    assert stats.kstest(amplitude, stats.norm(0, 0.5).cdf).pvalue > 1e-3


def test_noise_does_not_depend_on_the_batch(noise_folder):
    recipe = Recipe(crop=CenterCrop(), noise=AdditiveNoise(), mollify=Mollify(1, 1, 1, 1))
    large, small = (play(noise_folder, recipe, count=count)[0][:37] for count in (37, 5))
    torch.testing.assert_close(large, small, rtol=0, atol=0)
    again = play(noise_folder, recipe, count=37)[0][:37]
    torch.testing.assert_close(large, again, rtol=0, atol=0)
    other = play(noise_folder, recipe, count=37, seed=1)[0][:37]
    assert (large != other).any()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Mollify(0, 0, 0, 0), "clean, noise, blur and pure_noise must have a positive sum"),
        (lambda: Mollify(blur=-1), "blur must not be negative, got -1"),
        (lambda: Mollify(alpha=0), "alpha must be positive, got 0"),
        (lambda: Mollify(beta=-2), "beta must be positive, got -2"),
        (lambda: Mollify(noise_power=0), "noise_power must be positive, got 0"),
        (
            lambda: Mollify(label="sharpen"),
            "label must be one of 'smooth', 'degrade', 'add', 'add\\+smooth', got 'sharpen'",
        ),
        (lambda: AdditiveNoise(sigma=0), "sigma must be positive, got 0"),
        (lambda: AdditiveNoise(pixel_sigma=float("inf")), "pixel_sigma must be positive, got inf"),
    ],
)
def test_bad_values(build, message):
    with pytest.raises(ValueError, match=message):
        build()
