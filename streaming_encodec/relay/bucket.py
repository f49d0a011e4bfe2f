"""A token bucket with an injected clock, which forgives the burst that follows an outage."""

from __future__ import annotations

OUTAGE_S = 1.0
"""A pause of this length or more counts as an outage. It is longer than the pauses between the packets of a call."""


class Bucket:
    """Allows `rate_per_s` on average and `burst` at once. Starts full.

    forgiven: how much more than `burst` may come at once after a pause of `OUTAGE_S` or more: as much as the rate
    allows in that pause, at most this. It stands for what a network, or a receiver that did not run, held back. What
    is not used of it is gone after as much time as the pause took. So the average rate is never exceeded.
    """

    __slots__ = ("_burst", "_forgiven", "_level", "_rate", "_then")

    def __init__(self, rate_per_s: float, burst: float, now_s: float, *, forgiven: float = 0.0) -> None:
        self._rate = rate_per_s
        self._burst = burst
        self._forgiven = forgiven
        self._level = burst
        self._then = now_s

    def take(self, amount: float, now_s: float) -> bool:
        """Take so much, or nothing and answer False where there is less."""
        self._level = self._at(now_s)
        self._then = now_s
        if self._level < amount:
            return False
        self._level -= amount
        return True

    def is_full(self, now_s: float) -> bool:
        """Whether it is as full as at the start."""
        return self._at(now_s) >= self._burst

    def _at(self, now_s: float) -> float:
        pause_s = max(0.0, now_s - self._then)
        more = self._rate * pause_s
        if pause_s >= OUTAGE_S:
            return min(self._burst + min(self._forgiven, more), self._level + more)
        if self._level > self._burst:
            return max(self._burst, self._level - more)
        return min(self._burst, self._level + more)
