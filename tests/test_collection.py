"""The tests for a GPU: all are found where there is little beside torch and DALI, and none of them costs another."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Of softfeed[test], peers and dask, and google-crc32c, which only TFRecord needs. pytest finds hypothesis and xdist as
# plugins, which are not looked for then.
HIDDEN = """
import sys
from importlib.machinery import PathFinder

HIDDEN = {
    "accelerate", "aiohttp", "distributed", "ffcv", "google_crc32c", "hypothesis", "lightning", "simplejpeg", "spdl",
    "tfrecord", "timm", "torchdata", "torchmetrics", "webdataset", "xdist",
}
for finder in [finder for finder in sys.meta_path if hasattr(finder, "find_spec")]:
    def find_spec(name, path=None, target=None, *, find=finder.find_spec):
        return None if name.partition(".")[0] in HIDDEN else find(name, path, target)
    finder.find_spec = find_spec
"""


def collected(*words, **environment):
    """The files of the GPU's tests in their order, the files that were skipped as a whole, and the exit status."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "--collect-only", "-q", *words]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True)
    tests = re.findall(r"^(tests/[^:\n]*)::", done.stdout, re.MULTILINE)
    skipped = re.findall(r"^SKIPPED \[1\] ([^:]*):\d+: .* is not installed", done.stdout, re.MULTILINE)
    return list(dict.fromkeys(tests)), skipped, done


def test_gpu_tests_need_no_optional_package(tmp_path):
    (tmp_path / "hidden.py").write_text(HIDDEN)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    files, skipped, done = collected("-p", "hidden", PYTHONPATH=path, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    assert done.returncode == 0, done.stdout[-3000:]
    first = ["test_gpu.py", "test_gpu_decoder.py", "test_roi_probe.py", "test_decoder.py"]
    assert [Path(file).name for file in files[: len(first)]] == first
    assert len(files) > 15
    assert "softops" not in " ".join(files[:15])
    assert {Path(file).parent.name for file in files[-5:]} == {"softops"}
    assert len(skipped) > 10, "nothing was hidden"
    _, _, done = collected(*skipped)
    assert done.returncode == 5, f"skipped files have tests for a GPU: {done.stdout[-3000:]}"


def test_loaders_and_benchmarks_need_no_optional_package(tmp_path):
    """A set of TFRecords asks for the package that is missing, which the command says in a line."""
    (tmp_path / "hidden.py").write_text(HIDDEN)
    code = """
import hidden
from softfeed.benchmarks import command, gpu_runs, outputs, peers_suite
from softfeed.pipelines import Loader
from softfeed.pipelines.shards.containers.tfrecord import masked_crc
from softfeed.train import cli
try:
    masked_crc(b"123456789")
except ModuleNotFoundError as error:
    print(cli._user_message(error))
"""
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    command, environment = [sys.executable, "-c", code], os.environ | {"PYTHONPATH": path}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    told = "TFRecord shards must find the package google-crc32c, got none; pip install google-crc32c\n"
    assert (done.stdout, done.returncode) == (told, 0), done.stderr


FILES = {
    "test_gpu.py": "def test_before(): pass\ndef test_crash(): os.kill(os.getpid(), signal.SIGSEGV)",
    "test_roi_probe.py": "def test_hang(): subprocess.run(['sleep', '60'])",
    "test_good.py": "def test_good(): pass",
    "test_bad.py": "def test_bad(): assert 0\ndef test_too(): pass",
}


def on_a_gpu(root, *words):
    """The program that runs the tests for a GPU, on `FILES` instead; its output and exit status."""
    (root / "tests" / "softops").mkdir(parents=True)
    (root / "pytest.ini").write_text("[pytest]\nmarkers = gpu: a GPU\ntestpaths = tests\naddopts = -ra\n")
    for name, body in FILES.items():
        text = f"import os, signal, subprocess, time, pytest\npytestmark = pytest.mark.gpu\n{body}\n"
        (root / "tests" / ("softops" if name == "test_bad.py" else "") / name).write_text(text)
    (root / "tests" / "test_other.py").write_text("def test_other(): assert 0\n")
    shutil.copy(ROOT / "tests" / "on_a_gpu.py", root / "tests")
    command = [sys.executable, "tests/on_a_gpu.py", *words]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60)
    return done.stdout, done.returncode


def test_a_file_that_ends_its_process_or_hangs_costs_no_other(tmp_path):
    printed, status = on_a_gpu(tmp_path, "--file-limit", "4", "-p", "no:cacheprovider")
    assert status == 1
    assert "tests/test_good.py::test_good PASSED" in printed  # all is seen while it runs
    summary = printed[printed.index("== all files") :]
    assert "\ntests/test_good.py: 1 passed in " in summary
    assert "\ntests/softops/test_bad.py: 1 failed, 1 passed in " in summary
    assert "\n    FAILED tests/softops/test_bad.py::test_bad" in summary
    assert "\ntests/test_gpu.py: ended by SIGSEGV in tests/test_gpu.py::test_crash\n" in summary
    assert "\ntests/test_roi_probe.py: stopped after 4 s in tests/test_roi_probe.py::test_hang\n" in summary
    assert "test_other" not in printed


def test_some_of_the_files_for_a_gpu(tmp_path):
    printed, status = on_a_gpu(tmp_path, "tests/test_good.py")
    assert (printed.count("== tests/"), status) == (1, 0)
