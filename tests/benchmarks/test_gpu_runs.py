"""Runs for a GPU: each is a command that its program understands, and what was measured outlives what fails."""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
from softfeed.benchmarks import alternatives, command, environment, gpu_runs, outputs, peers_suite
from softfeed.benchmarks.gpu_runs import Run
from softfeed.pipelines import nvjpeg
from softfeed.train import tune_command

ROOT = Path(__file__).parents[2]
PROGRAMS = {
    "softfeed.benchmarks.alternatives": alternatives,
    "softfeed.benchmarks.environment": environment,
    "softfeed.benchmarks.outputs": outputs,
}


def parsed(words):
    """What the program that `python words...` starts makes of its options."""
    assert words[0] == "-m"
    if words[1] != "softfeed.train.cli":
        return PROGRAMS[words[1]]._program().parsed(list(words[2:]))
    parser = argparse.ArgumentParser()
    if words[2] == "tune":
        tune_command.add_parser(parser.add_subparsers())
        return parser.parse_args(words[2:])
    assert words[2] == "bench"
    command.add_options(parser)
    args = parser.parse_args(words[3:])
    command._check(args)
    return args


def test_every_run_is_a_valid_command(tmp_path):
    output = ("--output", str(tmp_path / "r.json"))
    runs = gpu_runs.runs("images", "cuda")
    found = {name: parsed(run.words if run.prints else (*run.words, *output)) for name, run in runs.items()}
    assert found["steps"].model == found["steps-float16"].model == "resnet50"
    assert found["steps-float16"].dtype == found["decode"].dtype == "float16"
    assert found["decode"].recipe == "soft-imagenet"
    suites = {"operations", "peers", "storage", "memory", "scaling"}
    assert {found[name].suite for name in suites} == suites
    assert found["peers-500"].max_side == 500
    assert all(args.device == "cuda" for args in found.values())
    assert all(args.output == tmp_path / "r.json" for name, args in found.items() if not runs[name].prints)
    assert found["alternatives"].batch_size == found["outputs"].batch_size == found["tune"].batch_size == 256
    assert found["tune"].json
    assert list(runs)[1:4] == ["decode", "steps-float16", "peers"]
    assert list(runs)[-1] == "scaling"
    assert all(run.minutes <= 5 for run in runs.values()), "two must fit into ten minutes"


# Runs of the same kind that need no GPU: the words after the interpreter, before `--output FILE`
WRITES = "import sys; from pathlib import Path; Path(sys.argv[2]).write_text('{}'); print('measured'); "
FAKES = {
    "good": Run(("-c", WRITES), 1),
    "bad": Run(("-c", "import sys; print('out of memory', file=sys.stderr); sys.exit(3)"), 1),
    "partly": Run(("-c", WRITES + "sys.exit(1)"), 1),
    "printed": Run(
        ("-c", "import sys; print('{\"data\": \"/somewhere/deep/images\"}'); print('busy', file=sys.stderr)"), 2, True
    ),
    "last": Run(("-c", WRITES), 5),
}


@pytest.fixture
def fakes(monkeypatch, tmp_path, tiny_folder):
    """Calls the program with runs that need no GPU, on some results folder; what `data` was for each call."""
    seen = []

    def runs(data, device):
        if data:  # "" is asked for the names alone
            seen.append((Path(data).name, sum(1 for _ in Path(data).rglob("*.png"))))
        return FAKES

    monkeypatch.setattr(gpu_runs, "runs", runs)
    monkeypatch.setattr(gpu_runs, "_LEAST", 50)
    monkeypatch.setattr(gpu_runs, "_slow_decoding", lambda: None)

    def call(*words):
        return gpu_runs.main([str(tiny_folder), "--results", str(tmp_path), "--device", "cuda", *words])

    call.seen = seen
    return call


def test_a_run_that_fails_does_not_stop_the_others(fakes, tmp_path, capsys):
    assert fakes() == 1
    printed = capsys.readouterr().out
    assert printed.rstrip().endswith("failed: bad (exit status 3), partly (exit status 1)")
    assert "out of memory\n== bad: exit status 3" in printed
    assert (tmp_path / "bad-gpu.log").read_text() == "out of memory\n"
    assert (tmp_path / "good-gpu.log").read_text() == "measured\n"
    assert (tmp_path / "printed-gpu.log").read_text() == "busy\n"
    assert json.loads((tmp_path / "printed-gpu.json").read_text()) == {"data": "images"}
    assert (tmp_path / "last-gpu.json").exists()
    assert not (tmp_path / "bad-gpu.json").exists()
    assert fakes.seen == [("images", 60)]  # 20 images three times over


