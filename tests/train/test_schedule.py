import numpy as np
import pytest
import torch
from softfeed.train.schedule import WarmupCosine, default_lr, default_warmup_epochs, default_weight_decay
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR


@pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")  # SequentialLR's own use of it
@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step:UserWarning")  # there is nothing to optimise
def test_rates_are_those_of_torchs_schedulers():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.4)
    warmup = LinearLR(optimizer, start_factor=1 / 5, end_factor=1.0, total_iters=4)
    cosine = CosineAnnealingLR(optimizer, T_max=15)
    reference = SequentialLR(optimizer, [warmup, cosine], milestones=[5])
    rates = []
    for _ in range(20):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        reference.step()
    np.testing.assert_allclose([WarmupCosine(0.4, 20, 5)(step) for step in range(20)], rates, rtol=1e-9)


def test_rate_rises_to_the_peak_and_falls_to_zero():
    schedule = WarmupCosine(1.0, 100, 10)
    rates = [schedule(step) for step in range(101)]
    assert rates[0] == 0.1
    assert rates[9] == max(rates) == 1.0
    assert np.all(np.diff(rates[10:]) < 0)
    assert rates[100] == pytest.approx(0.0, abs=1e-12)


def test_a_run_may_be_all_warmup():
    assert [WarmupCosine(1.0, 4, 4)(step) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]


def test_defaults_are_the_papers():
    assert default_lr(batch_size=128, image_size=32) == pytest.approx(0.1)  # SA App. B.1
    assert default_lr(batch_size=256, image_size=224) == pytest.approx(0.1)  # SA App. B.3
    assert default_lr(batch_size=1024, image_size=224) == pytest.approx(0.4)
    assert (default_weight_decay(image_size=32), default_weight_decay(image_size=224)) == (5e-4, 1e-4)
    assert (default_warmup_epochs(epochs=270), default_warmup_epochs(epochs=10)) == (5.0, 1.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((0.0, 10, 0), "lr must be positive and finite, got 0.0"),
        ((float("nan"), 10, 0), "lr must be positive and finite, got nan"),
        ((0.1, 0, 0), "total_steps must be at least 1, got 0"),
        ((0.1, 10, 11), r"warmup_steps must be in \[0, 10\], got 11"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        WarmupCosine(*settings)
