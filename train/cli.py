"""The command `softfeed`."""

from __future__ import annotations

import argparse
import difflib
import faulthandler
import importlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.metadata import version
from typing import NoReturn

# Module of each command, with `add_parser` and `run`, and its line in the overview. Only the module of the command
# that is asked for gets imported: `softfeed --help` must not wait for torch and DALI.
COMMANDS = {
    "convert": ("..pipelines.shards.cli", "turn images into a shard set that reads fast"),
    "verify": ("..pipelines.shards.verify_cli", "find anything that is wrong with a shard set"),
    "copy": ("..pipelines.shards.copy_cli", "copy a shard set to or from an object store, compared with its checksums"),
    "train": (".train_command", "train a classifier on softly augmented images"),
    "eval": (".eval_command", "measure accuracy and calibration of a checkpoint"),
    "bench": ("..benchmarks.command", "measure how fast data is loaded, and say what limits it"),
    "tune": (".tune_command", "find the fastest settings of the loader for a data set on this machine"),
    "show": (".show_command", "draw what a recipe does to images, and its curves"),
    "demo": (".demo", "train on handwritten digits with hard and soft crops, and report"),
}


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, on one rank."""

    def error(self, message: str) -> NoReturn:
        _say(message)
        sys.exit(2)


class _LoadingNotice(MetaPathFinder):
    """Finds no module, but says once that a slow one is being imported, when that begins.

    A command imports torch and DALI when it has checked what it can without them, so that only the import knows whether
    there is anything to wait for.
    """

    def __init__(self) -> None:
        # one of several ranks speaks
        self._due = os.environ.get("RANK", "0") == "0" and not {"torch", "nvidia.dali"} & set(sys.modules)

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if self._due and name in ("torch", "nvidia.dali"):
            self._due = False
            print("loading PyTorch and DALI", file=sys.stderr, flush=True)


@contextmanager
def _loading_announced() -> Iterator[None]:
    """Have the first import of torch or DALI within announced."""
    notice = _LoadingNotice()
    sys.meta_path.insert(0, notice)
    try:
        yield
    finally:
        sys.meta_path.remove(notice)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: arguments after the program's name; None for those of this process.

    Returns:
        The exit status: 0, 2 for what a user can put right (one line on stderr), 130 for Ctrl-C.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    if sys.__stderr__ is not None and not faulthandler.is_enabled():
        # a crash in a library ends the process without a word of ours: at least say what each thread was doing
        faulthandler.enable(sys.__stderr__)
    try:
        return _run(argv)
    except KeyboardInterrupt as interruption:
        _say(str(interruption) or "interrupted")
        return 130
    except Exception as error:
        message = _user_message(error)
        if message is None or os.environ.get("SOFTFEED_TRACEBACK"):
            raise
        _say(message, everywhere=type(error).__name__ in ("RankError", "OutOfMemoryError"))
        return 2


def _run(argv: list[str]) -> int:
    parser = _Parser(prog="softfeed", description="Softly augmented image batches, and classifiers trained on them.")
    parser.add_argument("--version", action="version", version=f"softfeed {version('softfeed')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    asked = next((word for word in argv if not word.startswith("-")), None)
    modules = {}
    for name, (module, summary) in COMMANDS.items():
        if name == asked:
            modules[name] = importlib.import_module(module, __package__)
            modules[name].add_parser(commands)
        else:
            commands.add_parser(name, help=summary)
    if asked is not None and asked not in COMMANDS:
        near = difflib.get_close_matches(asked, COMMANDS, n=1)
        advice = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(COMMANDS)}"
        parser.error(f"COMMAND must be a known one, got {asked!r}; {advice}")
    args = parser.parse_args(argv, argparse.Namespace(argv=argv))
    if args.command is None:
        parser.print_help(sys.stderr)
        return 2
    with _loading_announced():
        return modules[args.command].run(args)


def _user_message(error: Exception) -> str | None:
    """One line for an error that the user can put right; None for a defect of ours."""
    text = " ".join(str(error).split())
    if isinstance(error, BrokenPipeError):
        return "output was closed before the end"
    if isinstance(error, ValueError | OSError | FloatingPointError):
        return text
    if isinstance(error, ModuleNotFoundError) and (error.name or "").startswith("nvidia"):
        return "NVIDIA DALI must be installed, got none; pip install 'softfeed[cuda13]' (works without a GPU, too)"
    if isinstance(error, ModuleNotFoundError) and "pip install" in text:
        return text  # a package that not everything needs, which the message names
    if type(error) is ImportError and "torchvision" in text:
        return text  # of another build than torch, or missing
    # By name, because torch may not even be imported when an error comes.
    kind = type(error).__name__
    if kind == "OutOfMemoryError":
        from .distributed import memory_message

        return memory_message(error)  # pyright: ignore[reportArgumentType]
    return text if kind == "RankError" else None


def _say(message: str, *, everywhere: bool = False) -> None:
    """One line on stderr; of several ranks, which mostly fail alike, rank 0 speaks."""
    if everywhere or os.environ.get("RANK", "0") == "0":
        print(f"softfeed: error: {message}", file=sys.stderr, flush=True)
    else:
        time.sleep(1)  # torchrun ends all ranks as soon as one has ended, and rank 0 should get to its line


if __name__ == "__main__":
    sys.exit(main())
