"""The examples run on small data, and each differs in a few lines from the version with its own loader."""

import difflib
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

EXAMPLES = Path(__file__).parents[2] / "examples"
NEEDS = {"torchvision_style": "torchvision", "timm_style": "timm", "lightning_module": "lightning"}

# other projects warn of each other's changes
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Eight images of two classes to train on, six to validate."""
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 3)):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (40, 50, 3), np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{number}.jpg")
    return root


def code(name):
    """Lines of an example without its docstring."""
    text = (EXAMPLES / f"{name}.py").read_text()
    return text.partition('"""\n\n')[2].splitlines()


@pytest.mark.parametrize("name", NEEDS)
def test_a_few_lines_differ(name):
    lines = list(difflib.unified_diff(code(name), code(f"{name}_softfeed"), n=0, lineterm=""))[2:]
    added = [line for line in lines if line.startswith("+")]
    removed = [line for line in lines if line.startswith("-")]
    assert any("softfeed" in line for line in added)
    assert len(added) <= 9, "\n".join(added)
    assert len(removed) <= 16, "\n".join(removed)


@pytest.mark.parametrize("own_loader", [True, False], ids=["its own loader", "softfeed"])
@pytest.mark.parametrize("name", NEEDS)
def test_runs(data, capsys, monkeypatch, tmp_path, name, own_loader):
    pytest.importorskip(NEEDS[name], reason=f"{NEEDS[name]} is not installed; it comes with softfeed[test]")
    monkeypatch.chdir(tmp_path)
    options = ["--size", "32", "--batch-size", "4", "--epochs", "2", "--workers", "0" if own_loader else "1"]
    script = EXAMPLES / (f"{name}.py" if own_loader else f"{name}_softfeed.py")
    monkeypatch.setattr(sys, "argv", [str(script), str(data), *options])
    torch.manual_seed(0)
    runpy.run_path(str(script), run_name="__main__")
    printed = capsys.readouterr().out
    expected = {
        "torchvision_style": ["step 2/2: loss ", "on 6 images"],
        "timm_style": ["epoch 1: loss ", "over 8 images", "on 6 images"],
        "lightning_module": ["'train_loss': ", "'val_accuracy': "],
    }
    for words in expected[name]:
        assert words in printed
    assert "nan" not in printed


def test_a_distributed_run_that_was_stopped_goes_on_to_the_same_weights(data, tmp_path):
    """In the middle of its second epoch, which is the third of its four steps."""
    pytest.importorskip("torchvision", reason="torchvision is not installed; it comes with softfeed[test]")

    def run(output, *options):
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        script = [EXAMPLES / "distributed_resume.py", data, "--output", tmp_path / output]
        size = ["--model", "shufflenet_v2_x0_5", "--size", "32", "--batch-size", "2", "--epochs", "2"]
        done = subprocess.run(
            [*torchrun, *script, *size, *options], capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout.splitlines()

    whole = run("whole.pt")
    assert [line.split(": ")[0] for line in whole] == ["epoch 1/2", "epoch 2/2"]
    assert whole[1].endswith(" on 6 images")
    assert len(run("cut.pt", "--save-every", "1", "--stop-after", "3")) == 1
    assert run("cut.pt") == whole[1:]
    model, other = (torch.load(tmp_path / name)["model"] for name in ("whole.pt", "cut.pt"))
    assert all(torch.equal(model[name], other[name]) for name in model)
