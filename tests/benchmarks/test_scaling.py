"""Scaling: real processes on tiny data, and the arithmetic of curves on given numbers."""

import io

import pytest
from PIL import Image
from softfeed.benchmarks import measurement, scaling_suite, synthetic
from softfeed.benchmarks.chart import curves as drawn
from softfeed.benchmarks.measurement import Turn
from softfeed.benchmarks.result import from_json
from softfeed.train import cli

from .conftest import rate


def test_powers():
    assert scaling_suite.powers(1) == [1]
    assert scaling_suite.powers(6) == [1, 2, 4, 6]
    assert scaling_suite.powers(8) == [1, 2, 4, 8]


def test_every_axis_is_measured(tiny_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(measurement, "_WARM_BATCHES", 1)
    monkeypatch.setattr(scaling_suite, "BATCH_SIZES", (2, 8, 64))  # more than there are samples
    monkeypatch.setattr(scaling_suite, "SET_SIZES", (10, 20))
    monkeypatch.setattr(synthetic, "_SHARD", 10)
    monkeypatch.setattr(synthetic, "_DISTINCT", 2)
    monkeypatch.setattr(scaling_suite, "powers", lambda largest: [2])  # two fresh processes are enough
    output = tmp_path / "scaling.json"
    words = [tiny_folder, "--suite", "scaling", "--recipe", "soft-imagenet", "--batch-size", 4, "--image-size", 16]
    words += ["--seconds", 0.01, "--repeats", 2, "--device", "cpu", "--output", output]
    assert cli.main(["bench", *map(str, words)]) == 0
    found = from_json(output)
    panels = found.facts["curves"]
    assert {axis: [point[0] for line in lines.values() for point in line] for axis, lines in panels.items()} == {
        "threads": [2],
        "batch size": [2, 8],
        "ranks": [2],
        "samples in the set": [10, 20],
        "samples, start-up": [10, 20],
    }
    points = [point for lines in panels.values() for line in lines.values() for point in line]
    assert all(low <= median <= high for _, median, low, high in points)
    assert "First batch after" in capsys.readouterr().out
    assert output.with_suffix(".png").exists()


class _Fixed:
    def __init__(self, turn):
        self.turn = turn

    def begin(self, seconds):
        pass

    def end(self):
        return self.turn


def test_rates_of_ranks_add_up():
    ranks = scaling_suite.Ranks.__new__(scaling_suite.Ranks)
    ranks._ranks = [_Fixed(Turn(100, 1.0, 0.5, others_s=0.6)), _Fixed(Turn(300, 2.0, 0.6, others_s=0.5))]
    turn = ranks.play(1)
    assert turn.images / turn.wall_s == pytest.approx(100 + 150)
    assert turn.cpu_s == 1.1
    assert turn.others_s == 0.0  # what each of them takes for others is the other one


def test_words_and_curves():
    rates = {("threads", 1): rate("a", 100, 90, 110), ("threads", 2): rate("b", 190, 180, 200)}
    starts = [{1000: 0.1, 2000: 0.2}, {1000: 0.3, 2000: 0.4}, {1000: 0.2, 2000: 0.3}]
    first, last = scaling_suite.verdict(rates, starts)
    assert first == "threads: 100 images/s with 1, 1.90 times that with 2; most with 2."
    assert last == "First batch after 0.20 s (1,000 samples), 0.30 s (2,000 samples)."
    assert scaling_suite.curves(rates) == {"threads": {"loader": [[1, 100, 90, 110], [2, 190, 180, 200]]}}
    assert scaling_suite.spread_of(starts) == [[1000, 0.2, 0.1, 0.3], [2000, 0.3, 0.2, 0.4]]
    with Image.open(io.BytesIO(drawn(scaling_suite.curves(rates), {}))) as picture:
        assert picture.width > 300
