"""The few things that operators cannot say, on numpy arrays, torch tensors and DALI nodes alike.

The library is chosen from the type of the arguments; nothing is imported that the caller has not imported.
"""

from __future__ import annotations

import sys
from functools import reduce
from typing import Any

Array = Any  # numpy.ndarray, torch.Tensor or nvidia.dali.data_node.DataNode
Number = Any  # a Python number or an Array


def _library(*values: Any) -> str:
    """Name of the array library that at least one of `values` belongs to; 'numpy' for plain numbers."""
    names = {type(value).__module__.partition(".")[0] for value in values}
    for name in ("nvidia", "torch"):
        if name in names:
            return name
    return "numpy"


def _module(name: str) -> Any:
    if name == "nvidia":
        import nvidia.dali.math

        return nvidia.dali.math
    if name == "numpy":
        import numpy

        return numpy
    return sys.modules[name]


def floor(x: Array) -> Array:
    """Largest whole number not above `x`, in the dtype of `x`."""
    return _module(_library(x)).floor(x)


def round_half_up(x: Array) -> Array:
    """Nearest whole number, halves upwards: the same in every library, unlike their own `round`."""
    return floor(x + 0.5)


def _bound(x: Number, y: Number, *, upper: bool) -> Array:
    library = _library(x, y)
    module = _module(library)
    if library == "torch":
        if not isinstance(x, module.Tensor):
            x, y = y, x
        if not isinstance(y, module.Tensor):
            return x.clamp(max=y) if upper else x.clamp(min=y)
        return module.minimum(x, y) if upper else module.maximum(x, y)
    if library == "nvidia":
        return module.min(x, y) if upper else module.max(x, y)
    return module.minimum(x, y) if upper else module.maximum(x, y)


def minimum(x: Number, y: Number) -> Array:
    """Elementwise smaller value; at most one of the two is a Python number."""
    return _bound(x, y, upper=True)


def maximum(x: Number, y: Number) -> Array:
    """Elementwise larger value; at most one of the two is a Python number."""
    return _bound(x, y, upper=False)


def to_float32(x: Array) -> Array:
    """`x` as float32; booleans become 0 and 1."""
    library = _library(x)
    if library == "nvidia":
        from nvidia.dali import fn, types

        return fn.cast(x, dtype=types.DALIDataType.FLOAT)
    module = _module(library)
    return module.asarray(x, dtype=module.float32) if library == "numpy" else x.to(module.float32)


def select(mask: Array, x: Array, y: Array) -> Array:
    """`x` where the boolean `mask` holds, else `y`; finite float32 whole numbers come through exactly."""
    if _library(mask) == "nvidia":  # DALI has no `where`
        chosen = to_float32(mask)
        return chosen * x + (1.0 - chosen) * y
    return _module(_library(mask)).where(mask, x, y)


def one_hot(labels: Array, num_classes: int) -> Array:
    """Float32 indicator of `labels` with one more, last axis of length `num_classes`."""
    library = _library(labels)
    if library == "nvidia":
        from nvidia.dali import fn, types

        return fn.one_hot(labels, num_classes=num_classes, dtype=types.DALIDataType.FLOAT)
    module = _module(library)
    classes = module.arange(num_classes) if library == "numpy" else module.arange(num_classes, device=labels.device)
    return to_float32(labels[..., None] == classes)


def with_class_axis(x: Array) -> Array:
    """`x` with one more, last axis of length 1, to broadcast against `one_hot`.

    A DALI node holds one scalar per sample, which broadcasts as it is.
    """
    return x if _library(x) == "nvidia" else x[..., None]


def with_last(x: Array, value: Array) -> Array:
    """`x` with `value` behind the others on the last axis; `value` has the shape of `x` without that axis."""
    library = _library(x)
    if library == "nvidia":
        from nvidia.dali import fn

        return fn.cat(x, fn.expand_dims(value, axes=[0]))
    module = _module(library)
    join = module.concatenate if library == "numpy" else module.cat
    return join([x, value[..., None]], -1)


def product(factors: tuple[Array, ...]) -> Array:
    """Product of one or more arrays."""
    return reduce(lambda x, y: x * y, factors)


def sine(x: Array) -> Array:
    """Sine of `x` in radians."""
    return _module(_library(x)).sin(x)


def cosine(x: Array) -> Array:
    """Cosine of `x` in radians."""
    return _module(_library(x)).cos(x)


def exponential(x: Array) -> Array:
    """`e` to the power of `x`."""
    return _module(_library(x)).exp(x)
