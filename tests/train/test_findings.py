"""Which recipe the demonstration calls better, and that it would say the same of either."""

import pytest
from softfeed.train.comparison import Run
from softfeed.train.findings import METRICS, UNCLEAR, better, cell, summary, table
from softfeed.train.metrics import Scores

TOP1, ECE = METRICS[:2]


def _run(recipe, seed, top1, ece):
    clean = Scores(num_samples=360, top1=top1, top5=1.0, nll=2 * ece, ece=ece, bins=())
    occluded = Scores(num_samples=360, top1=top1 / 2, top5=1.0, nll=1.0, ece=0.3, bins=())
    return Run(recipe, seed, [], clean, occluded, elapsed_s=1.0, measured="")


def _runs(hard, soft):
    """Runs of (top-1, ECE) pairs, one for each seed."""
    runs = {"hard": hard, "soft": soft}
    return [_run(name, seed, *numbers) for name, pairs in runs.items() for seed, numbers in enumerate(pairs)]


LEFT, RIGHT = [(0.95, 0.02), (0.96, 0.01)], [(0.97, 0.05), (0.98, 0.04)]


@pytest.mark.parametrize(("hard", "soft", "names"), [(LEFT, RIGHT, ("soft", "hard")), (RIGHT, LEFT, ("hard", "soft"))])
def test_either_recipe_can_be_better(hard, soft, names):
    runs = _runs(hard, soft)
    assert (better(runs, TOP1), better(runs, ECE)) == names  # high accuracy is good, high error is not
    assert f"the {names[0]} recipe was better in top-1" in summary(runs)
    assert f"the {names[1]} recipe was better in ECE" in summary(runs)


def test_ranges_that_touch_show_no_difference():
    runs = _runs([(0.95, 0.02), (0.97, 0.01)], [(0.97, 0.05), (0.98, 0.01)])
    assert [better(runs, metric) for metric in METRICS] == [UNCLEAR] * len(METRICS)
    assert "better" not in summary(runs)
    assert "no difference is shown" in summary(runs)


def test_one_seed_shows_no_difference():
    runs = _runs(LEFT[:1], RIGHT[:1])
    assert [better(runs, metric) for metric in METRICS] == [UNCLEAR] * len(METRICS)
    assert summary(runs).startswith("One seed says nothing about chance")


def test_cells_hold_mean_and_range():
    assert cell([0.95, 0.96, 0.97], TOP1) == ("96.0%", "95.0 to 97.0%")
    assert cell([0.025], ECE) == ("0.025", "")


def test_table_has_a_line_for_each_metric():
    lines = table(_runs(LEFT, RIGHT)).splitlines()
    assert lines[0].split() == ["hard", "soft", "better"]
    assert [line.startswith(metric.name) for line, metric in zip(lines[2:], METRICS, strict=True)] == [True] * 5
    assert lines[2].split() == "top-1 95.5% (95.0 to 96.0%) 97.5% (97.0 to 98.0%) soft".split()
