"""What the small benchmark programs share: options, one line for an error, and what becomes of the result."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

from .measurement import check_turns
from .recorded import command_line
from .result import Result, check_output, to_json


class Program(argparse.ArgumentParser):
    """Command line of one of the modules here that run by themselves, with `--output`.

    Args:
        name: Of the module.
        description: Its docstring.
    """

    def __init__(self, name: str, description: str | None) -> None:
        super().__init__(prog=f"python -m {__package__}.{name}", description=description)
        self.add_argument("--output", type=Path, help="JSON file to write")

    def add_data(self) -> None:
        """What is played."""
        self.add_argument("data", type=Path, help="image folder or shard set")

    def add_recipe(self, recipe: str) -> None:
        """What becomes of the images that are played."""
        self.add_argument("--recipe", default=recipe, help="preset (default: %(default)s)")

    def add_sizes(self, batch_size: int, image_size: int | None = None) -> None:
        """Images per batch and, unless that is fixed, pixels per side."""
        self.add_argument("--batch-size", type=int, default=batch_size, help="default: %(default)s")
        if image_size is not None:
            self.add_argument("--image-size", type=int, default=image_size, help="default: %(default)s")

    def add_turns(self, seconds: float, repeats: int) -> None:
        """How long and how often each contender is timed."""
        self.add_argument("--seconds", type=float, default=seconds, help="length of a turn (default: %(default)s)")
        self.add_argument("--repeats", type=int, default=repeats, help="turns of each (default: %(default)s)")

    def parsed(self, arguments: Sequence[str] | None) -> argparse.Namespace:
        """Options, and `command`, which is what repeats the run.

        Args:
            arguments: Words of the command line; None: those that the process was called with.

        Raises:
            ValueError: for turns of no length, or none at all.
            OSError: if the output could not be written after everything was measured.
        """
        words = sys.argv[1:] if arguments is None else arguments
        options = self.parse_args(words)
        if "repeats" in options:
            check_turns(getattr(options, "seconds", 1.0), options.repeats)
        check_output(options.output)
        options.command = command_line(words, self.prog)
        return options


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """What a result says of a program's options; the data it tells by itself, and the output is where it is written."""
    return {name: value for name, value in vars(options).items() if name not in ("data", "output", "command")}


def finish(result: Result, output: Path | None) -> None:
    """Print a result, and write it where it was asked for."""
    print(result)
    if output is not None:
        output.write_text(to_json(result), encoding="utf-8")


def in_one_line(main: Callable[..., int]) -> Callable[..., int]:
    """`main` with exit status 2 and a line on stderr for a ValueError or an OSError."""

    @wraps(main)
    def run(*arguments: object) -> int:
        try:
            return main(*arguments)
        except (ValueError, OSError) as error:
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
            return 2

    return run
