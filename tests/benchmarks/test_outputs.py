"""The benchmarks of output forms, of the state and of slow storage run, and record what they played."""

from itertools import product
from threading import current_thread

import numpy as np
import pytest
from PIL import Image
from softfeed.benchmarks import measurement, outputs, slow_storage, state_tracking
from softfeed.benchmarks.result import from_json
from softfeed.pipelines import Loader


@pytest.fixture(autouse=True)
def hardly_any_warm_up(monkeypatch):
    monkeypatch.setattr(measurement, "_WARM_BATCHES", 1)


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(8):
        path = tmp_path / "data" / f"c{number % 2}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8)).save(path)
    return tmp_path / "data"


SMALL = ["--batch-size", "4", "--image-size", "16", "--seconds", "0.001"]


def test_every_form_is_played_and_recorded(photos, tmp_path, capsys):
    output = tmp_path / "out.json"
    words = [*SMALL, "--device", "cpu", "--repeats", "2"]
    assert outputs.main([str(photos), *words, "--output", str(output)]) == 0
    found = from_json(output)  # as --compare reads it
    names = [rate.name for rate in found.rates]
    assert names == [
        f"{dtype}, channels {c}" for dtype in ("float32", "float16", "bfloat16") for c in ("first", "last")
    ]
    assert [ratio.name for ratio in found.ratios] == [f"{name} / {names[0]}" for name in names[1:]]
    assert all(len(rate.images_per_s) == 2 for rate in found.rates)
    assert found.command == " ".join(["python -m softfeed.benchmarks.outputs data", *words, "--output out.json"])
    assert str(tmp_path) not in output.read_text()
    printed = capsys.readouterr().out
    assert all(name in printed for name in names)


def test_a_gpu_decodes_in_all_ways_the_own_one_first():
    own = {"num_threads": 8, "prefetch": 3, "hw_decoder_load": 0.65, "roi_decode": True}
    variants = outputs._decoders(own)
    first, *_ = variants
    assert first == "parts, interpolated chroma, 65% to the JPEG engines"
    ways = [
        (settings.get("roi_decode"), settings["fancy_upsampling"], settings["hw_decoder_load"])
        for settings in variants.values()
    ]
    # None leaves it to the loader to find out whether parts decode, which may depend on the other settings
    assert ways[0] == (None, True, 0.65)
    assert sorted(ways, key=str) == sorted(product((None, False), (True, False), (0.0, 0.65, 1.0)), key=str)
    assert len({str(settings) for settings in variants.values()}) == len(variants)
    # where parts of images crash the decoder, whole ones only
    whole = outputs._decoders(own | {"roi_decode": False})
    assert {settings["roi_decode"] for settings in whole.values()} == {False}
    assert len(whole) == 6
    assert outputs._decoders({"num_threads": 8, "prefetch": 2}) == {}


def test_the_ways_to_decode_are_compared_with_the_own_one(photos, tmp_path, monkeypatch):
    """As on a GPU, with a loader that only says that it has one."""

    class OnGpu(Loader):
        def __init__(self, *args, **settings):
            self.asked = {name: settings.pop(name, None) for name in ("fancy_upsampling", "hw_decoder_load")}
            super().__init__(*args, **settings)

        @property
        def speed_settings(self):
            return super().speed_settings | {"hw_decoder_load": 0.65, "roi_decode": False}

    monkeypatch.setattr(outputs, "Loader", OnGpu)
    output = tmp_path / "out.json"
    assert outputs.main([str(photos), *SMALL, "--device", "cpu", "--repeats", "1", "--output", str(output)]) == 0
    found = from_json(output)
    own = "whole, interpolated chroma, 65% to the JPEG engines"
    assert [rate.name for rate in found.rates][6] == own
    assert len(found.rates) == 6 + 6
    assert [ratio.name.split(" / ")[1] for ratio in found.ratios] == ["float32, channels first"] * 5 + [own] * 5


def test_the_state_is_asked_for_after_every_batch(photos, tmp_path, capsys, monkeypatch):
    asked = []
    state = state_tracking.Loader.state_dict
    monkeypatch.setattr(state_tracking.Loader, "state_dict", lambda loader: asked.append(1) or state(loader))
    monkeypatch.setattr(state_tracking, "_CALLS", 3)
    output = tmp_path / "state.json"
    words = [*SMALL, "--recipe", "soft-imagenet", "--repeats", "2"]
    assert state_tracking.main([str(photos), *words, "--output", str(output)]) == 0
    found = from_json(output)
    plain, with_state, again = (rate.images_per_s for rate in found.rates)
    (cost,) = found.ratios
    expected = sorted(2 * s / (a + b) for a, s, b in zip(plain, with_state, again, strict=True))
    assert (cost.low, cost.high) == pytest.approx((expected[0], expected[1]))
    assert len(asked) > 3 + 2  # the calls by themselves, and those of the turns
    assert found.facts["call_us"] > 0
    assert "call_us: " in capsys.readouterr().out
    assert found.command.startswith("python -m softfeed.benchmarks.state_tracking data --batch-size 4")


def test_reads_are_delayed_and_both_ways_are_played(photos, tmp_path, capsys, monkeypatch):
    output, delays = tmp_path / "slow.json", set()
    monkeypatch.setattr(slow_storage, "sleep", lambda seconds: delays.add((seconds, current_thread().name)))
    words = ["--batch-size", "4", "--seconds", "0.001", "--repeats", "2", "--delays", "0", "20"]
    assert slow_storage.main([str(photos), *words, "--output", str(output)]) == 0
    found = from_json(output)
    ways = ("one by one", "several at once", "as it finds out")
    assert [rate.name for rate in found.rates] == [f"{way}, {delay} ms" for delay in (0, 20) for way in ways]
    assert {seconds for seconds, _ in delays} == {0.02}
    assert {thread for _, thread in delays} == {"softfeed-reader", "softfeed-at-once"}
    assert len(found.ratios) == 4
    assert "several at once, 20 ms / one by one, 20 ms" in capsys.readouterr().out


@pytest.mark.parametrize("program", [outputs, slow_storage, state_tracking])
def test_wrong_options_are_one_line(program, photos, capsys):
    small = SMALL if program is not slow_storage else ["--batch-size", "4"]
    assert program.main([str(photos), *small, "--repeats", "0"]) == 2
    assert capsys.readouterr().err == "error: repeats must be at least 1, got 0\n"
    assert program.main([str(photos), *small, "--output", "/nonexistent/a.json"]) == 2
    assert capsys.readouterr().err.startswith("error: output must be in a folder that exists, got /nonexistent/a.json")
