"""The command line end to end, on small images written here."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from softfeed.pipelines.fingerprint import fingerprint
from softfeed.pipelines.shards.convert import convert
from softfeed.pipelines.shards.layout import ShardOptions
from softfeed.train import checkpoint, cli
from softfeed.train.cli import main

COMMAND = [sys.executable, "-m", "softfeed.train.cli"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", COMMAND[2]]
LOADING = "loading PyTorch and DALI\n"
SMALL = ["--model", "small-cnn", "--image-size", "32", "--batch-size", "16", "--device", "cpu"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """66 noisy images in three classes, told apart by their colour."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for label, name in enumerate(("blue", "green", "red")):
        (root / name).mkdir()
        for index in range(22):
            pixels = rng.integers(0, 150, (40, 48, 3))
            pixels[..., 2 - label] += 100
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{index:02d}.png")
    return str(root)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """A finished run of six epochs, and what it printed."""
    output = tmp_path_factory.mktemp("runs") / "first"
    arguments = ["train", data, "--val", data, *SMALL, "--epochs", "6", "--output", str(output)]
    finished = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False, timeout=300)
    assert finished.returncode == 0, finished.stderr
    return output, finished


def error_of(capsys, *arguments):
    """The one line that a failing command prints."""
    assert main([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert not captured.out
    assert captured.err.startswith("softfeed: error: ")
    assert captured.err.count("\n") == 1
    return captured.err


def without_progress(errors):
    """Standard error without the early line of a first epoch, which takes longer on a busy machine."""
    return re.sub(r"^epoch \S+  step .*\n", "", errors, flags=re.MULTILINE)


def test_training_learns_and_leaves_a_run(run):
    output, finished = run
    state = checkpoint.load(output / "last.pt")
    assert state.epoch == 6
    assert state.classes == ("blue", "green", "red")
    assert state.history[-1]["train_loss"] < state.history[0]["train_loss"] * 0.8
    assert checkpoint.load(output / "best.pt").history[-1]["top1"] == max(row["top1"] for row in state.history) > 0.8
    lines = finished.stdout.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("epoch ")] == [f"{n}/6" for n in range(1, 7)]
    assert {path.name.split(".")[0] for path in output.iterdir()} == {"last", "best", "events"}
    assert without_progress(finished.stderr) == LOADING  # no bar and no warnings where nobody watches


def test_evaluation_repeats_the_scores_of_training(run, data, capsys, tmp_path):
    output, _ = run
    assert (
        main(
            ["eval", str(output / "last.pt"), data, "--device", "cpu", "--json", str(tmp_path / "new" / "scores.json")]
        )
        == 0
    )
    printed = capsys.readouterr().out
    scores = json.loads((tmp_path / "new" / "scores.json").read_text())
    row = checkpoint.load(output / "last.pt").history[-1]
    for name in ("top1", "top5", "nll", "ece"):
        assert scores[name] == pytest.approx(row[name], rel=1e-5), name
    assert f"top-1 {row['top1']:.2%}" in printed
    assert "(66 images)" in printed
    assert sum(b["count"] for b in scores["bins"]) == scores["num_samples"] == 66


def scores_of(tmp_path, *arguments):
    """What `softfeed eval` writes for its arguments."""
    path = tmp_path / "scores.json"
    assert main(["eval", *map(str, arguments), "--device", "cpu", "--json", str(path)]) == 0
    return json.loads(path.read_text())


def test_evaluation_resizes_as_in_training_unless_told(run, data, tmp_path, capsys):
    """Images of 40 x 48 pixels, of which the centre is 32 x 32 of what they are resized to."""
    output = tmp_path / "run"
    train = ["train", data, "--val", data, *SMALL, "--epochs", "1", "--output", str(output)]
    assert main([*train, "--resize", "60"]) == 0
    row = checkpoint.load(output / "last.pt").history[-1]
    own, plain, same = (
        scores_of(tmp_path, output / "last.pt", data, *more) for more in ([], ["--resize", "32"], ["--resize", "60"])
    )
    assert [scores["resize"] for scores in (own, plain, same)] == [60, 32, 60]
    assert own["nll"] == same["nll"] == pytest.approx(row["nll"], rel=1e-5)
    assert plain["nll"] != pytest.approx(row["nll"], rel=1e-4)
    whole = scores_of(tmp_path, run[0] / "last.pt", data)
    assert whole["resize"] is None
    assert scores_of(tmp_path, run[0] / "last.pt", data, "--resize", "32")["nll"] == whole["nll"]
    capsys.readouterr()
    assert "resize must be 60 as in the run to resume, got None" in error_of(capsys, *train, "--resume")
    assert "resize must be at least image_size, 32, got 31" in error_of(
        capsys, "eval", output / "last.pt", data, "--resize", "31"
    )


def test_validation_without_images_of_a_class_counts_labels_as_training_does(run, data, tmp_path, capsys):
    val = copied(data, tmp_path / "val")
    shutil.rmtree(val / "blue")
    whole = ["train", data, "--val", val, *SMALL, "--epochs", "6", "--output", tmp_path / "run"]
    assert main([str(argument) for argument in whole]) == 0
    printed = capsys.readouterr().out
    assert "\nval has no image of 'blue', of 3 classes\n" in printed
    row = checkpoint.load(tmp_path / "run" / "last.pt").history[-1]
    assert row["top1"] > 0.8
    shards = convert(val, tmp_path / "set", workers=1).folder
    (val / "blue").mkdir()
    for evaluated in (val, shards):
        scores = scores_of(tmp_path, tmp_path / "run" / "last.pt", evaluated)
        assert scores["nll"] == pytest.approx(row["nll"], rel=1e-5)
        assert "data has no image of 'blue', of 3 classes" in capsys.readouterr().out
    assert main([str(argument) for argument in [*whole, "--resume"]]) == 0


def test_scores_that_could_not_be_written_are_not_computed(run, data, tmp_path, capsys, monkeypatch):
    def evaluate(*args, **settings):
        raise AssertionError("evaluated in vain")

    monkeypatch.setattr("softfeed.train.engine.evaluate", evaluate)
    command = ["eval", run[0] / "last.pt", data, "--device", "cpu", "--json"]
    assert "json must be writable, got /proc, which takes" in error_of(capsys, *command, "/proc/scores.json")
    assert "json must be a file, got the folder" in error_of(capsys, *command, tmp_path)
    (tmp_path / "file").write_bytes(b"x")
    assert "json must lie in a folder, got the file" in error_of(capsys, *command, tmp_path / "file" / "a" / "s.json")


def test_total_occlusion_leaves_one_guess(run, data, tmp_path):
    output, _ = run
    arguments = ["eval", str(output / "last.pt"), data, "--occlusion", "1", "--device", "cpu"]
    assert main([*arguments, "--json", str(tmp_path / "blind.json")]) == 0
    assert json.loads((tmp_path / "blind.json").read_text())["top1"] == pytest.approx(1 / 3)


def test_two_ranks_train_and_one_process_finds_the_same_scores_and_may_resume(data, tmp_path):
    output = tmp_path / "run"
    # 66 images in batches of 8 on 2 ranks: the last step of a validation is not full.
    arguments = ["train", data, "--val", data, *SMALL, "--epochs", "2", "--output", str(output)]
    halved = [*arguments, "--batch-size", "8"]
    two = subprocess.run([*TORCHRUN, *halved], capture_output=True, text=True, check=False, timeout=300)
    assert two.returncode == 0, two.stderr
    assert two.stdout.count("epoch 2/2") == 1  # rank 0 alone prints
    assert main(["eval", str(output / "last.pt"), data, "--device", "cpu", "--json", str(tmp_path / "one.json")]) == 0
    one = json.loads((tmp_path / "one.json").read_text())
    row = checkpoint.load(output / "last.pt").history[-1]
    assert one["num_samples"] == 66
    for name in ("top1", "top5", "nll", "ece"):
        assert one[name] == pytest.approx(row[name], rel=1e-5), name
    assert main([*arguments, "--resume"]) == 0  # the same global batch


def test_resumed_run_equals_the_uninterrupted_one_bit_for_bit(run, data, tmp_path, monkeypatch, capsys):
    whole, _ = run
    arguments = ["train", data, "--val", data, *SMALL, "--epochs", "6", "--output", str(tmp_path / "cut"), "--resume"]
    real_save = checkpoint.save

    def save_and_stop(path, state):
        real_save(path, state)
        if path.name == "last.pt" and state.epoch == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", save_and_stop)
        assert main(arguments) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "softfeed: error: interrupted"  # progress of slow steps precedes
    assert checkpoint.load(tmp_path / "cut" / "last.pt").epoch == 3
    assert main(arguments) == 0
    assert "3 of 6 epochs done" in capsys.readouterr().out
    one, two = (checkpoint.load(folder / "last.pt") for folder in (whole, tmp_path / "cut"))
    for name, value in one.model.items():
        assert torch.equal(value, two.model[name]), name
    assert [row["nll"] for row in one.history] == [row["nll"] for row in two.history]


def test_an_existing_run_needs_resume_with_the_same_settings(run, data, capsys):
    output, _ = run
    again = ["train", data, "--val", data, *SMALL, "--epochs", "6", "--output", output]
    assert "continue it with --resume or choose another --output" in error_of(capsys, *again)
    assert "seed must be 0 as in the run to resume, got 1" in error_of(capsys, *again, "--resume", "--seed", "1")
    assert "recipe must be 'Recipe(crop=SoftCrop(" in error_of(capsys, *again, "--resume", "--recipe", "hard-imagenet")
    assert "model must be 'small-cnn'" in error_of(capsys, *again, "--resume", "--model", "wrn-10-1")
    assert main([str(argument) for argument in [*again, "--resume"]]) == 0
    assert "6 of 6 epochs done" in capsys.readouterr().out


def copied(data, root, *, changed=None):
    """The images of `data` below `root`, one of them changed where they look the same to a loader."""
    shutil.copytree(data, root)
    if changed:
        image = root / changed
        image.write_bytes(image.read_bytes() + b"\0")
    return root


@pytest.mark.parametrize("shards", [False, True])
def test_a_run_is_not_resumed_on_other_data_of_the_same_classes_and_size(run, data, tmp_path, capsys, shards):
    output, _ = run
    sets = {"same": copied(data, tmp_path / "same"), "other": copied(data, tmp_path / "o", changed="red/07.png")}
    if shards:
        sets = {name: convert(root, tmp_path / f"{name}-set", workers=1).folder for name, root in sets.items()}
        output = tmp_path / "run"
        first = ["train", sets["same"], "--val", sets["same"], *SMALL, "--epochs", "6", "--output", output]
        save = checkpoint.load(run[0] / "last.pt")
        output.mkdir()
        known = {"data": fingerprint(sets["same"]), "val": fingerprint(sets["same"])}
        checkpoint.save(output / "last.pt", replace(save, settings=save.settings | known))
    else:
        first = ["train", sets["same"], "--val", data, *SMALL, "--epochs", "6", "--output", output]
    assert main([str(argument) for argument in [*first, "--resume"]]) == 0
    capsys.readouterr()
    kind = "shard set" if shards else "image folder"
    for name, place in (("data", 1), ("val", 3)):
        arguments = [*first, "--resume"]
        arguments[place] = sets["other"]
        error = error_of(capsys, *arguments)
        assert f"{name} must be '{kind} of 66 images, checksum " in error
        assert "give the same data and settings or choose another --output" in error


def test_a_run_of_an_older_version_may_be_resumed(run, data, tmp_path, capsys):
    saved = checkpoint.load(run[0] / "last.pt")
    older = {name: value for name, value in saved.settings.items() if name not in ("data", "val")}
    older["recipe"] = older["recipe"].replace(", views=1", "")
    del older["recipe_fields"]["views"], older["resize"]
    (tmp_path / "run").mkdir()
    checkpoint.save(tmp_path / "run" / "last.pt", replace(saved, settings=older))
    given = ["train", data, "--val", data, *SMALL, "--epochs", "6", "--output", str(tmp_path / "run"), "--resume"]
    assert main(given) == 0
    capsys.readouterr()
    assert "recipe must be 'Recipe(crop=SoftCrop(" in error_of(capsys, *given, "--recipe", "soft-imagenet-ra")
    assert "resize must be None as in the run to resume, got 40" in error_of(capsys, *given, "--resize", "40")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "0"], "epochs must be at least 1, got 0"),
        (["--model", "resnet19"], "did you mean resnet18"),
        (["--recipe", "soft-imagnet"], "recipe must be one of the presets, got 'soft-imagnet'; did you mean"),
        (["--loss", "hard"], "loss must be one of plain, target, target-weight, weight, got 'hard'"),
        (["--label-smoothing", "1"], "label_smoothing must be in [0, 1), got 1.0"),
        (["--lr", "nan"], "lr must be positive and finite, got nan"),
        (["--weight-decay", "-1"], "weight_decay must be finite and not negative, got -1.0"),
        (["--batch-size", "0"], "batch_size must be at least 1, got 0"),
        (["--batch-size", "67"], "samples, 66 (66 samples on 1 rank(s)), got 67; use a smaller --batch-size\n"),
        (["--threads", "0"], "threads must be at least 1, got 0"),
        (["--seed", "-1"], "seed must not be negative, got -1"),
        (["--resize", "20"], "resize must be at least image_size, 32, got 20"),
        (["--image-size", "0"], "image_size must be a whole number of at least 1, got 0"),
        (["--sigma-decay-epochs", "3"], "sigma-decay-epochs must be in [0, 2], got 3"),
        (
            ["--val", "/nowhere"],
            "val must be an image folder or a shard set, got /nowhere, which does not exist; check",
        ),
        (["--recipe", "soft-cifar"], "image_size must be the images' own size with SoftShift, got 32 for 40x48 in "),
        (["--recipe", "soft-cifar"], "/00.png; give that as --image-size if it is square, or choose --recipe soft-im"),
        (["--save-every-steps", "0"], "save-every-steps must be at least 1, got 0"),
        (["--save-every-minutes", "-1"], "save-every-minutes must not be negative, got -1.0"),
        (["--output", "/proc/run"], "output must be writable, got /proc, which takes no file"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(data, tmp_path, capsys, arguments, message):
    given = ["train", data, *SMALL, "--epochs", "2", "--output", tmp_path / "run", *arguments]
    assert message in error_of(capsys, *given)
    assert not (tmp_path / "run").exists()


def test_raw_images_that_are_not_square_name_the_recipe_that_takes_them(data, tmp_path, capsys):
    convert(data, tmp_path / "raw", ShardOptions(raw=True), workers=1)
    given = ["train", tmp_path / "raw", "--model", "small-cnn", "--batch-size", "16", "--device", "cpu"]
    given += ["--epochs", "1", "--output", tmp_path / "run"]
    message = error_of(capsys, *given, "--recipe", "soft-cifar")
    assert "image_size must be the images' own size, 40x48, with SoftShift, got 48; " in message
    assert "choose --recipe soft-imagenet" in message
    assert main([str(argument) for argument in given]) == 0, "the default recipe does not take them"


@pytest.mark.parametrize("broken", [False, True])
def test_encoded_images_of_another_size_are_refused_before_the_run_begins(data, tmp_path, capsys, broken):
    """The table of a shard set tells it of any image; an image that is broken is no reason by itself."""
    images = copied(data, tmp_path / "images")
    for image in images.glob("*/*.png"):
        with Image.open(image) as picture:
            picture.resize((32, 32)).save(image)
    if broken:
        (images / "blue" / "00.png").write_bytes(b"no image")
    given = [*SMALL, "--epochs", "1", "--output", tmp_path / "run", "--recipe", "soft-cifar", "--on-error", "skip"]
    assert main([str(word) for word in ["train", images, *given, "--max-errors", "1"]]) == 0
    with Image.open(images / "red" / "07.png") as picture:
        picture.resize((40, 32)).save(images / "red" / "07.png")
    shards = convert(images, tmp_path / "set", workers=1).folder
    capsys.readouterr()
    message = error_of(capsys, "train", shards, *given, "--output", tmp_path / "other")
    assert "got 32 for 32x40 in " in message
    assert "red/07.png" in message


def test_the_help_lists_the_recipes(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    for command in ("train", "tune", "show"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        shown = " ".join(capsys.readouterr().out.split())
        assert (
            "soft-imagenet, hard-imagenet, soft-cifar or hard-cifar; behind it may follow, in this order: -ra" in shown
        )
        assert all(name in shown for name in ("-augmix, -mixup", "-mosaic, -moll"))


def test_a_gpu_that_is_not_there_is_one_line(data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    given = ["train", data, "--epochs", "1", "--output", tmp_path / "run", "--device", "cuda"]
    assert "device must be present, got 'cuda' where PyTorch sees no GPU" in error_of(capsys, *given)


def test_bad_checkpoints_and_data_are_one_line(run, data, tmp_path, capsys):
    output, _ = run
    (tmp_path / "cut.pt").write_bytes((output / "last.pt").read_bytes()[:5000])
    assert "checkpoint must be whole" in error_of(capsys, "eval", tmp_path / "cut.pt", data)
    assert "checkpoint must exist" in error_of(capsys, "eval", tmp_path / "no.pt", data)
    assert "DATA must be an image folder or a shard set, got /nowhere" in error_of(
        capsys, "eval", output / "last.pt", "/nowhere"
    )
    for share in ("40", "1.5", "-0.1", "nan"):
        assert f"occlusion must be a share in [0, 1], got {share}; --occlusion 0.4 hides 40 %\n" in error_of(
            capsys, "eval", output / "last.pt", data, "--occlusion", share
        )
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        Image.new("RGB", (40, 40)).save(tmp_path / "pets" / name / "1.png")
    other = f"must have no classes but the 3 of {{}}, got 'cat', 'dog' in {tmp_path / 'pets'}, which lacks 'blue', "
    wrong = error_of(capsys, "eval", output / "last.pt", tmp_path / "pets")
    assert "error: data " + other.format("the checkpoint") in wrong
    train = ["train", data, "--val", tmp_path / "pets", *SMALL, "--epochs", "1", "--output", tmp_path / "run"]
    assert "error: val " + other.format("the training data") in error_of(capsys, *train)
    saved = checkpoint.load(output / "last.pt")
    checkpoint.save(tmp_path / "own.pt", checkpoint.Checkpoint({}, saved.classes, 1, saved.model, {}, []))
    assert "without image_size in its settings" in error_of(capsys, "eval", tmp_path / "own.pt", data)


def test_an_unreadable_image_on_one_rank_is_one_line_of_that_rank(data, tmp_path):
    broken = tmp_path / "images"
    for label in ("blue", "green", "red"):
        (broken / label).mkdir(parents=True)
        for index in range(22):
            source = f"{data}/{label}/{index:02d}.png"
            (broken / label / f"{index:02d}.png").symlink_to(source)
    (broken / "red" / "07.png").unlink()
    (broken / "red" / "07.png").write_bytes(b"\x89PNG\r\n\x1a\n but no more")
    arguments = ["train", str(broken), *SMALL, "--epochs", "1", "--output", str(tmp_path / "run")]
    run_2 = subprocess.run([*TORCHRUN, *arguments], capture_output=True, text=True, check=False, timeout=300)
    assert run_2.returncode != 0
    lines = [line for line in run_2.stderr.splitlines() if line.startswith("softfeed: error: ")]
    assert any("of 2: " in line and "07.png" in line for line in lines)
    assert "train_command.py" not in run_2.stderr  # no traceback of ours
    assert not (tmp_path / "run").exists()


def test_under_torchrun_a_common_error_is_said_once(data, tmp_path):
    arguments = ["train", data, *SMALL, "--model", "resnet19", "--epochs", "1", "--output", str(tmp_path / "run")]
    run_2 = subprocess.run([*TORCHRUN, *arguments], capture_output=True, text=True, check=False, timeout=300)
    assert run_2.returncode != 0
    assert run_2.stderr.count("softfeed: error: model must be a known name, got 'resnet19'") == 1
    assert run_2.stderr.count("softfeed: error: ") == 1


def test_ctrl_c_ends_without_a_traceback(data, tmp_path):
    arguments = ["train", data, *SMALL, "--epochs", "100000", "--output", str(tmp_path / "run")]
    with subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        while not process.stdout.readline().startswith("epoch 1/"):
            assert process.poll() is None
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        errors = process.stderr.read()
    assert process.returncode == 130
    saved = f"softfeed: error: interrupted; the run is saved in {tmp_path / 'run'}, go on with --resume\n"
    assert without_progress(errors) == LOADING + "ending after this step; once more to end at once\n" + saved
    state = checkpoint.load(tmp_path / "run" / "last.pt")
    assert state.epoch >= 1
    assert state.running is None or state.running["step"] in (1, 2, 3, 4)


def test_overview_and_version_need_no_heavy_imports():
    code = "import sys; from softfeed.train.cli import main\ntry: main(['--help'])\nfinally: print(sorted(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert shown.returncode == 0
    for name in ("convert", "train", "eval"):
        assert f"\n    {name} " in shown.stdout
    assert "'argparse'" in shown.stdout
    assert "'torch'" not in shown.stdout
    assert "'numpy'" not in shown.stdout
    version = subprocess.run([*COMMAND, "--version"], capture_output=True, text=True, check=True).stdout
    assert version.startswith("softfeed 0.")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "COMMAND must be a known one, got 'trian'; did you mean train?"),
        (["convrt"], "COMMAND must be a known one, got 'convrt'; did you mean convert?"),
        (["x"], "COMMAND must be a known one, got 'x'; choose one of convert, verify, copy, train, eval, "),
        (["train", "--frobnicate"], "the following arguments are required: DATA"),
        (["eval"], "the following arguments are required: CHECKPOINT, DATA"),
    ],
)
def test_unknown_commands_and_flags_are_one_line(capsys, arguments, message):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"softfeed: error: {message}")
    assert error.count("\n") == 1


