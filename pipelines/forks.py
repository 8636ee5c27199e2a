"""Forked processes, which have none of the parent's threads but that which forked.

A child must not touch its copy of a graph, not even to free it, which would wait for threads that are not there. Nor
does anybody there let go of a lock that another thread held.
"""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from typing import Any, TypeVar

T = TypeVar("T")

# By their identities: of this kind of mapping alone all values can be had at once while other threads change it.
_graphs: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
_locks: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
_held: list[list[Any]] = []  # graphs, while a process is forked


def left_alone(graph: T) -> T:
    """Have all children that are forked from now on leave a graph alone; returns it."""
    _graphs[id(graph)] = graph
    return graph


def new_lock() -> threading.Lock:
    """A lock that nobody holds in children that are forked from now on.

    What it guards must be of use there even if another thread was in the middle of changing it.
    """
    lock = threading.Lock()
    _locks[id(lock)] = lock
    return lock


def _living(objects: weakref.WeakValueDictionary[int, Any]) -> list[Any]:
    return [found for reference in objects.valuerefs() if (found := reference()) is not None]


def _begin_fork() -> None:
    # The child drops what is local to other threads before it calls the function below, which would end their graphs.
    _held.append(_living(_graphs))


def _begin_child() -> None:
    for lock in _living(_locks):
        lock._at_fork_reinit()  # as the standard library does with its own
    for graph in _living(_graphs):
        graph._pipe, pipe = None, graph._pipe  # what `Pipeline` shuts down when it is collected, or the child exits
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(pipe))  # never freed
    _held.clear()


os.register_at_fork(before=_begin_fork, after_in_parent=_held.pop, after_in_child=_begin_child)
