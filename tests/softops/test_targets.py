"""Soft and weighted targets: against a literal transcription of SA Listing 2, values and gradients."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from softfeed.softops import SOFTENINGS, soft_targets, weighted_targets


def samples(num_classes, count=2000, seed=0):
    """Labels (every class at least once where there is room) and confidences with both ends."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(count) % num_classes)
    confidence = rng.random(count, dtype=np.float32)
    confidence[:2] = [1 / num_classes, 1]
    return labels, confidence


def listing_2_target(label, confidence, num_classes):
    """SA Listing 2, lines 7 to 9, in float64."""
    label, confidence = torch.tensor(label)[:, None], torch.tensor(confidence, dtype=torch.float64)[:, None]
    one_hot = torch.ones(len(label), num_classes, dtype=torch.float64) * (1 - confidence) / (num_classes - 1)
    return one_hot.scatter_(dim=1, index=label, src=confidence)


@pytest.mark.parametrize("num_classes", [2, 3, 10, 100, 1000])
def test_soft_targets_are_those_of_listing_2(run, num_classes):
    labels, confidence = samples(num_classes)
    got = run(lambda y, p: soft_targets(y, p, num_classes), labels, confidence)
    assert got.shape == (len(labels), num_classes)
    expected = listing_2_target(labels, confidence, num_classes).numpy()
    np.testing.assert_array_equal(got[np.arange(len(labels)), labels], confidence)  # exactly, on the true class
    np.testing.assert_allclose(got, expected, rtol=3 * 2.0**-24, atol=2.0**-24 / (num_classes - 1))
    # summed in float64: what is left is the rounding of the K values, each half a unit of its size
    np.testing.assert_allclose(got.astype(np.float64).sum(axis=-1), 1, rtol=0, atol=4 * 2.0**-24)


@pytest.mark.parametrize("num_classes", [2, 10])
def test_certain_and_uninformed_targets(run, num_classes):
    labels = np.arange(num_classes)
    certain = run(lambda y, p: soft_targets(y, p, num_classes), labels, np.ones(num_classes, np.float32))
    np.testing.assert_array_equal(certain, np.eye(num_classes))
    chance = np.full(num_classes, 1 / num_classes, np.float32)
    uninformed = run(lambda y, p: soft_targets(y, p, num_classes), labels, chance)
    np.testing.assert_allclose(uninformed, 1 / num_classes, rtol=0, atol=2.0**-24)


def test_relabelling_permutes_the_columns(run):
    labels, confidence = samples(7)
    order = np.random.default_rng(1).permutation(7)
    plain = run(lambda y, p: weighted_targets(y, p, 7), labels, confidence)
    renamed = run(lambda y, p: weighted_targets(y, p, 7), order[labels], confidence)
    np.testing.assert_array_equal(renamed[:, order], plain)


def paper_loss(logits, labels, confidence, softening):
    """SA Eqs. 4 to 6, the last as Listing 2 writes it: per-sample weighted KL divergence, mean over the batch."""
    num_classes = logits.shape[1]
    soft = listing_2_target(labels, confidence, num_classes)
    hard = F.one_hot(torch.tensor(labels), num_classes).to(torch.float64)
    p = torch.tensor(confidence, dtype=torch.float64)
    weight, target = {
        "none": (1.0, hard),
        "target": (1.0, soft),
        "weight": (p, hard),
        "target-weight": (p, soft),
    }[softening]
    kl = F.kl_div(F.log_softmax(logits, dim=1), target, reduction="none").sum(-1)
    return (weight * kl).mean()


@pytest.mark.parametrize("softening", SOFTENINGS)
def test_cross_entropy_gradient_equals_the_papers_loss(run, softening):
    num_classes = 10
    labels, confidence = samples(num_classes, count=500)
    targets = run(lambda y, p: weighted_targets(y, p, num_classes, softening=softening), labels, confidence)
    generator = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(500, num_classes, generator=generator, dtype=torch.float64)).requires_grad_()
    ours = torch.autograd.grad(F.cross_entropy(logits, torch.tensor(targets, dtype=torch.float64)), logits)[0]
    papers = torch.autograd.grad(paper_loss(logits, labels, confidence, softening), logits)[0]
    assert papers.abs().max() > 1e-4, "the bound below would hold for gradients of 0"
    # times the batch size: the bound is on a sample's own gradient
    torch.testing.assert_close(500 * ours, 500 * papers, rtol=0, atol=1e-6)


@pytest.mark.parametrize("softening", SOFTENINGS)
def test_weighted_targets_sum_to_the_weight(run, softening):
    labels, confidence = samples(10)
    got = run(lambda y, p: weighted_targets(y, p, 10, softening=softening), labels, confidence)
    weight = confidence if softening in ("weight", "target-weight") else np.ones_like(confidence)
    np.testing.assert_allclose(got.astype(np.float64).sum(axis=-1), weight, rtol=0, atol=8 * 2.0**-24)
    soft = softening in ("target", "target-weight")
    uncertain = confidence < 0.99
    assert ((got[uncertain] > 0).sum(axis=-1) == (10 if soft else 1)).all()


def test_target_and_weight_are_softened_unless_told(run):
    labels, confidence = samples(10)
    got = run(lambda y, p: weighted_targets(y, p, 10), labels, confidence)
    expected = run(lambda y, p: weighted_targets(y, p, 10, softening="target-weight"), labels, confidence)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("shape", [(), (1,), (3, 4)])
def test_any_shape_gains_a_class_axis(run, shape):
    labels = np.arange(np.prod(shape, dtype=int)).reshape(shape) % 5
    confidence = np.full(shape, 0.6, np.float32)
    for function in (soft_targets, weighted_targets):
        got = run(lambda y, p, function=function: function(y, p, 5), labels, confidence)
        assert got.shape == (*shape, 5)
        np.testing.assert_array_equal(got.argmax(axis=-1), labels)


@pytest.mark.parametrize("function", [soft_targets, weighted_targets])
def test_num_classes_must_be_at_least_2(function):
    labels, confidence = samples(2)
    with pytest.raises(ValueError, match=r"^num_classes must be at least 2, got 1; with one class"):
        function(labels, confidence, 1)


def test_softening_must_be_known():
    labels, confidence = samples(2)
    message = r"^softening must be one of none, target, target-weight, weight, got 'labels'$"
    with pytest.raises(ValueError, match=message):
        weighted_targets(labels, confidence, 2, softening="labels")