def test_no_command_lists_the_commands(capsys):
    assert main([]) == 2
    captured = capsys.readouterr()
    assert not captured.out
    for name in cli.COMMANDS:
        assert f"\n    {name} " in captured.err


@pytest.mark.parametrize(
    ("arguments", "status", "begin"),
    [
        (["eval", "/nowhere/no.pt", "x"], 2, LOADING + "softfeed: error: checkpoint must exist"),
        (["eval", "--help"], 0, ""),
        (["eval"], 2, "softfeed: error: the following arguments are required"),
        (["demo", "--epochs", "0"], 2, "softfeed: error: epochs must be at least 1"),
    ],
)
def test_slow_imports_are_announced_once_and_only_where_there_are_any(arguments, status, begin):
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == status
    assert done.stderr.startswith(begin)
    assert done.stderr.count("\n") == begin.count("\n") + (status == 2)


def test_a_full_gpu_is_one_line_on_the_rank_that_has_it(monkeypatch, capsys):
    def full(argv):
        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 9 GiB. Including non-PyTorch memory, and so on"
        )

    monkeypatch.setattr("softfeed.train.cli._run", full)
    monkeypatch.setenv("RANK", "1")
    assert main([]) == 2
    assert capsys.readouterr().err == (
        "softfeed: error: GPU memory must hold a step, got CUDA out of memory. Tried to allocate 9 GiB; "
        "use a smaller --batch-size\n"
    )


def test_a_crash_in_a_library_says_what_each_thread_was_doing():
    code = "import os; from softfeed.train import cli; cli._run = lambda argv: os.abort(); cli.main([])"
    crashed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert crashed.returncode == -signal.SIGABRT
    assert crashed.stderr.startswith("Fatal Python error: Aborted\n")
    assert "cli.py" in crashed.stderr


def test_a_defect_keeps_its_traceback(monkeypatch):
    def broken(argv):
        raise KeyError("defect")

    monkeypatch.setattr("softfeed.train.cli._run", broken)
    with pytest.raises(KeyError, match="defect"):
        main([])


def test_an_error_can_show_its_traceback_on_request(monkeypatch):
    monkeypatch.setenv("SOFTFEED_TRACEBACK", "1")
    with pytest.raises(FileNotFoundError, match="checkpoint must exist"):
        main(["eval", os.devnull + "/no.pt", "x"])
