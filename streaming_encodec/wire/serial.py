"""Numbers that wrap: sequence numbers (16 bits) and timestamps (32 bits), compared as in RFC 1982."""

from __future__ import annotations

SEQUENCE_BITS = 16
TIMESTAMP_BITS = 32


def serial_difference(a: int, b: int, bits: int) -> int:
    """``a - b`` on a circle of ``2**bits``: from ``-2**(bits-1)`` to ``2**(bits-1) - 1``."""
    half = 1 << (bits - 1)
    return ((a - b + half) & ((1 << bits) - 1)) - half


class Unwrapper:
    """Unwraps numbers: each is placed nearest to the last one seen.

    Works as long as consecutive numbers differ by less than half the range.
    """

    def __init__(self, bits: int) -> None:
        self._bits = bits
        self._last: int | None = None

    def peek(self, wrapped: int) -> int:
        """The unwrapped number, without remembering it."""
        if self._last is None:
            return wrapped
        return self._last + serial_difference(wrapped, self._last, self._bits)

    def __call__(self, wrapped: int) -> int:
        """The unwrapped number; later numbers are placed near it."""
        self._last = self.peek(wrapped)
        return self._last
