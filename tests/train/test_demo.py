"""`softfeed demo` from end to end, with as little training as shows that it works."""

import json
import re

import pytest
import torch
from softfeed.train import comparison
from softfeed.train.cli import main

ARGUMENTS = ["--epochs", "1", "--seeds", "2", "--device", "cpu"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    assert main(["demo", "--output", str(folder), *ARGUMENTS]) == 0
    return folder


@pytest.fixture
def no_training(monkeypatch):
    def refuse(*args, **options):
        raise FloatingPointError("it trained")

    monkeypatch.setattr(comparison.Comparison, "_train", refuse)


def test_every_run_is_measured(finished):
    for recipe in ("hard", "soft"):
        for seed in (0, 1):
            content = json.loads((finished / "runs" / f"{recipe}-seed{seed}" / "scores.json").read_text())
            assert content["settings"]["recipe"] == repr(comparison.RECIPES[recipe])
            assert content["run"]["seed"] == seed
            assert len(content["run"]["history"]) == 1
            for scores in ("clean", "occluded"):
                assert content["run"][scores]["num_samples"] == 360


def test_a_second_call_reuses_the_runs_and_says_the_same(finished, no_training, capsys):
    scores = finished / "runs" / "soft-seed1" / "scores.json"
    measured = json.loads(scores.read_text())["run"]
    report = finished / "report.html"
    report.unlink()
    assert main(["demo", "--output", str(finished), *ARGUMENTS]) == 0
    text = capsys.readouterr().out
    assert f"top-1 {measured['clean']['top1']:.1%}, ECE {measured['clean']['ece']:.3f}" in text
    assert text.count("every pixel checked") == 2
    assert report.is_file()


@pytest.mark.parametrize("change", [["--epochs", "2"], ["--seeds", "3"], ["--fresh"]])
def test_other_settings_are_trained(finished, no_training, capsys, change):
    assert main(["demo", "--output", str(finished), *ARGUMENTS, *change]) == 2
    assert "it trained" in capsys.readouterr().err


@pytest.mark.parametrize("damage", [lambda text: text[: len(text) // 2], lambda text: text.replace('"lr"', '"rate"')])
def test_scores_that_cannot_be_trusted_are_measured_again(finished, no_training, damage):
    scores = finished / "runs" / "hard-seed0" / "scores.json"
    whole = scores.read_text()
    scores.write_text(damage(whole))
    try:
        assert main(["demo", "--output", str(finished), *ARGUMENTS]) == 2
    finally:
        scores.write_text(whole)


def test_its_checkpoints_give_the_same_scores(finished, tmp_path):
    run = finished / "runs" / "soft-seed0"
    found = tmp_path / "scores.json"
    arguments = ["--occlusion", "0.4", "--json", str(found), "--device", "cpu"]
    assert main(["eval", str(run / "last.pt"), str(finished / "shards" / "test"), *arguments]) == 0
    expected = json.loads((run / "scores.json").read_text())["run"]["occluded"]
    assert json.loads(found.read_text())["top1"] == pytest.approx(expected["top1"], abs=1e-9)
    assert json.loads(found.read_text())["nll"] == pytest.approx(expected["nll"], rel=1e-4)  # other threads, other sums


def test_torch_gets_its_threads_back(finished):
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        main(["demo", "--output", str(finished), *ARGUMENTS])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "0"], "epochs must be at least 1, got 0"),
        (["--seeds", "0"], "seeds must be at least 1, got 0"),
        (["--seed", "-1"], "seed must not be negative, got -1"),
    ],
)
def test_bad_settings_are_one_line_and_leave_nothing(tmp_path, capsys, arguments, message):
    assert main(["demo", "--output", str(tmp_path / "new"), *arguments]) == 2
    assert capsys.readouterr().err == f"softfeed: error: {message}\n"
    assert not (tmp_path / "new").exists()


def test_output_that_is_a_file(tmp_path, capsys):
    (tmp_path / "taken").touch()
    assert main(["demo", "--output", str(tmp_path / "taken")]) == 2
    assert re.search(r"output must be a folder, got the file .*taken; choose another", capsys.readouterr().err)
