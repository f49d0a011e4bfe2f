"""Strict reading of small JSON objects that strangers sent: PacketError and nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from streaming_encodec.errors import PacketError

MAX_CONTROL_BYTES = 2048
"""Longest control message in UTF-8: room for a token, too short to be a weapon."""


class Fields:
    """Typed access to one JSON object. A field that is missing or wrong raises PacketError with its name.

    Fields that nobody asks for are ignored, so that a later version may add some.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    @classmethod
    def read(cls, text: str | bytes) -> Fields:
        """Parse one JSON object of at most `MAX_CONTROL_BYTES`, without repeated names, NaN or infinities."""
        if len(text) > MAX_CONTROL_BYTES:
            raise PacketError(f"a control message has at most {MAX_CONTROL_BYTES} bytes, this one {len(text)}")
        try:
            if isinstance(text, str):
                size = len(text.encode("utf-8"))  # lone surrogates fail here
                if size > MAX_CONTROL_BYTES:
                    raise PacketError(f"a control message has at most {MAX_CONTROL_BYTES} bytes, this one {size}")
            else:
                text = text.decode("utf-8")
            values = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
        # RecursionError: "[[[[..."; ValueError covers bad UTF-8, bad JSON and numbers of thousands of digits.
        except (RecursionError, ValueError) as error:
            if isinstance(error, PacketError):
                raise
            raise PacketError("a control message is one JSON object in UTF-8") from error
        if not isinstance(values, dict):
            raise PacketError("a control message is one JSON object")
        return cls(values)

    def has(self, name: str) -> bool:
        """Whether the field is there and not null."""
        return self._values.get(name) is not None

    def text(self, name: str, longest: int) -> str:
        """A string of 1 to ``longest`` printable characters."""
        value = self._values.get(name)
        if not isinstance(value, str) or not 1 <= len(value) <= longest or not value.isprintable():
            raise PacketError(f"field {name!r} is text of 1 to {longest} printable characters")
        return value

    def whole(self, name: str, low: int, high: int) -> int:
        """A whole number from ``low`` to ``high``; true and false are no numbers."""
        value = self._values.get(name)
        if type(value) is not int or not low <= value <= high:
            raise PacketError(f"field {name!r} is a whole number in {low}..{high}")
        return value

    def number(self, name: str, low: float, high: float) -> float:
        """A finite number from ``low`` to ``high``."""
        value = self._values.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise PacketError(f"field {name!r} is a number in {low}..{high}")
        return float(value)

    def flag(self, name: str, default: bool = False) -> bool:
        """true or false; ``default`` where the field is missing."""
        value = self._values.get(name, default)
        if not isinstance(value, bool):
            raise PacketError(f"field {name!r} is true or false")
        return value

    def object(self, name: str) -> Fields:
        """A nested object."""
        value = self._values.get(name)
        if not isinstance(value, dict):
            raise PacketError(f"field {name!r} is an object")
        return Fields(value)

    def objects(self, name: str, most: int) -> list[Fields]:
        """A list of at most ``most`` objects; empty where the field is missing."""
        value = self._values.get(name, [])
        if not isinstance(value, list) or len(value) > most or not all(isinstance(v, dict) for v in value):
            raise PacketError(f"field {name!r} is a list of at most {most} objects")
        return [Fields(v) for v in value]


def write_json(values: Mapping[str, Any]) -> str:
    """Compact JSON; fields that are None are left out. Raises ValueError for NaN and infinities."""
    kept = {name: value for name, value in values.items() if value is not None}
    return json.dumps(kept, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise PacketError("a control message repeats a field")
    return values


def _no_constant(name: str) -> float:
    raise PacketError(f"{name} is not JSON")
