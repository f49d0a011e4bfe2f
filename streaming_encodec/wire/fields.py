"""Strict reading of small JSON objects from untrusted peers: PacketError and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from streaming_encodec.errors import PacketError

MAX_CONTROL_BYTES = 2048
"""Longest control message in UTF-8: fits a token, and bounds the work that an attacker can cause."""

_INVISIBLE = re.compile(
    r"[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    r"\ud800-\udfff\U000e0000-\U000e007f]"
)
"""Control characters, line ends, direction marks, lone surrogates, and invisible characters.

This list is fixed: `str.isprintable` changes with the version of Unicode, so two versions of Python would disagree
about a room's name, and other languages do not have it.
"""


def is_visible(text: str) -> bool:
    """Whether a received text has visible characters and spaces only."""
    return _INVISIBLE.search(text) is None


def clean_text(text: str, longest: int) -> str:
    """What may be sent of a text that a person typed: visible characters, single spaces, at most `longest`; or ""."""
    return " ".join(_INVISIBLE.sub(" ", text).split())[:longest].strip()


def as_whole(value: object) -> int | None:
    """The whole number that a JSON value is, in any of JSON's spellings: 1, 1.0 and 1e0 are one number.

    Where all numbers are floating point, as in JavaScript, a program can't tell them apart. None for anything else;
    true and false are no numbers.
    """
    if type(value) is int:
        return value
    return int(value) if type(value) is float and value.is_integer() else None


class Fields:
    """Typed access to one JSON object. A field that is missing or wrong raises PacketError with its name.

    Unknown fields are ignored, so that a later version may add some.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    @property
    def values(self) -> Mapping[str, Any]:
        """The object itself, unchecked."""
        return self._values

    @classmethod
    def read(cls, text: str | bytes, most_bytes: int = MAX_CONTROL_BYTES) -> Fields:
        """Parse one JSON object of at most so many bytes, without repeated names, NaN or infinities."""
        if len(text) > most_bytes:
            raise PacketError(f"a control message has at most {most_bytes} bytes, this one {len(text)}")
        try:
            if isinstance(text, str):
                size = len(text.encode("utf-8"))  # lone surrogates fail here
                if size > most_bytes:
                    raise PacketError(f"a control message has at most {most_bytes} bytes, this one {size}")
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

    def text(self, name: str, longest: int, *, shortest: int = 1) -> str:
        """A string of ``shortest`` to ``longest`` visible characters, see `is_visible`."""
        value = self._values.get(name)
        if not isinstance(value, str) or not shortest <= len(value) <= longest or not is_visible(value):
            raise PacketError(f"field {name!r} is text of {shortest} to {longest} visible characters")
        return value

    def matching(self, name: str, pattern: str) -> str:
        """A string that a regular expression describes as a whole."""
        value = self._values.get(name)
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise PacketError(f"field {name!r} is text like {pattern}")
        return value

    def whole(self, name: str, low: int, high: int) -> int:
        """A whole number from ``low`` to ``high``, see `as_whole`."""
        value = as_whole(self._values.get(name))
        if value is None or not low <= value <= high:
            raise PacketError(f"field {name!r} is a whole number in {low}..{high}")
        return value

    def number(self, name: str, low: float, high: float) -> float:
        """A finite number from ``low`` to ``high``."""
        value = self._values.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise PacketError(f"field {name!r} is a number in {low}..{high}")
        return float(value)

    def flag(self, name: str, default: bool = False) -> bool:
        """true or false; ``default`` where the field is missing or null."""
        value = self._values.get(name)
        if value is None:
            return default
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
        """A list of at most ``most`` objects; empty where the field is missing or null."""
        value = self._values.get(name)
        if value is None:
            return []
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
