"""Unpickling of plain data only: dicts, lists, strings, numbers and numpy arrays of numbers. Nothing is ever called.

A pickle is a program, and a hostile one runs what it likes. Here its instructions are looked through before any is
carried out, only those that build plain data are let through, and the names that numpy's arrays are pickled with stand
for classes of our own that just keep what they are given.
"""

import enum
import io
import math
import pickle
import pickletools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# fmt: off
_INSTRUCTIONS = frozenset({
    "PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "DUP",
    "NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
    "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "LIST", "DICT",
    "APPEND", "APPENDS", "SETITEM", "SETITEMS",
    "GET", "BINGET", "LONG_BINGET", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE",
    "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD",
})
# fmt: on
_PUTS = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})
_GETS = frozenset({"GET", "BINGET", "LONG_BINGET"})
_TUPLES = frozenset({"EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"})
_KEYS = {"SETITEM": slice(1, 2), "SETITEMS": slice(1, None, 2), "DICT": slice(0, None, 2)}  # among what they take
_MOST_VALUES = 10_000_000  # an instruction that notes a value under a greater number would claim memory for all below


class _Dtype:
    """Stands for numpy.dtype: keeps its code."""

    def __init__(self, code: object, *_: object) -> None:
        self.code = code.decode("ascii", "replace") if isinstance(code, bytes) else code

    def __setstate__(self, state: object) -> None:
        self.state = state


class _Array:
    """Stands for numpy.ndarray: keeps its shape, type and bytes."""

    state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state


class _ArrayState(NamedTuple):
    version: object
    shape: object
    dtype: object
    is_fortran: object
    data: object


class _Reconstruct:
    """Stands for numpy's function that makes an empty array."""

    def __call__(self, *_: object) -> _Array:
        return _Array()

    def __setstate__(self, state: object) -> None:
        raise ValueError("a state for a function")


_RECONSTRUCT = _Reconstruct()
_NAMES = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _NAMES:
            raise ValueError(f"pickle must hold plain data and arrays only, got {module}.{name}")
        return _NAMES[module, name]


def load_plain_pickle(data: bytes, origin: str) -> Any:
    """What a pickle holds, where every numpy array is left as it was pickled; `plain_array` makes one of it.

    Args:
        data: the pickle; byte strings of Python 2 become bytes.
        origin: what errors call it.

    Raises:
        ValueError: if it is damaged, or holds anything but plain data; nothing of it has been carried out then.
    """
    try:
        _look_through(data)
        return _PlainUnpickler(io.BytesIO(data), encoding="bytes").load()
    # What a damaged pickle raises is documented to be open-ended; these are what its instructions here can.
    except (
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        EOFError,
        OverflowError,
        MemoryError,
        pickle.UnpicklingError,
    ) as error:
        raise ValueError(f"pickle must be whole and hold plain data, got {origin}: {error}") from None


def _look_through(data: bytes) -> None:
    """Raise if the pickle has an instruction that plain data does not need, or a tuple as a key."""
    stack = _KindsOnStack()
    for opcode, argument, position in pickletools.genops(data):
        if opcode.name not in _INSTRUCTIONS:
            raise ValueError(f"pickle must hold plain data only, got the instruction {opcode.name} at byte {position}")
        if opcode.name in _PUTS and int(argument or 0) > _MOST_VALUES:
            raise ValueError(f"pickle must hold at most {_MOST_VALUES} values, got {argument} at byte {position}")
        if any(kind is _Kind.TUPLE for kind in stack.keys_after(opcode, argument)):
            raise ValueError(f"pickle must have strings and numbers as keys, got a tuple at byte {position}")


class _Kind(enum.Enum):
    MARK = enum.auto()
    TUPLE = enum.auto()
    OTHER = enum.auto()


class _KindsOnStack:
    """Follows which values on the unpickler's stack are tuples, without making any.

    A tuple's hash is that of all in it: nested a hundred thousand deep it ends the process, and sixty deep with two of
    the same in each it takes years. So none may become a key.
    """

    def __init__(self) -> None:
        self._stack: list[_Kind] = []
        self._memo: dict[int, _Kind] = {}

    def keys_after(self, opcode: pickletools.OpcodeInfo, argument: object) -> Sequence[_Kind]:
        """Carry out an instruction; returns the keys that it adds to a dict. Raises IndexError or KeyError."""
        name = opcode.name
        if name == "MARK":
            self._stack.append(_Kind.MARK)
        elif name in _PUTS or name == "MEMOIZE":
            self._memo[len(self._memo) if name == "MEMOIZE" else int(str(argument))] = self._top()
        elif name in _GETS:
            self._stack.append(self._memo[int(str(argument))])
        elif name == "DUP":
            self._stack.append(self._top())
        elif name == "POP":
            self._stack.pop()
        else:
            taken = self._take(opcode)
            kind = _Kind.TUPLE if name in _TUPLES else taken[0] if name == "BUILD" else _Kind.OTHER
            self._stack += [kind] * len(opcode.stack_after)
            return taken[_KEYS[name]] if name in _KEYS else ()
        return ()

    def _top(self) -> _Kind:
        if self._stack[-1] is _Kind.MARK:
            raise IndexError("a mark where a value must be")
        return self._stack[-1]

    def _take(self, opcode: pickletools.OpcodeInfo) -> list[_Kind]:
        """What an instruction takes off the stack, without the mark."""
        before = opcode.stack_before
        taken: list[_Kind] = []
        if pickletools.markobject in before:
            while (kind := self._stack.pop()) is not _Kind.MARK:
                taken.append(kind)
            before = before[: before.index(pickletools.markobject)]
        for _ in before:
            taken.append(self._top())
            self._stack.pop()
        return taken[::-1]


def plain_array(value: object, origin: str) -> NDArray[np.uint8]:
    """A uint8 array that `load_plain_pickle` found.

    Raises:
        ValueError: if it is none, or its bytes do not fill its shape.
    """
    state = value.state if isinstance(value, _Array) else None
    if not isinstance(state, tuple) or len(state) != len(_ArrayState._fields):
        raise ValueError(f"pickle must hold an array of pixels, got another value in {origin}")
    array = _ArrayState(*state)
    data = array.data.encode("latin1") if isinstance(array.data, str) else array.data
    code = array.dtype.code if isinstance(array.dtype, _Dtype) else None
    if code != "u1" or not isinstance(data, bytes) or not isinstance(array.shape, tuple):
        shown = repr(code) if isinstance(code, str) else type(code).__name__  # else it may nest as deep as it likes
        raise ValueError(f"pickle must hold an array of uint8, got one of {shown} in {origin}")
    if array.is_fortran or not all(isinstance(side, int) and side >= 0 for side in array.shape):
        raise ValueError(f"pickle must hold an array in C order, got another in {origin}")
    if math.prod(array.shape) != len(data):
        raise ValueError(f"pickle must hold an array of shape {array.shape}, got {len(data)} bytes in {origin}")
    return np.frombuffer(data, np.uint8).reshape(array.shape)
