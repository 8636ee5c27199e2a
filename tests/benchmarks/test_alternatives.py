"""Ways not taken: all of them run, on the device that their images are to lie on, and one that fails stops no other."""

from argparse import Namespace

import numpy as np
import pytest
from nvidia.dali import fn
from softfeed.benchmarks import alternatives, measurement
from softfeed.benchmarks.result import from_json

SMALL = ["--batch-size", "4", "--image-size", "32", "--seconds", "0.001", "--repeats", "1"]


@pytest.fixture(autouse=True)
def hardly_any_warm_up(monkeypatch):
    monkeypatch.setattr(measurement, "_WARM_BATCHES", 1)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_every_way_is_played(tmp_path, device):
    output = tmp_path / "out.json"
    assert alternatives.main([*SMALL, "--device", device, "--output", str(output)]) == 0
    found = from_json(output)
    assert len(found.rates) == 17
    assert not found.verdict


def test_a_way_that_fails_stops_no_other(tmp_path, monkeypatch):
    def broken(*arguments, **settings):
        raise RuntimeError("no such filter")

    output = tmp_path / "out.json"
    monkeypatch.setattr(alternatives, "normal_pixels", broken)
    assert alternatives.main([*SMALL, "--output", str(output)]) == 1
    found = from_json(output)
    assert len(found.rates) == 16
    assert found.verdict == ["noise, quantiles failed: no such filter"]


@pytest.mark.parametrize(("device", "expected"), [("cpu", "cpu"), ("meta", "gpu")])
def test_both_blurs_of_a_batch_find_it_on_the_device(monkeypatch, device, expected):
    """Tensors without values stand for those of a GPU: a batch of 154 MB that is sent there each time would count."""
    sources, given = {}, {}
    external_source = fn.external_source

    def recorded(**settings):
        sources[settings["name"]] = settings.get("device", "cpu")
        return external_source(**settings)

    monkeypatch.setattr(fn, "external_source", recorded)
    monkeypatch.setattr(
        "nvidia.dali.pipeline.Pipeline.run", lambda pipeline, **inputs: given.update(inputs) or [range(4)]
    )
    options = Namespace(device=device, threads=1)
    (count,) = alternatives._blur_by_filter(32, np.arange(4), options)()
    assert count == 4
    assert sources == {"images": expected, "row": "cpu", "column": "cpu"}
    assert str(getattr(given["images"], "device", "cpu")) == device
