"""Whether the other end of a datagram session still answers. Pure: the time is handed in."""

from __future__ import annotations

PING_S = 0.1
"""While packets are sent, one of them carries a ping this often: a byte."""
DOUBT_S = 0.2
"""A ping may take so much longer than two round trips: the other end gathers acknowledgements for 25 ms, and one ping
of ten may be lost."""
LOST_S = 1.0
"""After so long the way is held to be down. It is still tried: with every packet that `THIN_S` lets through."""
THIN_S = 0.05
GIVE_UP_S = 10.0
"""After so long the session is over."""
_MOST_ASKED = 16


class Answers:
    """Pings that were sent, and those that were acknowledged."""

    __slots__ = ("_answered_s", "_asked", "_asked_s", "_number", "round_trip_s")

    def __init__(self) -> None:
        self._asked: dict[int, float] = {}  # of those that wait for an answer, and were sent after the last answered
        self._asked_s = self._answered_s = float("-inf")
        self._number = 0
        self.round_trip_s = 0.0
        """Smoothed; 0 before the first answer."""

    def ask(self, now_s: float) -> int:
        """The number of a ping that is sent now."""
        self._number += 1
        self._asked_s = now_s
        self._asked[self._number] = now_s
        if len(self._asked) > _MOST_ASKED:
            del self._asked[next(number for at, number in enumerate(self._asked) if at)]  # the oldest says how long
        return self._number

    def answered(self, number: int, now_s: float) -> None:
        """A ping was acknowledged, so those before it matter no more."""
        asked_s = self._asked.get(number)
        self._answered_s = now_s
        if asked_s is not None:
            took_s = now_s - asked_s
            self.round_trip_s += (took_s - self.round_trip_s) / 8 if self.round_trip_s else took_s
        self._asked = {one: at_s for one, at_s in self._asked.items() if one > number}

    def since_asked_s(self, now_s: float) -> float:
        """Seconds since the last ping; infinite before the first."""
        return now_s - self._asked_s

    def waited_s(self, now_s: float) -> float:
        """For how long there has been no answer; 0 where none is owed.

        An answer to an older question counts: where a queue grows on the way, answers come late, one after the other.
        """
        return now_s - max(self._answered_s, next(iter(self._asked.values()))) if self._asked else 0.0

    def is_certain(self, now_s: float) -> bool:
        """Whether what is sent now arrives, as far as can be known."""
        return self.waited_s(now_s) <= DOUBT_S + 2 * self.round_trip_s

    def is_lost(self, now_s: float) -> bool:
        """Whether nothing has been answered for so long that the way is held to be down."""
        return self.waited_s(now_s) > LOST_S + 2 * self.round_trip_s
