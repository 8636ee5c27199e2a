"""Policies: which operations are drawn, and that the graph applies those and no others."""

import numpy as np
import pytest
from PIL import Image, ImageOps
from scipy import stats
from softfeed.pipelines import AugMix, AutoAugment, CenterCrop, Linear, Loader, Normalize, RandAugment, Recipe
from softfeed.pipelines.draws import Draws

LEVELS = Normalize(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


IN_ORDER = {"shuffle": False, "last_batch": "keep"}  # also with a policy, which is for training


def play(folder, policy, size=32, **options):
    """Pixel values of one epoch, float64 (N, S, S, 3), without and with a policy, and what was drawn."""
    played = []
    for given in (None, policy):
        recipe = Recipe(crop=CenterCrop(), flip=None, policy=given, normalize=LEVELS)
        with Loader(folder, recipe, 37, size, device="cpu", details=True, **IN_ORDER | options) as loader:
            (batch,) = list(loader)
        played.append(batch.images.numpy().astype(np.float64).transpose(0, 2, 3, 1) * 255)
    return *played, batch.details


def in_pillow(image, name, share):
    """An operation at a share of its range by Pillow, or None if Pillow does it in another way."""
    picture = Image.fromarray(np.rint(np.asarray(image)).astype(np.uint8))
    if name == "invert":
        return ImageOps.invert(picture)
    if name == "posterize":
        return ImageOps.posterize(picture, max(1, round(4 * share)))
    if name == "solarize":
        return ImageOps.solarize(picture, 256 * share)
    if name == "solarize_add":
        pixels = np.asarray(picture).astype(int)
        return Image.fromarray(np.where(pixels < 128, pixels + int(110 * share), pixels).astype(np.uint8))
    return picture if name == "identity" else None


@pytest.mark.parametrize("learned", ["image_net", "reduced_image_net", "reduced_cifar10", "svhn"])
def test_auto_augment_applies_its_pairs_as_pillow_does(noise_folder, learned):
    policy = AutoAugment(learned)
    suite, changed = policy.suite(), 0
    plain, _, _ = play(noise_folder, None)
    recipe = Recipe(crop=CenterCrop(), flip=None, policy=policy, normalize=LEVELS)
    with Loader(noise_folder, recipe, 37, 32, device="cpu", details=True, **IN_ORDER) as loader:
        batches = [batch for _ in range(6) for batch in loader]
    for batch in batches:
        for row, image in enumerate(plain):
            names = [suite[int(batch.details[f"policy_operation_{step}"][row])].name for step in (0, 1)]
            for step, name in enumerate(names):
                if image is not None:
                    image = in_pillow(image, name, int(batch.details[f"policy_magnitude_{step}"][row]) / 10)
            if image is not None:
                found = batch.images[row].numpy().transpose(1, 2, 0) * 255
                np.testing.assert_allclose(found, np.asarray(image), rtol=0, atol=1e-3, err_msg=str(names))
                changed += names != ["identity", "identity"]
    assert changed


def test_auto_augment_draws_every_pair_with_its_probabilities():
    steps = AutoAugment("image_net").steps(Draws(0, 0, 0, 50_000), 0)
    suite = AutoAugment("image_net").suite()
    names = np.array([operation.name for operation in suite])
    first = names[steps.operation[0]]
    # DALI's table: equalize is the first of pairs with probabilities .8, 1, .8, 1, two of .6 (from the paper's list)
    from nvidia.dali.auto_aug.auto_augment import get_image_net_policy

    expected = dict.fromkeys(set(names), 0.0)
    for pair in get_image_net_policy(use_shape=True).sub_policies:
        operation, probability, _ = pair[0]
        expected[operation.name] += probability / 25
        expected["identity"] += (1 - probability) / 25
    counts = {name: int((first == name).sum()) for name in expected}
    used = [name for name, share in expected.items() if share]
    assert sum(counts[name] for name in used) == 50_000
    assert stats.chisquare([counts[name] for name in used], [50_000 * expected[name] for name in used]).pvalue > 1e-3


class Inverted(AugMix):
    """AugMix whose only operation is to invert from a threshold of 0 on, which anybody can do by hand."""

    def suite(self):
        from nvidia.dali.auto_aug import augmentations

        return [augmentations.solarize.augmentation((0, 0), randomly_negate=True), augmentations.identity]


@pytest.mark.parametrize(("chains", "depth"), [(3, None), (1, 1), (1, None), (2, 3)])
def test_augmix_mixes_its_chains_with_the_reported_weights(noise_folder, chains, depth):
    plain, mixed, drawn = play(noise_folder, Inverted(chains=chains, depth=depth))
    m, weight = drawn["policy_mix"].astype(np.float64), drawn["policy_weight"].astype(np.float64)
    assert drawn["policy_depth"].shape == weight.shape == (37, chains)
    assert set(drawn["policy_depth"].ravel()) == ({depth} if depth else {1, 2, 3})
    chain = np.where(drawn["policy_depth"].T[:, :, None, None, None] % 2 == 1, 255 - plain, plain)
    changed = np.einsum("nc,cnhwk->nhwk", weight, chain)
    m = m[:, None, None, None]
    np.testing.assert_allclose(mixed, m * plain + (1 - m) * changed, rtol=0, atol=2e-3)
    assert abs(mixed - np.rint(mixed)).max() > 0.1, "the mix is rounded"


def test_augmix_draws_as_the_paper_says():
    numbers = AugMix(severity=2.0, alpha=1.0).numbers(Draws(0, 0, 0, 20_000))
    assert stats.kstest(numbers["policy_mix"], "uniform").pvalue > 1e-3
    np.testing.assert_allclose(numbers["policy_weight"].sum(axis=1), 1, rtol=0, atol=1e-6)
    # one of three parts of a flat Dirichlet is Beta(1, 2)
    for part in numbers["policy_weight"].T:
        assert stats.kstest(part, stats.beta(1, 2).cdf).pvalue > 1e-3
    depth = AugMix().details(numbers)["policy_depth"]
    for chain in depth.T:
        assert stats.chisquare(np.bincount(chain, minlength=4)[1:]).pvalue > 1e-3
    bins = np.bincount(numbers["policy_magnitude_0"], minlength=31)  # those at the ends are half as wide
    assert stats.chisquare(bins, 20_000 / 30 * np.array([0.5, *[1] * 29, 0.5])).pvalue > 1e-3
    operations = numbers["policy_operation_0"]
    assert stats.chisquare(np.bincount(operations, minlength=9)).pvalue > 1e-3


def test_augmix_grows_with_its_severity(photo_folder):
    """Mild operations change an image less than strong ones, also where a schedule moves between them."""
    plain, _, _ = play(photo_folder, None, size=64)
    policy = AugMix(severity=Linear(0.1, 10.0, 0, 4), chains=1, depth=3)
    recipe = Recipe(crop=CenterCrop(), flip=None, policy=policy, normalize=LEVELS)
    changes = []
    with Loader(photo_folder, recipe, 37, 64, device="cpu", details=True, **IN_ORDER) as loader:
        for epoch in (0, 4):
            loader.set_epoch(epoch)
            (batch,) = list(loader)
            changes.append(abs(batch.images.numpy().transpose(0, 2, 3, 1) * 255 - plain).mean())
    assert changes[0] < changes[1] / 2


@pytest.mark.parametrize("policy", [AugMix(chains=1), AutoAugment(), RandAugment()])
def test_the_same_epoch_gives_the_same_images(photo_folder, policy):
    with Loader(photo_folder, Recipe(crop=CenterCrop(), policy=policy), 10, 64, device="cpu") as loader:
        epochs = []
        for epoch in (0, 1, 0):
            loader.set_epoch(epoch)
            epochs += [batch.images.numpy() for batch in loader]
    np.testing.assert_array_equal(epochs[0], epochs[2])
    assert (epochs[0] != epochs[1]).any()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: AutoAugment("imagenet"), "policy must be one of 'image_net', 'reduced_image_net'"),
        (lambda: AugMix(severity=0), r"severity must be in \[0.1, 10\], got 0"),
        (lambda: AugMix(chains=0), "chains must be a whole number of at least 1, got 0"),
        (lambda: AugMix(depth=4), "depth must be one of None, 1, 2, 3, got 4"),
        (lambda: AugMix(alpha=0), "alpha must be positive, got 0"),
    ],
)
def test_bad_values(build, message):
    with pytest.raises(ValueError, match=message):
        build()
