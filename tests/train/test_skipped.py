"""Training and evaluation go on without images that cannot be read, on two ranks, and tell which."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from softfeed.pipelines import Loader, Recipe, SoftCrop, presets
from softfeed.train import checkpoint
from softfeed.train.cli import main
from softfeed.train.distributed import Process
from softfeed.train.engine import evaluate
from softfeed.train.skipped import report
from torch import nn

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
TORCHRUN += ["-m", "softfeed.train.cli"]
SMALL = ["--model", "small-cnn", "--device", "cpu", "--threads", "1", "--batch-size", "8", "--image-size", "32"]


@pytest.fixture
def data(tmp_path):
    """66 images of 40 x 48 noise over one of three colours; four of them damaged in a way of their own each."""
    root, rng = tmp_path / "images", np.random.default_rng(0)
    for index in range(66):
        pixels = rng.integers(0, 100, (40, 48, 3), np.uint8)
        pixels[:, :, index % 3] += 100
        path = root / ("blue", "green", "red")[index % 3] / f"{index:02d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    bad = {name: root / name for name in ("blue/03.jpg", "green/10.jpg", "red/20.jpg", "red/65.jpg")}
    content = {name: path.read_bytes() for name, path in bad.items()}
    bad["blue/03.jpg"].write_bytes(content["blue/03.jpg"][:500])
    bad["green/10.jpg"].write_bytes(b"not an image")
    bad["red/20.jpg"].write_bytes(b"")
    bad["red/65.jpg"].write_bytes(bytes(byte ^ 0x10 for byte in content["red/65.jpg"]))
    return root, sorted(str(path) for path in bad.values())


def test_two_ranks_stay_in_step_and_report_every_image(data, tmp_path, capsys):
    root, bad = data
    output = tmp_path / "run"
    arguments = ["train", str(root), "--val", str(root), *SMALL, "--epochs", "2", "--output", str(output)]
    arguments += ["--on-error", "skip", "--max-errors", "4"]
    done = subprocess.run([*TORCHRUN, *arguments], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "epoch 2/2" in done.stdout
    training, validation = done.stdout.partition("training: skipped ")[2].split("validation: skipped ")
    assert validation.startswith("4 sample(s) that could not be read or decoded\n")
    assert [line.split(": ")[0].strip() for line in validation.splitlines()[1:]] == bad
    assert {line.split(": ")[0].strip() for line in training.splitlines()[1:]} <= set(bad)
    state = checkpoint.load(output / "last.pt")
    assert state.running is not None
    assert state.running["step"] == 0
    assert all(source in bad for _, source, _ in state.running["batches"]["errors"])
    # one process takes the finished run as it is, and evaluates without them
    assert main([*arguments[:-6], "--batch-size", "16", *arguments[-6:], "--resume"]) == 0
    capsys.readouterr()
    scores = tmp_path / "scores.json"
    evaluation = ["eval", str(output / "last.pt"), str(root), "--device", "cpu", "--json", str(scores)]
    assert main([*evaluation, "--on-error", "skip", "--max-errors", "0.1"]) == 0
    assert "(62 images)\nevaluation: skipped 4 sample(s)" in capsys.readouterr().out
    assert json.loads(scores.read_text())["num_samples"] == 62
    assert main(evaluation) == 2
    assert "softfeed: error: cannot " in capsys.readouterr().err
    assert main([*evaluation, "--on-error", "skip", "--max-errors", "3"]) == 2
    assert "max_errors must be at least the number of samples that fail, got 3 and 4" in capsys.readouterr().err


def test_evaluation_counts_every_sample_once_in_batches_of_one(data):
    root, bad = data

    def scores(*, size):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 3))
        options = {"device": "cpu", "num_threads": 1, "on_error": "skip", "max_errors": 4}
        with Loader(root, presets.evaluation(), size, 32, **options) as loader:
            return evaluate(model, loader)

    one, all_at_once = scores(size=1), scores(size=66)
    assert one.num_samples == all_at_once.num_samples == 66 - len(bad)
    assert one.summary() == pytest.approx(all_at_once.summary(), rel=1e-5)


def test_a_long_report_is_cut(data):
    root, _ = data
    for path in sorted(root.rglob("*.jpg"))[:30]:
        path.unlink()
        path.write_bytes(b"x")
    with Loader(root, Recipe(crop=SoftCrop()), 66, 32, device="cpu", on_error="skip", max_errors=66) as loader:
        list(loader)
        lines = report({"training": loader, "validation": None}, Process.current())
    assert lines[0].startswith("training: skipped 3")
    assert len(lines) == 22
    assert lines[-1].startswith("  and 1")
