"""A leaky bucket with an injected clock."""

from __future__ import annotations


class Bucket:
    """Allows `rate_per_s` on average and `burst` at once. Starts full."""

    __slots__ = ("_burst", "_level", "_rate", "_then")

    def __init__(self, rate_per_s: float, burst: float, now_s: float) -> None:
        self._rate = rate_per_s
        self._burst = burst
        self._level = burst
        self._then = now_s

    def take(self, amount: float, now_s: float) -> bool:
        """Take so much, or nothing and answer False where there is less."""
        self._level = min(self._burst, self._level + self._rate * max(0.0, now_s - self._then))
        self._then = now_s
        if self._level < amount:
            return False
        self._level -= amount
        return True
