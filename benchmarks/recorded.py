"""What a result says of its command and of errors: names only, for where something lies is nobody's business."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

_FOLDERS = re.compile(r"(?<![\w.:/-])(?:~|\.{1,2})?/(?:[^\s/'\",;:()\[\]]+/)*(?=[^\s/'\",;:()\[\]])")


def command_line(words: Sequence[str], program: str = "softfeed") -> str:
    """The command of a run with all its options; of paths only the last part.

    Args:
        words: The arguments that were parsed.
        program: What they follow, such as "python -m softfeed.benchmarks.geometry".
    """
    return " ".join([program, shlex.join(map(_name_only, words))]).rstrip()


def _name_only(word: str) -> str:
    option, equals, value = word.partition("=") if word.startswith("-") else ("", "", word)
    return option + equals + (Path(value).name if "/" in value else value)


def without_folders(text: str) -> str:
    """A message whose absolute paths are cut down to their last part."""
    return _FOLDERS.sub("", text)
