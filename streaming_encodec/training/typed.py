"""Checks values from a file against the types of a dataclass's fields."""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Union, get_args, get_origin, get_type_hints

from streaming_encodec.errors import ConfigError

_MOST = 2**63 - 1


def check_types(config: Any, prefix: str = "") -> None:
    """Raise ``ConfigError``, which names the field, if a value is not of its field's type, or not finite."""
    hints = get_type_hints(type(config))
    for field in fields(config):
        value = getattr(config, field.name)
        if not _fits(value, hints[field.name]):
            raise ConfigError(f"{prefix}{field.name} must be {_spelled(hints[field.name])}, got {value!r}")


def _fits(value: Any, hint: Any) -> bool:
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, part) for part in parts)
    if origin is tuple:
        if not isinstance(value, tuple) or (parts[-1] is not Ellipsis and len(value) != len(parts)):
            return False
        kinds = [parts[0]] * len(value) if parts[-1] is Ellipsis else parts
        return all(_fits(item, kind) for item, kind in zip(value, kinds, strict=True))
    if origin is Mapping:
        return isinstance(value, Mapping) and all(
            _fits(name, parts[0]) and _fits(item, parts[1]) for name, item in value.items()
        )
    if isinstance(value, bool):
        return hint is bool
    if hint is float:
        return isinstance(value, int | float) and math.isfinite(value) and abs(value) <= _MOST
    if hint is int:
        return isinstance(value, int) and abs(value) <= _MOST
    return isinstance(value, type(None) if hint is None else hint)


def _spelled(hint: Any) -> str:
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", type(None): "null"}
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_spelled(part) for part in parts)
    if origin is tuple:
        several = "" if parts[-1] is Ellipsis else f"{len(parts)} "
        return f"a list of {several}{_spelled(parts[0]).removeprefix('a ')}s"
    if origin is Mapping:
        return "numbers by name"
    return names.get(hint, f"an object of {getattr(hint, '__name__', hint)}'s fields")
