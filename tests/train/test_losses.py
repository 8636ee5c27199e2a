import numpy as np
import pytest
import torch
import torch.nn.functional as F
from softfeed.softops import weighted_targets
from softfeed.train.losses import METHODS, SoftLoss
from torch import nn


def listing_2(pred, label, confidence):
    """SA Listing 2, letter by letter; `confidence` and `label` are [N, 1] there."""
    log_prob = F.log_softmax(pred, dim=1)
    n_class = pred.size(1)
    one_hot = torch.ones_like(pred) * (1 - confidence) / (n_class - 1)
    one_hot.scatter_(dim=1, index=label, src=confidence)
    kl = confidence * F.kl_div(input=log_prob, target=one_hot, reduction="none").sum(-1, keepdim=True)
    return kl.mean()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(7)
    logits = 4 * torch.randn(64, 10, generator=generator)
    labels = torch.randint(0, 10, (64,), generator=generator)
    confidence = 0.1 + 0.9 * torch.rand(64, generator=generator)
    confidence[0], confidence[1] = 1.0, 0.1  # both ends of the range
    return logits, labels, confidence


def gradient(loss, logits):
    leaf = logits.clone().requires_grad_()
    loss(leaf).backward()
    assert leaf.grad is not None
    return leaf.grad


def test_target_weight_is_listing_2_in_value_and_gradient(batch):
    logits, labels, confidence = (x.double() if x.is_floating_point() else x for x in batch)

    def reference(z):
        return listing_2(z, labels[:, None], confidence[:, None])

    ours = SoftLoss()
    torch.testing.assert_close(ours(logits, labels, confidence), reference(logits), rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(
        gradient(lambda z: ours(z, labels, confidence), logits), gradient(reference, logits), rtol=1e-6, atol=1e-9
    )


def test_unmodified_cross_entropy_on_weighted_targets_has_the_gradient_of_listing_2(batch):
    logits, labels, confidence = batch
    targets = weighted_targets(labels, confidence, 10)
    plain = gradient(lambda z: nn.CrossEntropyLoss()(z, targets), logits)
    wide = confidence.double()[:, None]
    reference = gradient(lambda z: listing_2(z, labels[:, None], wide), logits.double())
    torch.testing.assert_close(plain.double(), reference, rtol=0, atol=1e-6)
    assert reference.abs().max() > 1e-3  # so that 1e-6 is a tolerance and not the signal


@pytest.mark.parametrize("method", METHODS)
def test_value_is_the_sum_over_samples_and_classes(batch, method):
    logits, labels, confidence = (x.double().numpy() if x.is_floating_point() else x.numpy() for x in batch)
    total = 0.0
    for z, y, p in zip(logits, labels, confidence, strict=True):
        softmax = np.exp(z) / np.exp(z).sum()
        on_label = p if "target" in method else 1.0
        weight = p if "weight" in method else 1.0
        for j in range(10):
            q = on_label if j == y else (1 - on_label) / 9
            total += weight * q * np.log(q / softmax[j]) if q > 0 else 0.0
    ours = SoftLoss(method)(*(torch.from_numpy(x) for x in (logits, labels, confidence)))
    np.testing.assert_allclose(ours.item(), total / len(logits), rtol=1e-6)  # softops gives float32 targets


def test_plain_is_cross_entropy_and_smoothing_is_torchs_own(batch):
    logits, labels, confidence = batch
    torch.testing.assert_close(SoftLoss("plain")(logits, labels, confidence), F.cross_entropy(logits, labels))
    smooth = SoftLoss("plain", label_smoothing=0.1)
    torch.testing.assert_close(
        gradient(lambda z: smooth(z, labels, confidence), logits),
        gradient(lambda z: F.cross_entropy(z, labels, label_smoothing=0.1), logits),
        rtol=1e-5,
        atol=1e-7,
    )


def test_smoothing_mixes_soft_targets_with_the_uniform_distribution(batch):
    logits, labels, confidence = batch
    targets = 0.8 * weighted_targets(labels, confidence, 10, softening="target") + 0.2 / 10
    torch.testing.assert_close(
        gradient(lambda z: SoftLoss("target", label_smoothing=0.2)(z, labels, confidence), logits),
        gradient(lambda z: F.cross_entropy(z, targets), logits),
        rtol=1e-5,
        atol=1e-7,
    )


def test_bad_settings_and_shapes_are_refused(batch):
    logits, labels, confidence = batch
    with pytest.raises(ValueError, match=r"loss must be one of plain, target, target-weight, weight, got 'hard'"):
        SoftLoss("hard")
    with pytest.raises(ValueError, match=r"label_smoothing must be in \[0, 1\), got 1.0"):
        SoftLoss(label_smoothing=1.0)
    with pytest.raises(ValueError, match=r"\[N, K\], \[N\], \[N\], got \(64, 10\), \(64,\), \(64, 1\)"):
        SoftLoss()(logits, labels, confidence[:, None])
