import numpy as np
import pytest
import torch
from softfeed.train.metrics import ScoreSums


def literal_ece(logits, labels, num_bins):
    """SA Eq. 8 with loops, in float64; bins (m / M, (m + 1) / M]."""
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    total = 0.0
    for m in range(num_bins):
        inside = [i for i, p in enumerate(probabilities) if m / num_bins < p.max() <= (m + 1) / num_bins]
        if inside:
            accuracy = np.mean([probabilities[i].argmax() == labels[i] for i in inside])
            total += len(inside) / len(labels) * abs(accuracy - np.mean([probabilities[i].max() for i in inside]))
    return total


@pytest.fixture
def predictions():
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(0, 12, (1000,), generator=generator)
    logits = 2 * torch.randn(1000, 12, generator=generator)
    logits[torch.arange(1000), labels] += 2.0
    return logits, labels


def scored(logits, labels, *, num_bins=10, batch_size=96):
    sums = ScoreSums(num_bins=num_bins)
    for start in range(0, len(labels), batch_size):
        sums.update(logits[start : start + batch_size], labels[start : start + batch_size])
    return sums.scores()


@pytest.mark.parametrize("num_bins", [1, 10, 15])
def test_scores_agree_with_torchmetrics_and_with_loops(predictions, num_bins):
    name = "torchmetrics.functional.classification"
    theirs = pytest.importorskip(name, reason="torchmetrics is not installed; it comes with softfeed[test]")
    logits, labels = predictions
    scores = scored(logits, labels, num_bins=num_bins)
    assert scores.num_samples == 1000
    top1, top5 = (theirs.multiclass_accuracy(logits, labels, 12, average="micro", top_k=k).item() for k in (1, 5))
    np.testing.assert_allclose([scores.top1, scores.top5], [top1, top5], atol=1e-7)  # torchmetrics: float32
    np.testing.assert_allclose(scores.nll, torch.nn.functional.cross_entropy(logits, labels).item(), rtol=1e-6)
    assert literal_ece(logits.double().numpy(), labels.numpy(), num_bins) > 0.02
    np.testing.assert_allclose(scores.ece, literal_ece(logits.double().numpy(), labels.numpy(), num_bins), rtol=1e-6)
    # No confidence lies on an edge of a bin here, where torchmetrics closes the other side.
    error = theirs.multiclass_calibration_error(logits, labels, 12, n_bins=num_bins, norm="l1").item()
    np.testing.assert_allclose(scores.ece, error, rtol=1e-5)


def test_certain_predictions_share_the_last_bin():
    # One certain and wrong, nine at 0.95 and right: in one bin their gaps offset each other. torchmetrics keeps
    # a confidence of exactly 1 apart, which Eq. 8 with bins over (0, 1] does not.
    certain = torch.tensor([[200.0, 0.0]])
    sure = torch.tensor([[np.log(0.95 / 0.05), 0.0]], dtype=torch.float32).repeat(9, 1)
    labels = torch.tensor([1] + [0] * 9)
    scores = scored(torch.cat([certain, sure]), labels)
    np.testing.assert_allclose(scores.ece, abs(9 - (9 * 0.95 + 1)) / 10, rtol=1e-6)
    assert [b.count for b in scores.bins] == [0] * 9 + [10]


def test_the_reliability_diagram_gives_the_ece(predictions):
    scores = scored(*predictions)
    assert sum(b.count for b in scores.bins) == scores.num_samples
    ece = sum(b.count * abs(b.accuracy - b.confidence) for b in scores.bins) / scores.num_samples
    np.testing.assert_allclose(scores.ece, ece, rtol=1e-12)
    for b in scores.bins:
        assert not b.count or b.lower < b.confidence <= b.upper
    np.testing.assert_allclose([b.upper for b in scores.bins], np.linspace(0.1, 1, 10))


def test_scores_do_not_depend_on_the_batches(predictions):
    one, many = scored(*predictions, batch_size=1000), scored(*predictions, batch_size=7)
    np.testing.assert_allclose(list(one.summary().values()), list(many.summary().values()), rtol=1e-12)


def test_three_classes_have_a_top_5_of_one():
    logits = torch.eye(3)
    assert scored(logits, torch.tensor([1, 2, 0])).summary()["top5"] == 1.0
    assert scored(logits, torch.tensor([1, 2, 0])).top1 == 0.0


def test_nothing_to_score_is_an_error():
    with pytest.raises(ValueError, match="at least one sample to score, got none"):
        ScoreSums().scores()
    with pytest.raises(ValueError, match="num_bins must be at least 1, got 0"):
        ScoreSums(num_bins=0)
