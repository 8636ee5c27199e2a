"""`pytest -m gpu` where there is little beside torch and DALI: it finds all tests, the most telling ones first."""

import os
import re
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
