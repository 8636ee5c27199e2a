"""Strengths that change in the course of training."""

from dataclasses import replace

import numpy as np
import pytest
from softfeed.pipelines import (
    AdditiveNoise,
    CenterCrop,
    Cosine,
    Flip,
    GridMask,
    Linear,
    Loader,
    Mollify,
    Normalize,
    Occlude,
    RandAugment,
    Recipe,
    SoftCrop,
    SoftShift,
    StepDecay,
    presets,
)
from softfeed.pipelines.draws import Draws
from softfeed.pipelines.plan import plan

TIMES = np.linspace(0, 20, 401)


def test_linear_is_numpys_interpolation():
    ramp = Linear(0.7, -0.2, 3.5, 12)
    np.testing.assert_allclose([ramp.at(t) for t in TIMES], np.interp(TIMES, [3.5, 12], [0.7, -0.2]), atol=1e-15)
    assert (ramp.at(0), ramp.at(12), ramp.at(99)) == (0.7, -0.2, -0.2)


def test_cosine_is_torchs_annealing():
    import torch

    ramp = Cosine(0.7, 0.1, 2, 12)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.7)
    annealing = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10, eta_min=0.1)
    rates = []
    for _ in range(11):
        rates.append(annealing.get_last_lr()[0])
        optimizer.step()
        annealing.step()
    np.testing.assert_allclose([ramp.at(2 + t) for t in range(11)], rates, rtol=1e-9)
    assert (ramp.at(0), ramp.at(2), ramp.at(12), ramp.at(99)) == (0.7, 0.7, 0.1, 0.1)


def test_step_decay_waits_for_the_epoch_to_begin():
    decay = StepDecay(0.3, epoch=2, factor=10)
    assert [decay.at(t) for t in (0, 1, 1.99, 2, 2.5)] == [0.3, 0.3, 0.3, 0.03, 0.03]


def numbers(recipe, epoch):
    shape = np.full(200, 90, np.int32), np.full(200, 70, np.int32)
    if not recipe.crop.resizes:
        shape = np.full(200, 64, np.int32), np.full(200, 64, np.int32)
    made = plan(recipe, Draws(0, 1, 0, 200), shape, size=64, epoch=epoch)
    return made.inputs | made.details() | {"certainty": made.certainty}


def assert_equal_numbers(a, b):
    for (name, x), (other, y) in zip(a.items(), b.items(), strict=True):
        np.testing.assert_array_equal(x, y, err_msg=f"{name} {other}")


# AdditiveNoise is not here: the largest sigma of a schedule sets the scale of its certainty, see the test below.
RAMPS = {
    "SoftCrop.sigma": lambda value: Recipe(SoftCrop(sigma=value(0.1, 0.5))),
    "SoftShift.sigma": lambda value: Recipe(SoftShift(sigma=value(0.1, 0.5))),
    "Occlude.share": lambda value: Recipe(occlude=Occlude(share=value(0.0, 0.8))),
    "GridMask.probability": lambda value: Recipe(occlude=GridMask(spacing=(8, 20), probability=value(0.0, 1.0))),
    "Mollify.clean": lambda value: Recipe(mollify=Mollify(clean=value(0.0, 4.0))),
    "Mollify.noise": lambda value: Recipe(mollify=Mollify(noise=value(0.0, 4.0))),
    "Mollify.blur": lambda value: Recipe(mollify=Mollify(blur=value(0.0, 4.0))),
    "Mollify.pure_noise": lambda value: Recipe(mollify=Mollify(pure_noise=value(0.0, 4.0))),
    "Mollify.alpha": lambda value: Recipe(mollify=Mollify(alpha=value(1.0, 4.0))),
    "Mollify.beta": lambda value: Recipe(mollify=Mollify(beta=value(1.0, 4.0))),
    "RandAugment.magnitude": lambda value: Recipe(policy=RandAugment(magnitude=value(0, 20))),
}


@pytest.mark.parametrize("name", RAMPS)
@pytest.mark.parametrize("schedule", [Linear, Cosine])
def test_every_strength_follows_its_schedule(name, schedule):
    """Half-way, at a fractional epoch, the numbers are those of the constant recipe with the mean of both ends."""
    moving = RAMPS[name](lambda start, end: schedule(start, end, 1, 4))
    half = RAMPS[name](lambda start, end: (start + end) / 2)
    first = RAMPS[name](lambda start, end: start)
    assert_equal_numbers(numbers(moving, 2.5), numbers(half, 0))
    assert_equal_numbers(numbers(moving, 0.5), numbers(first, 0))
    with pytest.raises(AssertionError):
        assert_equal_numbers(numbers(moving, 2.5), numbers(first, 0))


