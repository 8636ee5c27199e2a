"""A run that is killed with `kill -9` and resumed is the run that was not."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from softfeed.train import checkpoint

EPOCHS, IMAGES = 4, 96  # 24 steps each
ALONE = [sys.executable]
TWO = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
SCRIPT = str(Path(__file__).with_name("logged_training.py"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """96 images of 32 x 32 noise over one of three colours."""
    root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for index in range(IMAGES):
        pixels = rng.integers(0, 100, (32, 32, 3), np.uint8)
        pixels[:, :, index % 3] += 100
        path = root / "rgb"[index % 3] / f"{index:02d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
    return root


def command(launch, data, output, batch_size):
    options = ["--model", "small-cnn", "--epochs", str(EPOCHS), "--batch-size", str(batch_size), "--device", "cpu"]
    options += ["--image-size", "32", "--recipe", "soft-cifar", "--threads", "1", "--save-every-steps", "2", "--resume"]
    log = str(output.with_suffix(".log"))
    return [*launch, SCRIPT, log, "train", str(data), "--val", str(data), *options, "--output", str(output)]


def finish(arguments):
    done = subprocess.run(arguments, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-20000:]
    return done.stdout


def kill_after(arguments, log, batches, seconds):
    """Start a run, kill it so many batches (over all ranks) and seconds later; whether that was before its end."""

    def lines():
        return len(log.read_text().splitlines()) if log.exists() else 0

    end, silent = lines() + batches, {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(arguments, **silent, env=ENVIRONMENT, start_new_session=True) as run:
        while run.poll() is None and lines() < end:
            time.sleep(0.005)
        try:
            run.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)  # torchrun and the ranks alike
        return run.wait() == -signal.SIGKILL


def weights(output):
    state = checkpoint.load(output / "last.pt")
    assert state.epoch == EPOCHS
    assert state.running is None
    return state


def assert_same_run(one, two):
    for name, value in one.model.items():
        assert torch.equal(value, two.model[name]), name
    for row, other in zip(one.history, two.history, strict=True):
        for name in ("train_loss", "nll", "top1", "lr"):
            assert row[name] == other[name], (row["epoch"], name)


def played(log, ranks):
    """Samples of each epoch, by (epoch, step, rank); a step that was done again had the same ones."""
    steps = {}
    for line in log.read_text().splitlines():
        epoch, step, rank, index = json.loads(line)
        assert steps.setdefault((epoch, step, rank), index) == index
    assert {rank for _, _, rank in steps} == set(range(ranks))
    return [[i for (e, _, _), index in steps.items() if e == epoch for i in index] for epoch in range(EPOCHS)]


@pytest.mark.parametrize(
    ("launch", "kills"),
    [
        pytest.param(ALONE, 1, id="alone-once"),
        pytest.param(ALONE, 10, id="alone-10", marks=pytest.mark.slow),
        pytest.param(TWO, 1, id="two-once", marks=pytest.mark.slow),
        pytest.param(TWO, 10, id="two-10", marks=pytest.mark.slow),
    ],
)
def test_killed_at_random_moments(data, tmp_path, launch, kills):
    ranks, moments = (1 if launch is ALONE else 2), random.Random(kills)
    batch_size = 4 // ranks
    finish(command(launch, data, tmp_path / "whole", batch_size))
    for _ in range(kills):
        arguments = command(launch, data, tmp_path / "cut", batch_size)
        batches = moments.randint(3, 60 // kills + 3) * ranks
        assert kill_after(arguments, tmp_path / "cut.log", batches, moments.uniform(0, 0.05)), "it was over before"
    said = finish(command(launch, data, tmp_path / "cut", batch_size))
    assert "epochs done" in said
    assert_same_run(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    for epoch in played(tmp_path / "cut.log", ranks):
        assert sorted(epoch) == list(range(IMAGES))
