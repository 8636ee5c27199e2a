"""Forked processes, which have none of the parent's threads but that which forked.

A child must not touch its copy of a graph, not even to free it, which would wait for threads that are not there. Nor
does anybody there let go of a lock that another thread held.
"""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from typing import TypeVar

T = TypeVar("T")

_graphs: weakref.WeakSet = weakref.WeakSet()
_locks: weakref.WeakSet = weakref.WeakSet()


def left_alone(graph: T) -> T:
    """Have all children that are forked from now on leave a graph alone; returns it."""
    _graphs.add(graph)
    return graph


def new_lock() -> threading.Lock:
    """A lock that nobody holds in children that are forked from now on."""
    lock = threading.Lock()
    _locks.add(lock)
    return lock


def _begin_child() -> None:
    for lock in list(_locks):
        lock._at_fork_reinit()  # as the standard library does with its own
    for graph in list(_graphs):
        graph._pipe, pipe = None, graph._pipe  # what `Pipeline` shuts down when it is collected, or the child exits
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(pipe))  # never freed


os.register_at_fork(after_in_child=_begin_child)
