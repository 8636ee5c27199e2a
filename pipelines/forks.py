"""Forked processes: a graph's threads stay behind in the parent, so that a child must not touch its copy.

Not even to free it, which would wait for threads that are not there.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from typing import TypeVar

T = TypeVar("T")

_graphs: weakref.WeakSet = weakref.WeakSet()


def left_alone(graph: T) -> T:
    """Have all children that are forked from now on leave a graph alone; returns it."""
    _graphs.add(graph)
    return graph


def _leave_alone() -> None:
    for graph in list(_graphs):
        graph._pipe, pipe = None, graph._pipe  # what `Pipeline` shuts down when it is collected, or the child exits
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(pipe))  # never freed


os.register_at_fork(after_in_child=_leave_alone)
