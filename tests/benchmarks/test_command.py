"""`softfeed bench` from its command line: results, pictures, comparison, and what it refuses."""

import argparse
import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from softfeed.benchmarks import (
    command,
    measurement,
    operations_suite,
    page_cache,
    session,
    steps,
    steps_suite,
    synthetic,
)
from softfeed.benchmarks.processes import ContenderError
from softfeed.benchmarks.progress import Progress
from softfeed.benchmarks.repeated import repeated
from softfeed.benchmarks.result import from_json, to_json
from softfeed.pipelines.sources import open_source
from softfeed.train import cli

from .conftest import rate

QUICK = ["--seconds", "0.001", "--repeats", "2", "--batch-size", "4", "--image-size", "16", "--threads", "1"]
QUICK += ["--device", "cpu"]


@pytest.fixture(autouse=True)
def hardly_any_warm_up(monkeypatch):
    monkeypatch.setattr(measurement, "_WARM_BATCHES", 1)


def bench(*words):
    return cli.main(["bench", *map(str, words)])


def refused(capsys, *words):
    assert bench(*words) == 2
    captured = capsys.readouterr()
    assert not captured.out
    error = captured.err.splitlines()[-1]
    assert error.startswith("softfeed: error: ")
    return error


def test_steps_with_a_training_step(tiny_folder, tmp_path, capsys, monkeypatch):
    output = tmp_path / "now.json"
    words = [tiny_folder, *QUICK, "--recipe", "soft-imagenet", "--model", "small-cnn", "--output", output]
    assert bench(*words) == 0
    text, told = capsys.readouterr()
    lines = [line for line in told.splitlines() if not line.startswith("repeat ")]
    assert lines[0] == f"opening {tiny_folder}"
    assert lines[1].startswith("reading every file once")
    assert lines[2].startswith("building and warming up 1/9: read")
    assert lines[-1].startswith("Peak memory of a process")
    assert "These numbers are uncertain: 2 repeats" in text
    assert "The largest part " in text  # which so short turns may leave untold
    assert "A step of small-cnn takes" in text
    assert "\npeak_memory: host_mb " in text
    assert text.count(" us CPU/image\n") == 6  # what each of the rungs adds
    content = json.loads(output.read_text())
    rungs = ["read", "numbers", "decode", "resize", "normalise", "hand-over"]
    training = ["step alone", "loader alone", "loader and step"]
    assert [row["name"] for row in content["rates"]] == rungs + training
    for row in content["rates"]:
        assert len(row["images_per_s"]) == len(row["cpu_s_per_image"]) == len(row["others"]) == 2
        assert row["spread"][0] <= row["median"] <= row["spread"][1]
        assert len(row["waiting"]) == (2 if row["name"] in ("step alone", "loader and step") else 0)
    assert content["facts"]["peak_memory"]["host_mb"] > 50
    assert [step["name"] for step in content["facts"]["steps"]] == rungs
    assert content["settings"]["recipe"].startswith("Recipe(")
    assert content["data"] | {"mean_bytes": 0} == {
        "name": "images",
        "kind": "image folder",
        "samples": 20,
        "classes": 2,
        "mean_bytes": 0,
        "page_cache": "warm: every file was read before the first turn",
    }
    assert {"processor", "cores", "commit", "versions", "date"} <= set(content["machine"])
    assert str(tiny_folder.parent) not in output.read_text()
    with Image.open(output.with_suffix(".png")) as chart:
        assert chart.format == "PNG"

    # peak memory takes a process of its own, and once is enough
    monkeypatch.setattr(steps_suite, "in_fresh_process", lambda *arguments: {})
    # a result whose rates are far out of reach is a regression
    old = from_json(output)
    better = [rate(row.name, *(100 * row.median * factor for factor in (1, 2, 3))) for row in old.rates[:2]]
    fast = tmp_path / "fast.json"
    fast.write_text(to_json(type(old)(**{**vars(old), "rates": better})))
    words = [tiny_folder, *QUICK, "--recipe", "soft-imagenet", "--compare", fast, "--repeats"]
    assert bench(*words, 3) == 1
    text = capsys.readouterr().out
    assert "   slower\n" in text
    assert "settings: model was small-cnn, is None" in text
    # but not with repeats that are too few to tell
    assert bench(*words, 2) == 0
    text = capsys.readouterr().out
    assert "   slower\n" not in text
    assert "Nothing is called slower or faster: that takes 3 repeats in both runs, got 3 and 2" in text


