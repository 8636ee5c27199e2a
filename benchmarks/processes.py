"""Contenders in processes of their own, so that no library's threads, settings or memory reach another's."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from .measurement import Contender, Turn

_GOODBYE_S = 10.0  # for a process to end by itself


class ContenderError(ValueError):
    """A contender could not be made or failed while it played; the message says why."""


class OwnProcess:
    """A contender that lives in a fresh process and waits there while others have their turn.

    Args:
        make: Makes the contender in that process; a function of a module, or a `functools.partial` of one.

    Raises:
        ContenderError: if it cannot be made.
    """

    def __init__(self, make: Callable[[], Contender]) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        # Not a daemon, which could have no worker processes; it ends when this end of the pipe is closed.
        self._process = context.Process(target=_serve, args=(theirs, make), daemon=False)
        self._process.start()
        theirs.close()
        self._answer()

    def play(self, seconds: float) -> Turn:
        """Play for some seconds, to the end of a batch, and count."""
        self.begin(seconds)
        return self.end()

    def begin(self, seconds: float) -> None:
        """Let it begin to play; `end` waits for the count."""
        self._connection.send(seconds)

    def end(self) -> Turn:
        """What was counted since `begin`."""
        return self._answer()

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.join(_GOODBYE_S)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join()

    def __enter__(self) -> OwnProcess:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _answer(self) -> Any:
        try:
            answer = self._connection.recv()
        except (EOFError, ConnectionError):
            self._process.join(_GOODBYE_S)
            answer = ContenderError(f"its process ended with status {self._process.exitcode}")
        except KeyboardInterrupt:
            self._process.terminate()
            raise
        if isinstance(answer, ContenderError):
            self.close()
            raise answer
        return answer


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function of a module returns in a process that has done nothing else.

    Raises:
        ContenderError: if it fails there.
    """
    with OwnProcess(_Once(function, arguments)) as process:
        return process.play(0)


class _Once:
    """A contender that is none: playing calls a function."""

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self._function, self._arguments = function, arguments

    def __call__(self) -> Any:
        return self

    def play(self, seconds: float) -> Any:
        """Call the function."""
        return self._function(*self._arguments)


def _serve(connection: Connection, make: Callable[[], Contender]) -> None:
    """Make a contender and let it play whenever the parent says so, until the parent hangs up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent alone reacts to it
    try:
        contender = make()
        connection.send(None)
        while True:
            connection.send(contender.play(connection.recv()))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        sys.exit(0)
    except Exception as error:  # noqa: BLE001 - told to the parent, whatever it is
        reason = " ".join(str(error).split()) or type(error).__name__
        connection.send(ContenderError(f"{type(error).__name__}: {reason}"))
        sys.exit(0)