def test_what_has_a_result_is_not_measured_again(fakes, tmp_path, capsys):
    (tmp_path / "good-gpu.json").write_text('{"old": 1}')
    (tmp_path / "last-gpu.json").write_text('{"cut o')  # by a kill
    assert fakes("--only", "last", "good") == 0
    assert "measured already: good;" in capsys.readouterr().out
    assert json.loads((tmp_path / "good-gpu.json").read_text()) == {"old": 1}
    assert json.loads((tmp_path / "last-gpu.json").read_text()) == {}
    assert fakes("--only", "good", "--again") == 0
    assert json.loads((tmp_path / "good-gpu.json").read_text()) == {}


def test_the_installed_nvjpeg_comes_first(tmp_path, monkeypatch):
    """One that the machine has may be old, and DALI looks along this path before it looks at packages."""
    library = metadata.PackagePath("nvidia/cu13/lib/libnvjpeg.so.13")
    library.dist = SimpleNamespace(locate_file=lambda file: tmp_path / file)
    monkeypatch.setattr(gpu_runs.metadata, "files", lambda name: [library] if name == "nvidia-nvjpeg" else None)
    monkeypatch.setenv("LD_LIBRARY_PATH", "/usr/local/nvidia/lib:/old")
    assert gpu_runs.environment()["LD_LIBRARY_PATH"] == f"{tmp_path}/nvidia/cu13/lib:/usr/local/nvidia/lib:/old"
    tell = Run(("-c", "import os; print(os.environ['LD_LIBRARY_PATH'])"), 1)
    assert gpu_runs.play(tell, tmp_path / "r.json", None) is None
    assert (tmp_path / "r.log").read_text().startswith(f"{tmp_path}/nvidia/cu13/lib:")
    monkeypatch.delenv("LD_LIBRARY_PATH")
    assert gpu_runs.environment()["LD_LIBRARY_PATH"] == f"{tmp_path}/nvidia/cu13/lib"

    def none(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(gpu_runs.metadata, "files", none)
    assert "LD_LIBRARY_PATH" not in gpu_runs.environment()


def test_an_old_nvjpeg_in_use_is_told_of_first_and_last(fakes, monkeypatch, capsys):
    monkeypatch.setattr(gpu_runs, "_slow_decoding", lambda: "nvJPEG 12.4.0 leaves those to the CPU")
    assert fakes("--only", "good") == 0
    printed = capsys.readouterr().out
    told = "\nRates that begin with JPEGs are too low: of parts of images nvJPEG 12.4.0 leaves those to the CPU; pip "
    assert printed.count(told) == 2
    assert printed.index(told) < printed.index("== good") < printed.rindex(told)


def test_the_nvjpeg_in_use_is_asked_for():
    installed = nvjpeg.version()
    told = gpu_runs._slow_decoding()
    assert (told is None) == (installed is None or installed >= (13, 2)), told


def test_no_run_begins_that_would_not_end(fakes, tmp_path, capsys):
    assert fakes("--only", "good", "printed", "last", "--limit", "1.5") == 0
    assert capsys.readouterr().out.rstrip().endswith("left for another call: printed, last")
    assert [path.stem for path in tmp_path.glob("*-gpu.json")] == ["good-gpu"]
    assert fakes("--only", "good", "printed", "last", "--limit", "4") == 0
    printed = capsys.readouterr().out
    assert "measured already: good;" in printed
    assert printed.rstrip().endswith("left for another call: last")


def test_a_run_that_is_still_going_at_the_limit_is_told_to_stop(tmp_path, monkeypatch):
    result, note = tmp_path / "slow-gpu.json", tmp_path / "note"
    result.write_text('{"old": 1}')
    waits = f"""
import signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # which is not so in a shell's background
from pathlib import Path
try:
    print("begun")
    time.sleep(60)
except KeyboardInterrupt:
    Path({str(note)!r}).write_text("cleaned up")
"""
    begin = time.monotonic()
    assert gpu_runs.play(Run(("-c", waits), 1), result, 3) == "stopped, as the time is up"
    assert time.monotonic() - begin < 30
    assert note.read_text() == "cleaned up"
    assert result.with_suffix(".log").read_text() == "begun\n"
    assert json.loads(result.read_text()) == {"old": 1}
    monkeypatch.setattr(gpu_runs, "_GOODBYE_S", 0.1)
    deaf = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)"
    assert gpu_runs.play(Run(("-c", deaf), 1), result, 1) == "stopped, as the time is up"
    assert time.monotonic() - begin < 30