def test_operations(tiny_folder, tmp_path, capsys, monkeypatch):
    every = operations_suite.recipes(16, raw=False)
    assert {"soft crop, TrivialAugment", "soft crop, mollification", "soft crop, GridMask"} <= set(every)
    assert set(every) == set(operations_suite.recipes(16, raw=True))
    assert every["full, hard crop"] == replace(every["full"], crop=every["hard crop"].crop)
    names = ("soft crop", "hard crop", "soft crop, occlusion", "full", "full, hard crop")
    few = {name: every[name] for name in names} | {"everything": every["full"]}  # a policy takes long to build
    monkeypatch.setattr(operations_suite, "recipes", lambda size, raw: few)
    output = tmp_path / "operations.json"
    words = [tiny_folder, *QUICK, "--suite", "operations", "--output", output, "--chart", tmp_path / "c.png"]
    assert bench(*words) == 0
    assert [ratio.name for ratio in from_json(output).ratios] == [
        "soft crop / hard crop",
        "full / full, hard crop",
        "full / soft crop",
        "everything / soft crop",
        "soft crop, occlusion / soft crop",
        "soft crop / graph up to the resize",
        "full / graph up to the resize",
    ]
    assert (tmp_path / "c.png").stat().st_size > 1000
    assert not output.with_suffix(".png").exists()


def test_a_cold_cache_is_said_to_be_cold(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(steps_suite, "in_fresh_process", lambda *arguments: {})
    dropped = []
    monkeypatch.setattr(page_cache, "drop", lambda files: dropped.append(len(list(files))))
    output = tmp_path / "cold.json"
    words = [tiny_folder, *QUICK, "--recipe", "soft-imagenet", "--cold", "--output", output]
    assert bench(*words) == 0
    assert from_json(output).data["page_cache"].startswith("cold: pages")
    assert dropped == [20] * 12  # before each of two turns of each of six rungs


def test_dropping_pages(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(np.random.default_rng(0).bytes(1 << 20))
    page_cache.drop([str(path)])
    assert page_cache.warm([str(path)]).startswith("warm")
    with pytest.raises(FileNotFoundError):
        page_cache.drop([str(tmp_path / "none")])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--recipe", "soft-imagnet"], "recipe must be one of the presets, got 'soft-imagnet'; did you mean"),
        (["--batch-size", "4", "--model", "resnet5"], "model must be a known name, got 'resnet5'; did you mean"),
        (["--repeats", "0"], "repeats must be at least 1, got 0"),
        (["--seconds", "0"], "seconds must be positive, got 0.0"),
        (["--seconds", "nan"], "seconds must be positive, got nan"),
        (["--batch-size", "0"], "batch-size must be at least 1, got 0"),
        (["--batch-size", "100"], "batch-size must be at most 20, the images that are played, got 100"),
        (["--max-side", "0"], "max-side must be at least 1, got 0"),
        (["--output", "/nonexistent/a.json"], "output must be in a folder that exists, got /nonexistent/a.json"),
        (["--chart", "/"], "chart must be a file, got the folder /"),
        (["--output", "a.png"], "output must be a JSON file, got a.png"),
        (["--output", "/proc/b.json"], "output must be writable, got /proc, which takes no file"),
        (["--chart", "/proc/b.png"], "chart must be writable, got /proc, which takes no file"),
        (["--compare", "/nonexistent.json"], "compare must name a file that can be read, got /nonexistent.json ("),
        (["--synthetic", "5"], "synthetic data of 5 samples must go to a new folder"),
    ],
)
def test_wrong_input_is_refused_before_anything_runs(tiny_folder, capsys, words, message):
    assert message in refused(capsys, tiny_folder, *words)


def test_data_must_be_there_and_of_the_right_kind(capsys, tmp_path):
    assert "image folder must exist, got /nonexistent" in refused(capsys, "/nonexistent")
    words = [synthetic.write_set(tmp_path / "made", 30), "--peers", *QUICK]
    assert "data must be an image folder for peers, got the shard set" in refused(capsys, *words)


USELESS = {
    "recipe": "soft-cifar",
    "model": "resnet50",
    "synthetic": "9",
    "max-side": "500",
    "images": "9",
    "dtype": "float16",
    "channels-last": None,
    "seconds": "1",
    "repeats": "1",
    "cold": None,
}


