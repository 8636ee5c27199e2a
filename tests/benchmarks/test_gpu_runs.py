"""The list of runs for a GPU: every command is one that its program understands."""

import argparse
import subprocess
import sys

from softfeed.benchmarks import alternatives, command, gpu_runs, outputs


def parsed(words):
    """What the program that `python words...` starts makes of its options."""
    assert words[0] == "-m"
    if words[1] == "softfeed.train.cli":
        assert words[2] == "bench"
        parser = argparse.ArgumentParser()
        command.add_options(parser)
        args = parser.parse_args(words[3:])
        command._check(args)
        return args
    program = {"softfeed.benchmarks.alternatives": alternatives, "softfeed.benchmarks.outputs": outputs}[words[1]]
    return program._parse(words[2:])


def test_every_run_is_a_valid_command(tmp_path):
    output = ["--output", str(tmp_path / "r.json")]
    found = {name: parsed([*words, *output]) for name, words in gpu_runs.runs("images", "cuda").items()}
    assert found["steps"].model == "resnet50"
    assert found["steps-float16"].dtype == "float16"
    suites = {"operations", "peers", "storage", "memory", "scaling"}
    assert {found[name].suite for name in suites} == suites
    assert found["peers-500"].max_side == 500
    assert all(args.device == "cuda" and args.output == tmp_path / "r.json" for args in found.values())
    assert found["alternatives"].batch_size == found["outputs"].batch_size == 256


def test_a_run_that_fails_does_not_stop_the_others(tmp_path, monkeypatch, capsys):
    ran = []

    def run(words):
        ran.append(words)
        return subprocess.CompletedProcess(words, 1 if "memory" in words else 0)

    monkeypatch.setattr(gpu_runs.subprocess, "run", run)
    arguments = ["images", "--results", str(tmp_path), "--only", "memory", "steps"]
    assert gpu_runs.main(arguments) == 1
    assert capsys.readouterr().out.rstrip().endswith("failed: memory")
    assert [words[0] for words in ran] == [sys.executable] * 2
    assert ran[1][-1] == str(tmp_path / "steps-gpu.json")
    assert gpu_runs.main([*arguments[:3], "--only", "steps"]) == 0


def test_wrong_options(tmp_path, capsys):
    assert gpu_runs.main(["images", "--results", str(tmp_path / "none")]) == 2
    assert "results must be a folder that exists" in capsys.readouterr().err
    assert gpu_runs.main(["images", "--results", str(tmp_path), "--only", "step"]) == 2
    assert "only must name runs of steps, " in capsys.readouterr().err
