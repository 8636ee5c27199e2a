import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from softfeed.pipelines.atomic import require_writable
from softfeed.train import checkpoint
from softfeed.train.checkpoint import Checkpoint, load, open_run, require_same, save


@pytest.fixture
def state():
    generator = torch.Generator().manual_seed(0)
    return Checkpoint(
        settings={"model": "small-cnn", "seed": 0, "mean": [0.5, 0.5, 0.5]},
        classes=("cat", "dog"),
        epoch=2,
        model={"weight": torch.randn(64, 64, generator=generator), "steps": torch.tensor(5)},
        optimizer={"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
        history=[{"epoch": 1.0, "train_loss": 2.5}, {"epoch": 2.0, "train_loss": 1.5}],
    )


def test_what_is_saved_comes_back(state, tmp_path):
    save(tmp_path / "last.pt", state)
    back = load(tmp_path / "last.pt")
    assert torch.equal(back.model["weight"], state.model["weight"])
    assert torch.equal(back.optimizer["state"][0]["momentum_buffer"], torch.ones(3))
    no_tensors = {"model": {}, "optimizer": {}}
    assert replace(back, **no_tensors) == replace(state, **no_tensors)
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]


def test_a_file_cut_short_anywhere_is_one_line(state, tmp_path):
    save(tmp_path / "last.pt", state)
    content = (tmp_path / "last.pt").read_bytes()
    cut = tmp_path / "cut.pt"
    for size in range(0, len(content), len(content) // 37):
        cut.write_bytes(content[:size])
        with pytest.raises(ValueError, match=r"checkpoint must be whole and written by softfeed train, got .*cut\.pt"):
            load(cut)


def test_a_flipped_bit_in_the_weights_is_found(state, tmp_path):
    save(tmp_path / "last.pt", state)
    content = bytearray((tmp_path / "last.pt").read_bytes())
    position = bytes(content).index(state.model["weight"].numpy().tobytes()) + 5000
    content[position] ^= 1
    (tmp_path / "last.pt").write_bytes(content)
    with pytest.raises(ValueError, match="checkpoint must be undamaged, got a wrong checksum in"):
        load(tmp_path / "last.pt")


class Intruder:
    def __reduce__(self):
        return (os.mkdir, ("intruder-was-here",))


def test_code_in_a_file_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"format": checkpoint.FORMAT, "model": Intruder()}, "evil.pt")
    with pytest.raises(ValueError, match="written by softfeed train, got"):
        load("evil.pt")
    assert not (tmp_path / "intruder-was-here").exists()


def test_other_files_are_refused(tmp_path):
    torch.save({"weights": torch.zeros(2)}, tmp_path / "other.pt")
    (tmp_path / "text.pt").write_text("not a checkpoint")
    for name in ("other.pt", "text.pt"):
        with pytest.raises(ValueError, match=f"written by softfeed train.*{name}"):
            load(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"checkpoint must exist, got .*missing\.pt"):
        load(tmp_path / "missing.pt")
    with pytest.raises(ValueError, match="checkpoint must be a file, got the folder"):
        load(tmp_path)


KILLED = """
import sys, time
from pathlib import Path
from softfeed.pipelines import atomic
path = Path(sys.argv[1])
content = path.read_bytes()
def half(file):
    file.write(content[: len(content) // 2])
    file.flush()
    print("halfway", flush=True)
    time.sleep(600)
atomic.write(path, half)
"""


def test_kill_9_while_writing_leaves_the_previous_checkpoint(state, tmp_path):
    path = tmp_path / "last.pt"
    save(path, state)
    with subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "halfway\n"
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert (tmp_path / "last.pt.tmp").stat().st_size > 0
    assert load(path).epoch == 2
    resumed = open_run(tmp_path, resume=True)
    assert resumed is not None
    save(path, replace(resumed, epoch=3))
    assert load(path).epoch == 3
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]


FULL_DISK = """
import resource, sys
from dataclasses import replace
from pathlib import Path
from softfeed.train.checkpoint import load, save
path = Path(sys.argv[1])
state = load(path)
resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000))
try:
    save(path, replace(state, epoch=3))
except OSError as error:
    print(error)
"""


def test_a_full_disk_is_an_os_error_and_leaves_the_previous_checkpoint(state, tmp_path):
    path = tmp_path / "last.pt"
    save(path, state)
    run = [sys.executable, "-c", FULL_DISK, str(path)]
    output = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    assert "File too large" in output
    assert "last.pt" in output
    assert load(path).epoch == 2
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]


def test_resuming_something_else_is_refused(state):
    require_same(state, dict(state.settings), state.classes)
    with pytest.raises(ValueError, match="model must be 'small-cnn' as in the run to resume, got 'resnet18'"):
        require_same(state, {**state.settings, "model": "resnet18"}, state.classes)
    with pytest.raises(ValueError, match="seed must be 0 as in the run to resume, got None"):
        require_same(state, {"model": "small-cnn", "mean": [0.5] * 3}, state.classes)
    with pytest.raises(ValueError, match=r"got 2 classes \(class 1 is 'cow', was 'dog'\)"):
        require_same(state, state.settings, ("cat", "cow"))
    with pytest.raises(ValueError, match="classes must be the 2 of the run to resume, got 3 classes"):
        require_same(state, state.settings, ("cat", "dog", "eel"))


def test_the_folder_of_a_run_is_never_overwritten(state, tmp_path):
    assert open_run(tmp_path / "new", resume=False) is None
    assert open_run(tmp_path / "new", resume=True) is None
    assert not (tmp_path / "new").exists()
    (tmp_path / "dead").mkdir()
    (tmp_path / "dead" / "last.pt.tmp").write_bytes(b"half")
    assert open_run(tmp_path / "dead", resume=False) is None
    (tmp_path / "run").mkdir()
    save(tmp_path / "run" / "last.pt", state)
    with pytest.raises(ValueError, match="holds a run; continue it with --resume or choose another --output"):
        open_run(tmp_path / "run", resume=False)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"x")
    for resume in (False, True):
        with pytest.raises(ValueError, match=r"which holds cat.jpg; choose another --output"):
            open_run(tmp_path / "photos", resume=resume)
    with pytest.raises(ValueError, match="output must be a folder, got the file"):
        open_run(tmp_path / "photos" / "cat.jpg", resume=True)


def test_a_folder_that_takes_no_file_is_found_before_the_work(tmp_path):
    require_writable(tmp_path / "a" / "b", name="output")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(NotADirectoryError, match=r"output must lie in a folder, got the file .*/file; choose another"):
        open_run(tmp_path / "file" / "run", resume=True)
    # Nobody, not even root, may create files in /proc.
    with pytest.raises(OSError, match=r"output must be writable, got /proc, which takes no file \(.*; choose another"):
        open_run(Path("/proc/runs/first"), resume=False)