@pytest.mark.parametrize(
    ("suite", "options"),
    [
        ("steps", ["max-side", "images"]),
        ("operations", ["recipe", "model", "max-side", "images"]),
        ("peers", ["recipe", "model", "synthetic", "images", "dtype", "channels-last"]),
        ("storage", ["model", "synthetic", "max-side", "images"]),
        ("scaling", ["model", "max-side", "images", "cold"]),
        ("memory", ["model", "max-side", "seconds", "repeats", "cold"]),
    ],
)
def test_options_that_a_suite_does_not_use_are_refused(tiny_folder, capsys, suite, options):
    for option, value in USELESS.items():
        words = [f"--{option}", *([] if value is None else [value])]
        if option in options:
            error = refused(capsys, tiny_folder, "--suite", suite, *words)
            assert f"{option} must not be given for the suite {suite}, got " in error
        else:
            parser = argparse.ArgumentParser()
            command.add_options(parser)
            command._check(parser.parse_args([str(tiny_folder), "--suite", suite, *words]))


def test_the_command_is_the_one_that_was_parsed(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["pytest", "--other"])
    monkeypatch.setattr(steps_suite, "in_fresh_process", lambda *arguments: {})
    output = tmp_path / "now.json"
    assert bench(tiny_folder, *QUICK, "--recipe=soft-imagenet", f"--output={output}") == 0
    command = " ".join(["softfeed bench images", *QUICK, "--recipe=soft-imagenet --output=now.json"])
    assert from_json(output).command == command


def test_what_was_measured_outlives_a_process_that_fails(tiny_folder, tmp_path, capsys, monkeypatch):
    def fail(*arguments):
        raise ContenderError("OSError: no room for /tmp/somewhere/file")

    monkeypatch.setattr(steps_suite, "in_fresh_process", fail)
    output = tmp_path / "now.json"
    assert bench(tiny_folder, *QUICK, "--recipe", "soft-imagenet", "--output", output) == 0
    assert "Peak memory was not measured: OSError: no room for file" in capsys.readouterr().out
    found = from_json(output)
    assert found.facts["peak_memory"] == {"skipped": "OSError: no room for file"}
    assert len(found.rates) == 6


class Fails:
    def play(self, seconds):
        raise RuntimeError("no room for /tmp/somewhere/file")


def test_what_was_measured_outlives_a_step_that_fails(tiny_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(steps_suite, "in_fresh_process", lambda *arguments: {})
    monkeypatch.setattr(steps_suite, "ladder", lambda played: steps.ladder(played) | {"resize": Fails()})
    output = tmp_path / "now.json"
    assert bench(tiny_folder, *QUICK, "--recipe", "soft-imagenet", "--output", output) == 1
    assert "resize failed: no room for file\n" in capsys.readouterr().out
    found = from_json(output)
    assert found.facts["failed"] == {"resize": "no room for file"}
    names = ["read", "numbers", "decode", "normalise", "hand-over"]
    assert [row.name for row in found.rates] == [step["name"] for step in found.facts["steps"]] == names


@pytest.mark.parametrize("suite", ["operations", "storage"])
def test_ratios_of_what_failed_are_left_out(tiny_folder, tmp_path, monkeypatch, suite):
    """Even if it is what all the others are compared with."""
    real = measurement.measure

    def measure(contenders, **options):
        few = dict(list(contenders.items())[:3])
        first = next(iter(few))
        return real(few | {first: Fails()}, **options)

    monkeypatch.setattr(session, "measure", measure)
    monkeypatch.setattr("softfeed.benchmarks.peers_suite._LEAST", 12)
    output = tmp_path / "now.json"
    assert bench(tiny_folder, *QUICK, "--suite", suite, "--output", output) == 1
    found = from_json(output)
    assert len(found.rates) == 2
    assert found.ratios == []


def test_each_look_by_itself_may_fail(monkeypatch):
    def fail_on_a_gpu(function, *arguments):
        if function is steps_suite.busy_with:
            raise ContenderError("its process ended with status -11")
        return {"host_mb": 1.0}

    monkeypatch.setattr(steps_suite, "in_fresh_process", fail_on_a_gpu)
    told = SimpleNamespace(played=None, seconds=1, progress=Progress())
    facts, words = steps_suite.look(told, ("peak_memory", "gpu"))
    assert facts == {"peak_memory": {"host_mb": 1.0}, "gpu": {"skipped": "its process ended with status -11"}}
    assert words == ["GPU time was not measured: its process ended with status -11"]


def test_links_are_counted(tiny_folder, tmp_path):
    folder = repeated(tiny_folder, tmp_path / "links", most=20, least=50)
    facts = session.data_facts(open_source(folder))
    assert (facts["samples"], facts["distinct"]) == (60, 20)
    assert "distinct" not in session.data_facts(open_source(tiny_folder))


def test_two_suites_are_refused(tiny_folder, capsys):
    with pytest.raises(SystemExit):
        bench(tiny_folder, "--suite", "storage", "--peers")
    assert "argument --peers: not allowed with argument --suite" in capsys.readouterr().err
