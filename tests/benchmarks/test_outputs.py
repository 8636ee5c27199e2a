"""The benchmark of output forms runs, and records what it played."""

import json

import numpy as np
import pytest
from PIL import Image
from softfeed.benchmarks import outputs
from softfeed.train import tuning


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(8):
        path = tmp_path / "data" / f"c{number % 2}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8)).save(path)
    return tmp_path / "data"


SMALL = ["--device", "cpu", "--batch-size", "4", "--image-size", "16", "--seconds", "0.1"]


def test_every_form_is_played_and_recorded(photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(tuning, "_LEAST_S", 0.001)
    assert outputs.main([str(photos), *SMALL, "--rounds", "5", "--output", str(tmp_path / "out.json")]) == 0
    result = json.loads((tmp_path / "out.json").read_text())
    names = [row["name"] for row in result["rates"]]
    assert names == [
        f"{dtype}, channels {c}" for dtype in ("float32", "float16", "bfloat16") for c in ("first", "last")
    ]
    assert names[0] == result["ratio_to"]
    assert result["rates"][0]["ratio"] == 1
    assert all(len(row["images_per_s"]) >= 5 and row["median"] > 0 for row in result["rates"])
    assert str(tmp_path) not in json.dumps(result)
    printed = capsys.readouterr().out
    assert all(name in printed for name in names)


def test_wrong_options_are_one_line(photos, capsys):
    assert outputs.main([str(photos), *SMALL, "--rounds", "1"]) == 2
    assert "rounds must be at least 5, got 1" in capsys.readouterr().err
