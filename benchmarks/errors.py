"""One line instead of a traceback for what the user of a benchmark can put right."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps


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
