"""Settings as plain values for a checkpoint, and whether they are still the same in a later version."""

from __future__ import annotations

from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any

_CLASS = "class"  # key of a dataclass's name among its fields


def described(value: Any) -> Any:
    """A dataclass as a dictionary of its fields and its class's name, all the way down; else a plain value."""
    if is_dataclass(value) and not isinstance(value, type):
        content = {field.name: described(getattr(value, field.name)) for field in fields(value)}
        return {_CLASS: type(value).__name__, **content}
    if isinstance(value, tuple | list):
        return [described(part) for part in value]
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)


def is_described(saved: Any, value: Any) -> bool:
    """Whether `saved` describes `value`, maybe written by a version whose dataclasses had fewer fields.

    A field that `saved` does not know must have its default, which is what the older version did.

    Args:
        saved: what `described` returned, then or now.
        value: the setting now.
    """
    if not is_dataclass(value) or isinstance(value, type):
        return saved == described(value)
    own = {field.name: field for field in fields(value)}
    if not isinstance(saved, dict) or saved.get(_CLASS) != type(value).__name__ or set(saved) - {_CLASS, *own}:
        return False
    return all(
        is_described(saved[name], getattr(value, name)) if name in saved else _has_default(field, getattr(value, name))
        for name, field in own.items()
    )


def _has_default(field: Field[Any], value: Any) -> bool:
    default = field.default_factory() if field.default_factory is not MISSING else field.default
    return default is not MISSING and described(default) == described(value)
