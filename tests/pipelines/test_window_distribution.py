"""Windows follow the distributions of Liu et al. 2023 (SA section 4.1 and App. B.3), against a sampler that redraws."""

import numpy as np
import pytest
from scipy import stats
from softfeed.pipelines import RandomResizedCrop, SoftCrop, SoftShift
from softfeed.pipelines.crops import Frame
from softfeed.pipelines.draws import Draws

N = 20_000


def windows(crop, width, height, size, epoch=0):
    full = [np.full(N, side, np.float32) for side in (width, height)]
    return crop.window(Frame(Draws(11, epoch, 0, N), *full, size, epoch))


def redrawn(rng, scale, limit):
    """N(0, scale), redrawn until |t| < limit."""
    t = rng.normal(0, scale)
    while (outside := abs(t) >= limit).any():
        t[outside] = rng.normal(0, np.broadcast_to(scale, t.shape)[outside])
    return t


def reference_soft_windows(width, height, sigma, min_side, spread):
    """SA App. B.3, the position's sigma times `spread`, with numpy's own generator and redrawing."""
    rng = np.random.default_rng(99)
    fields = {}
    for name, start, side in (("width", "left", width), ("height", "top", height)):
        free = max(side - min_side, 0)
        length = np.rint(side - np.minimum(abs(rng.normal(0, sigma * free, N)), free))
        t = redrawn(rng, spread * sigma * (side + length), (side + length) / 2)
        fields[name], fields[start] = length, np.rint(side / 2 + t - length / 2)
    return fields


@pytest.mark.parametrize(
    ("width", "height", "sigma", "spread"),
    [(500, 375, 0.3, 0.5), (500, 375, 0.3, 1.0), (2000, 130, 0.6, 0.5), (90, 300, 0.3, 0.5)],
)
def test_soft_crop(width, height, sigma, spread):
    drawn = windows(SoftCrop(sigma=sigma, spread=spread), width, height, 224)
    reference = reference_soft_windows(width, height, sigma, 112, spread)
    for name, values in reference.items():
        assert stats.ks_2samp(getattr(drawn, name), values).pvalue > 1e-3, name
    # positions of a window are relative to its own length, so the joint distribution counts too
    right = drawn.left + drawn.width
    assert stats.ks_2samp(right, reference["left"] + reference["width"]).pvalue > 1e-3


def test_the_test_sees_a_sigma_that_is_off_by_a_twentieth():
    drawn = windows(SoftCrop(sigma=0.315), 500, 375, 224)
    reference = reference_soft_windows(500, 375, 0.3, 112, 0.5)
    assert stats.ks_2samp(drawn.width, reference["width"]).pvalue < 1e-3
    assert stats.ks_2samp(drawn.left, reference["left"]).pvalue < 1e-3


def test_min_side_is_half_the_output_unless_told():
    assert windows(SoftCrop(sigma=3.0), 500, 375, 224).width.min() == 112
    assert windows(SoftCrop(sigma=3.0, min_side=50), 500, 375, 224).width.min() == 50
    assert (windows(SoftCrop(), 100, 112, 224).width == 100).all()


@pytest.mark.parametrize("sigma", [0.1, 0.3, 1.0])
def test_soft_shift(sigma):
    drawn = windows(SoftShift(sigma=sigma), 32, 32, 32)
    rng = np.random.default_rng(5)
    for shift in (drawn.left, drawn.top):
        reference = np.rint(redrawn(rng, np.full(N, sigma * 32), 32 + 1e-9))
        assert stats.ks_2samp(shift, reference).pvalue > 1e-3
    assert (drawn.width == 32).all()
    assert abs(np.corrcoef(drawn.left, drawn.top)[0, 1]) < 0.03


def test_random_resized_crop_like_torchvision():
    import torch
    from torchvision.transforms import RandomResizedCrop as Reference

    drawn = windows(RandomResizedCrop(), 500, 375, 224)
    torch.manual_seed(0)
    image = torch.empty(3, 375, 500)
    reference = np.array([Reference.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(4000)])
    for column, name in enumerate(["top", "left", "height", "width"]):
        assert stats.ks_2samp(getattr(drawn, name), reference[:, column]).pvalue > 1e-3, name
    aspect = drawn.width / drawn.height
    assert stats.ks_2samp(aspect, reference[:, 3] / reference[:, 2]).pvalue > 1e-3


def test_epochs_differ_and_repeat():
    first, again, second = (windows(SoftCrop(), 500, 375, 224, epoch=epoch) for epoch in (0, 0, 1))
    np.testing.assert_array_equal(first.left, again.left)
    assert (first.left != second.left).mean() > 0.95
