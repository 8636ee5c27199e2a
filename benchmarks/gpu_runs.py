"""Everything that is worth measuring on a GPU, one run after another, each with a result and a log of its own.

`python -m softfeed.benchmarks.gpu_runs IMAGE_FOLDER --results FOLDER` writes `FOLDER/NAME-gpu.json`, charts, and
`FOLDER/NAME-gpu.log` with what the run said. In the order of what matters most:

- `environment`: driver, CUDA, nvJPEG, JPEG engines, CPU cores;
- `decode`: the steps of the soft crop alone, float16, channels last;
- `steps-float16`: the steps of the full recipe, GPU time, a ResNet-50 step's waiting; `steps` the same with float32;
- `peers`: other loaders; `peers-500` the same on images re-encoded to 500 pixels;
- `outputs`: float32, float16 and bfloat16, channels first and last, settings of the decoder;
- `operations`: soft against hard, each operation alone, the full recipe over the graph up to the resize;
- `tune`: what `softfeed tune` finds;
- `storage`: what smaller images give;
- `alternatives`: the blur's own cost for a batch of 256;
- `memory`: host and GPU over 200,000 images;
- `scaling`: threads, batch sizes, sizes of the set.

Images are played from a folder of links, several times over if there are few: an epoch of a batch or two would show its
beginning and end and little else. A run whose result is there already is left out, one that fails does not stop the
others, and with `--limit` none begins that would hardly come to its end, so that the same command again goes on.
DALI is led to the nvJPEG that is installed, before any other of the machine; an old one in use is told of.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from ..pipelines.nvjpeg import LIBRARY
from .program import in_one_line
from .recorded import without_folders
from .repeated import repeated
from .result import slow_decoding

_BATCH = 256
_LEAST = 100 * _BATCH  # images of an epoch
_MOST = 4000  # different images, which are a fair sample, and few enough to be re-encoded by one of the runs
_TAIL = 25  # lines of a log to show
_GOODBYE_S = 20.0  # for a run that is told to stop
_NVJPEG = "nvidia-nvjpeg"  # package
_BENCH = ("-m", "softfeed.train.cli", "bench")


@dataclass(frozen=True)
class Run:
    """One command.

    Attributes:
        words: What follows the name of the Python interpreter.
        minutes: How long it takes on a machine with a GPU and 16 cores, with a margin.
        prints: Whether it prints its result, instead of writing it to the file after `--output`.
    """

    words: tuple[str, ...]
    minutes: float
    prints: bool = False


def runs(data: str, device: str) -> dict[str, Run]:
    """All runs by their names, the most important one first."""
    on = ("--device", device)
    large = (*on, "--batch-size", str(_BATCH))
    brief = ("--seconds", "1", "--repeats", "3")
    half = ("--dtype", "float16", "--channels-last")
    bench = (*_BENCH, data, *large)
    return {
        "environment": Run(("-m", "softfeed.benchmarks.environment", data, *on), 1),
        "decode": Run((*bench, *brief, *half, "--recipe", "soft-imagenet"), 2),
        "steps-float16": Run((*bench, *brief, *half, "--model", "resnet50"), 4),
        "peers": Run((*bench, *brief, "--suite", "peers"), 4),
        "outputs": Run(("-m", "softfeed.benchmarks.outputs", data, *large, *brief), 4),
        "steps": Run((*bench, *brief, "--model", "resnet50"), 4),
        "operations": Run((*bench, "--seconds", "0.7", "--repeats", "3", "--suite", "operations"), 4),
        "tune": Run(("-m", "softfeed.train.cli", "tune", data, *large, "--seconds", "90", "--json"), 4, prints=True),
        "storage": Run((*bench, *brief, "--suite", "storage", "--dtype", "float16"), 3),
        "alternatives": Run(("-m", "softfeed.benchmarks.alternatives", *large, *brief), 4),
        "memory": Run((*bench, "--suite", "memory"), 2),
        "peers-500": Run((*bench, *brief, "--suite", "peers", "--max-side", "500"), 4),
        "scaling": Run((*_BENCH, data, *on, *brief, "--suite", "scaling"), 5),
    }


def is_there(result: Path) -> bool:
    """Whether a run's result was written, and to its end."""
    try:
        json.loads(result.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


def play(run: Run, result: Path, seconds: float | None) -> str | None:
    """Let a run write its result, and beside it a log; why it failed, or None.

    Args:
        run: The run.
        result: Its JSON file, which an older result is in until the run is done; the log has the same name.
        seconds: After how long it is stopped, or None for never.
    """
    words = [sys.executable, *run.words, *(() if run.prints else ("--output", str(result)))]
    with result.with_suffix(".log").open("wb") as log, tempfile.TemporaryFile() as answer:
        # unbuffered, so that a log is whole even where everything is killed
        process = subprocess.Popen(
            words, stdout=answer if run.prints else log, stderr=log, env=environment() | {"PYTHONUNBUFFERED": "1"}
        )
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            _stop(process)
        if run.prints and status == 0:
            answer.seek(0)
            result.write_text(without_folders(answer.read().decode()), encoding="utf-8")
    if status is None:
        return "stopped, as the time is up"
    return f"exit status {status}" if status else None


def environment() -> dict[str, str]:
    """This process's environment, with the folder of the installed nvJPEG where DALI looks for one first.

    Else it takes an older one that the machine may have, which leaves parts of images to the CPU.
    """
    try:
        files = metadata.files(_NVJPEG) or []
    except metadata.PackageNotFoundError:
        files = []
    folders = {str(Path(str(file.locate())).parent.resolve()) for file in files if LIBRARY.fullmatch(file.name)}
    path = [*sorted(folders), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    return os.environ | ({"LD_LIBRARY_PATH": os.pathsep.join(path)} if path else {})


def _slow_decoding() -> str | None:
    """Why decoding is slow with the nvJPEG that the runs find, asked in a process like theirs; None if it is not."""
    code = "from softfeed.pipelines.roi_probe import left_to_the_cpu as l; print(l(fancy_upsampling=True) or '')"
    asked = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True)
    return asked.stdout.strip() or None  # what fails here fails in the runs, too, which have logs


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a run that is still going: as Ctrl-C does, so that it removes what it wrote to disk, or by force."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGINT)
    try:
        process.wait(_GOODBYE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _play_all(
    todo: dict[str, Run], results: dict[str, Path], limit_s: float | None
) -> tuple[dict[str, str], list[str]]:
    """Why runs failed, by name, and the names of those for which there was too little time."""
    failed, left = {}, []
    end = None if limit_s is None else time.monotonic() + limit_s
    for name, run in todo.items():
        remaining = None if end is None else end - time.monotonic()
        if remaining is not None and remaining < 60 * run.minutes:
            left.append(name)
            continue
        print(f"\n== {name}, about {run.minutes:g} minutes", flush=True)
        begin = time.monotonic()
        reason = play(run, results[name], remaining)
        log = results[name].with_suffix(".log").read_text(encoding="utf-8", errors="replace").splitlines()
        print("\n".join(log[-_TAIL:]))
        print(f"== {name}: {reason or 'done'}, {(time.monotonic() - begin) / 60:.1f} minutes", flush=True)
        if reason is not None:
            failed[name] = reason
    return failed, left


def _warn(slow: str | None) -> None:
    """Say so that nobody overlooks it why decoding is slow, if it is."""
    if slow is not None:
        print(f"\n{'!' * 100}\n{slow_decoding(slow)}\n{'!' * 100}", flush=True)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m softfeed.benchmarks.gpu_runs",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("data", type=Path, help="image folder")
    parser.add_argument(
        "--results", type=Path, default=Path("benchmarks/results"), help="folder (default: %(default)s)"
    )
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to try the commands out (default: cuda)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these runs")
    parser.add_argument("--again", action="store_true", help="measure again what has a result already")
    parser.add_argument(
        "--limit",
        type=float,
        metavar="MINUTES",
        help="begin no run that takes longer than what is left of this time, and stop one that is still going then; "
        "where a command is killed after ten minutes, 9",
    )
    return parser.parse_args(arguments)


@in_one_line
def main(arguments: list[str] | None = None) -> int:
    """Run everything that has no result yet; returns 1 if a run failed."""
    options = _parse(arguments)
    names = list(runs("", options.device))
    unknown = set(options.only or ()) - set(names)
    if unknown:
        raise ValueError(f"only must name runs of {', '.join(names)}, got {', '.join(sorted(unknown))}")
    if options.limit is not None and not options.limit > 0:
        raise ValueError(f"limit must be positive, got {options.limit}")
    if not options.results.is_dir():
        raise FileNotFoundError(f"results must be a folder that exists, got {options.results}; make it first")
    machine = "gpu" if options.device == "cuda" else options.device
    results = {name: options.results.resolve() / f"{name}-{machine}.json" for name in names}
    wanted = [name for name in names if options.only is None or name in options.only]
    there = [] if options.again else [name for name in wanted if is_there(results[name])]
    if there:
        print(f"measured already: {', '.join(there)}; --again measures again", flush=True)
    begin = time.monotonic()
    slow = _slow_decoding() if options.device == "cuda" else None
    _warn(slow)
    with tempfile.TemporaryDirectory(prefix="softfeed-runs-") as scratch:
        folder = Path(scratch, options.data.resolve().name)  # whose name is all that results say of it
        data = str(repeated(options.data, folder, most=_MOST, least=_LEAST))
        todo = {name: run for name, run in runs(data, options.device).items() if name in wanted and name not in there}
        limit_s = None if options.limit is None else 60 * options.limit - (time.monotonic() - begin)
        try:
            failed, left = _play_all(todo, results, limit_s)
        except KeyboardInterrupt:
            print("\ninterrupted; the same command again goes on")
            return 130
    if left:
        print(f"\nleft for another call: {', '.join(left)}")
    if failed:
        print("\nfailed: " + ", ".join(f"{name} ({reason})" for name, reason in failed.items()))
    _warn(slow)
    return int(bool(failed))


if __name__ == "__main__":
    # a machine that takes its time back says so with this signal; what is played must not outlive it
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
