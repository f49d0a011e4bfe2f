"""JSON that others wrote: plain values or ``ValueError``, whatever the text is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

MOST_BYTES = 1 << 20
"""A configuration takes a few thousand; a file of gigabytes is none."""


def parse_json(text: str | bytes) -> Any:
    """The value of ``text``.

    Raises:
        ValueError: no JSON; nested deeper than the interpreter goes; a name that is there twice; NaN or Infinity.
    """
    try:
        if not isinstance(text, str):
            text = text.decode(json.detect_encoding(text))
        return _DECODER.decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_json(path: Path) -> Any:
    """The value that a file holds.

    Raises:
        OSError: the file cannot be read.
        ValueError: as in ``parse_json``, or longer than ``MOST_BYTES``.
    """
    with path.open("rb") as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ValueError(f"longer than {MOST_BYTES} bytes")
    return parse_json(data)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} is there twice")
    return values


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON's")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)
"""One for all: to make it takes as long as a message of a telephone takes to read."""