def test_additive_noise_that_fades_leaves_more_certainty():
    moving, constant = (
        Recipe(noise=AdditiveNoise(sigma=s), crop=CenterCrop()) for s in (Linear(0.2, 0.05, 0, 10), 0.2)
    )
    early, late, full = numbers(moving, 0), numbers(moving, 10), numbers(constant, 0)
    assert_equal_numbers(early, full)
    np.testing.assert_allclose(late["noise_amplitude"], full["noise_amplitude"] / 4, rtol=1e-6)
    np.testing.assert_allclose(late["certainty"], 1 - np.minimum(abs(late["noise_amplitude"]) / 0.6, 1), rtol=1e-5)
    assert (late["certainty"] > full["certainty"]).all()


def test_schedules_move_with_every_step(noise_folder):
    recipe = Recipe(CenterCrop(), Flip(0.5), normalize=Normalize(), occlude=Occlude(share=Linear(0.0, 0.8, 0.5, 2)))
    for batch_size, steps in ((8, 4), (5, 7)):
        with Loader(noise_folder, recipe, batch_size, 32, device="cpu", last_batch="drop", details=True) as loader:
            covered = [[batch.details["covered"] for batch in loader] for _ in range(3)]
            loader.set_epoch(1)
            again = next(iter(loader)).details["covered"]
        np.testing.assert_array_equal(again, covered[1][0])
        times = np.arange(3)[:, None] + np.arange(steps) * batch_size / 37
        side = np.rint(np.sqrt(np.interp(times, [0.5, 2], [0, 0.8])) * 32)
        np.testing.assert_array_equal(np.stack(covered), (side**2)[:, :, None] + np.zeros(batch_size))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Linear(float("nan"), 1, 0, 1), "start must be finite, got nan"),
        (lambda: Cosine(0, float("inf"), 0, 1), "end must be finite, got inf"),
        (lambda: Linear(0, 1, -1, 1), "first_epoch must not be negative, got -1"),
        (lambda: Linear(0, 1, 5, 5), "last_epoch must be after first_epoch, 5, got 5"),
        (lambda: Cosine(0, 1, 5, float("nan")), "last_epoch must be after first_epoch, 5, got nan"),
        (lambda: StepDecay(0.3, epoch=1, factor=0), "factor must be positive, got 0"),
        (lambda: SoftCrop(sigma=Linear(0.3, 0.0, 0, 10)), "sigma must be positive, got 0.0"),
        (lambda: SoftShift(sigma=Cosine(-0.1, 0.3, 0, 10)), "sigma must be positive, got -0.1"),
        (lambda: Occlude(share=Linear(0.0, 1.2, 0, 10)), r"share must be in \[0, 1\], got 1.2"),
        (lambda: Occlude(share=StepDecay(0.5, 3, factor=0.1)), r"share must be in \[0, 1\], got 5.0"),
        (lambda: GridMask(probability=Linear(0, 1.5, 0, 9)), r"probability must be in \[0, 1\], got 1.5"),
        (lambda: Mollify(blur=Linear(1, -1, 0, 9)), "blur must not be negative, got -1"),
        (lambda: Mollify(alpha=Linear(0, 1, 0, 9)), "alpha must be positive, got 0"),
        (lambda: Mollify(beta=Cosine(2, 0, 0, 9)), "beta must be positive, got 0"),
        (
            lambda: Mollify(clean=Linear(1, 0, 0, 3), noise=Linear(0, 1, 5, 9), blur=0),
            r"must have a positive sum, got \(0.0, 0.0, 0, 0.0\) in epoch 3",
        ),
        (lambda: AdditiveNoise(sigma=Linear(0.1, 0, 0, 9)), "sigma must be positive, got 0"),
        (lambda: RandAugment(magnitude=Linear(0, 31, 0, 9)), r"magnitude must be in \[0, 30\], got 31"),
        (
            lambda: presets.with_sigma_decay(Recipe(SoftCrop(sigma=Linear(0.1, 0.3, 0, 9))), epoch=3),
            "sigma decay must go with a soft crop of constant sigma, got SoftCrop",
        ),
    ],
)
def test_bad_values(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_roles_that_take_turns_are_fine():
    taking_turns = Mollify(clean=Linear(1, 0, 0, 5), noise=Linear(0, 1, 3, 9), blur=0)
    assert [taking_turns.weights(epoch)[:2] for epoch in (0, 3, 9)] == [(1, 0), (0.4, 0), (0, 1)]


def test_the_repr_of_a_recipe_with_schedules_builds_it_again():
    import softfeed.pipelines as namespace

    recipe = replace(
        presets.by_name("soft-imagenet-ra"),
        policy=RandAugment(magnitude=Linear(0, 20, 0, 90)),
        occlude=GridMask(probability=Linear(0.0, 0.8, 0, 80)),
        noise=AdditiveNoise(sigma=StepDecay(0.1, 80)),
        mollify=Mollify(blur=Cosine(1.0, 0.0, 0, 90)),
    )
    names = {name: getattr(namespace, name) for name in namespace.__all__}
    assert eval(repr(recipe), names) == recipe
