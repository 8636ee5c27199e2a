"""The tests that need a GPU, each file in a process of its own, so that one that dies or hangs costs no other file.

`python tests/on_a_gpu.py [FILE...] [OPTIONS OF PYTEST]`, which is what `make test-gpu` does. The files come in pytest's
order, see `conftest.py`, the most telling ones first; the last lines say how each of them ended.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# A warning of another version of torch or numpy must not fail all tests.
PYTEST = [sys.executable, "-m", "pytest", "-m", "gpu", "-W", "default"]
# Where the plugin is there, a test that hangs in native code ends its process instead of the whole call.
TIMEOUT = ["--timeout=90", "--timeout-method=thread"]
FILE_S = 240  # for those that hang and cannot even be ended by that


def files(options: list[str]) -> list[str]:
    """The files that have tests for a GPU, in pytest's order."""
    command = [*PYTEST, "--collect-only", "-q", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    found = re.findall(r"^(\S+\.py)::", done.stdout, re.MULTILINE)
    if done.returncode or not found:
        print(done.stdout + done.stderr, flush=True)
    return list(dict.fromkeys(found))


def play(file: str, options: list[str], limit_s: float) -> tuple[bool, list[str]]:
    """Run a file, with its output as it comes; whether all is well, and lines that say how it ended."""
    limits = TIMEOUT if find_spec("pytest_timeout") else []
    command = [*PYTEST, "-v", *limits, file, *options]
    # a session of its own, so that the children of a test that hangs are ended with it
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    late = threading.Event()

    def stop() -> None:
        late.set()
        os.killpg(process.pid, signal.SIGKILL)

    timer = threading.Timer(limit_s, stop)
    timer.start()
    begun, summary, failed = file, "", []
    assert process.stdout is not None
    try:
        for line in process.stdout:
            print(line, end="", flush=True)
            if match := re.match(r"\S+\.py::\w+(\[.*?\](?=\s|$))?", line):
                begun = match[0]
            elif match := re.match(r"=+ (.* in [\d.]+s.*?) =+$", line):
                summary = match[1]
            elif line.startswith(("FAILED ", "ERROR ")):
                failed.append(f"    {line.rstrip()}")
        status = process.wait()
    finally:
        timer.cancel()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    if late.is_set():
        summary = f"stopped after {limit_s:g} s in {begun}"
    elif status < 0:
        summary = f"ended by {signal.Signals(-status).name} in {begun}"
    elif not summary:
        summary = f"ended with status {status} in {begun}"
    return status == 0, [f"{file}: {summary}", *failed]


def main(arguments: list[str] | None = None) -> int:
    """Run them; returns the exit status, 1 if not all is well."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--file-limit", type=float, default=FILE_S, help="seconds for a file (default: %(default)s)")
    options, rest = parser.parse_known_args(arguments)
    chosen = [word for word in rest if word.endswith(".py")]
    passed_on = [word for word in rest if word not in chosen]
    todo = chosen or files(passed_on)
    well, told = bool(todo), []
    for file in todo:
        print(f"\n== {file}", flush=True)
        fine, lines = play(file, passed_on, options.file_limit)
        well &= fine
        told += lines
    print("\n== all files", *told, sep="\n", flush=True)
    return int(not well)


if __name__ == "__main__":
    sys.exit(main())