def test_a_machine_that_takes_its_time_back_leaves_nothing_running(tiny_folder, tmp_path):
    """The signal that ends most things ends what is being played, too, and the links that it played."""
    words = [tiny_folder, "--results", tmp_path, "--device", "cpu", "--only", "memory"]
    command = [sys.executable, "-m", "softfeed.benchmarks.gpu_runs", *map(str, words)]
    links = tmp_path / "scratch"
    links.mkdir()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(links)}
    ) as process:
        assert process.stdout is not None
        assert "== memory" in process.stdout.readline() + process.stdout.readline()
        assert list(links.glob("softfeed-runs-*"))
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; the same command again goes on" in said
    assert not list(links.glob("softfeed-runs-*"))


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("target", ["bench-gpu", "test-gpu"])
def test_make_installs_nothing_for_an_interpreter_that_has_everything(target):
    def commands(*words):
        make = ["make", "--no-print-directory", "-n", "-B", target, "DATA=images", "OPTIONS=--one", *words]
        return subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    given = commands("RUN=python-of-mine")
    assert "pip install" not in given
    assert "venv" not in given
    assert "python-of-mine " in given.splitlines()[-1]
    assert given.rstrip().endswith("--one")
    assert "pip install" in commands()
    assert ("tests/" in given) == (target == "test-gpu"), (
        "a test that fails must not keep the others from being measured"
    )


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_a_checkout_is_a_package_without_an_installation(tmp_path):
    """The links that make lays, seen by an interpreter without any other packages."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("softops", "pipelines", "train", "benchmarks"):
        (tmp_path / name).mkdir()
    subprocess.run(["make", ".linked/softfeed"], cwd=tmp_path, check=True, capture_output=True)
    subprocess.run(["make", "-B", ".linked/softfeed"], cwd=tmp_path, check=True, capture_output=True)  # once more
    (tmp_path / "train" / "found.py").write_text("from importlib.metadata import version\nprint(version('softfeed'))")
    command = [sys.executable, "-S", "-m", "softfeed.train.found"]
    done = subprocess.run(command, env={"PYTHONPATH": str(tmp_path / ".linked")}, capture_output=True, text=True)
    assert f'version = "{done.stdout.strip()}"' in (ROOT / "pyproject.toml").read_text(), done.stderr


def test_wrong_options(tmp_path, capsys):
    assert gpu_runs.main(["images", "--results", str(tmp_path / "none")]) == 2
    assert "results must be a folder that exists" in capsys.readouterr().err
    assert gpu_runs.main(["images", "--results", str(tmp_path), "--only", "step"]) == 2
    assert "only must name runs of environment, decode, " in capsys.readouterr().err
    assert gpu_runs.main(["images", "--results", str(tmp_path), "--limit", "0"]) == 2
    assert "limit must be positive, got 0.0" in capsys.readouterr().err


def test_images_are_linked_to_as_they_are(tiny_folder, tmp_path):
    folder = gpu_runs.repeated(tiny_folder, tmp_path / "links", most=6, least=20)
    links = sorted(folder.rglob("*.png"))
    assert len(links) == 24
    originals = {link.resolve() for link in links}
    assert len(originals) == 6
    assert all(link.parent.name == link.resolve().parent.name for link in links)
    assert {path.parent.name for path in originals} == {"class0", "class1"}
    # other loaders' files are written once for all links to an image
    same = peers_suite.same_files(folder, tmp_path / "same", max_side=8)
    written = [path for path in same.rglob("*.jpg") if not path.is_symlink()]
    assert len(written) == 6
    assert len(list(same.rglob("*.jpg"))) == 24 * -(-peers_suite._LEAST // 24)
