"""Handing arrays to a graph so that its threads need not wait for the interpreter."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from nvidia.dali.tensors import TensorCPU, TensorListCPU


def shared(images: Sequence[np.ndarray] | np.ndarray) -> list[TensorCPU] | TensorListCPU:
    """Images as a graph takes them, without a copy; the caller keeps what is returned until the graph is done with it.

    A graph lets go of an array in a thread of its own, which needs the interpreter's lock for that, array by array,
    unless somebody else holds on to the same wrapper of it for longer. Beside a thread that computes in Python it waits
    up to 5 ms for each (`python -m softfeed.benchmarks.alternatives`: "feed beside Python"). And before Python 3.12 a
    process that is forked in the very moment in which such a thread asks for the lock hangs before it gets to run.

    Args:
        images: Encoded images, uint8 (bytes,) each, or raw ones, uint8 (N, height, width, 3).
    """
    if isinstance(images, np.ndarray):
        return TensorListCPU(images)
    return [TensorCPU(image) for image in images]
