"""The checks of settings that all façades share."""

from __future__ import annotations

from streaming_encodec.errors import StreamError

STARTS = ("silence", "exact")


def check_start(start: str) -> str:
    """``start`` if it is one of the two; else ``StreamError``."""
    if start not in STARTS:
        raise StreamError(f'start must be "silence" or "exact", got {start!r}')
    return start


def check_count(name: str, count: object) -> int:
    """``count`` if it is a whole number from 1; else ``StreamError``."""
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise StreamError(f"{name} must be a whole number from 1, got {count!r}")
    return count
