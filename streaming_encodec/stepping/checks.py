"""The checks of settings that all façades share."""

from __future__ import annotations

from streaming_encodec.errors import StreamError
from streaming_encodec.samples import as_count

STARTS = ("silence", "exact")


def check_start(start: str) -> str:
    """``start`` if it is one of the two; else ``StreamError``."""
    if start not in STARTS:
        raise StreamError(f'start must be "silence" or "exact", got {start!r}')
    return start


def check_count(name: str, count: object) -> int:
    """``count`` if it is a whole number from 1, Python's or numpy's; else ``StreamError``."""
    whole = as_count(count)
    if whole is None or whole < 1:
        raise StreamError(f"{name} must be a whole number from 1, got {count!r}")
    return whole
