"""The bus of a relay that is alone."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping

from streaming_encodec.relay.bus.base import NOBODY, BusEvents, Elsewhere, Reading
from streaming_encodec.transport.close_codes import CloseCode, Refused, not_allowed
from streaming_encodec.wire.control import Report
from streaming_encodec.wire.hello import Hello
from streaming_encodec.wire.packet import StreamFormat


class LocalBus:
    """A `Bus` without other relays. It remembers used tokens until they expire, in this process.

    So after a restart a token can be used once more, which is also how clients come back then.

    Args:
        wall_clock: Unix time, against which tokens expire. max_used_tokens: so many are remembered.
    """

    numbers = range(1, 0x1_0000)
    ticket_prefix = ""
    linger_s = 0.0

    def __init__(self, wall_clock: Callable[[], float], max_used_tokens: int = 100_000) -> None:
        self._wall_clock = wall_clock
        self._most = max_used_tokens
        self._used: set[str] = set()
        self._expiries: list[tuple[float, str]] = []

    async def open(self, events: BusEvents) -> None:
        """No other relay: does nothing."""

    async def close(self) -> None:
        """No other relay: does nothing."""

    async def enter(self, room: str) -> Elsewhere:
        """The room has no participants elsewhere."""
        return NOBODY

    def leave(self, room: str) -> None:
        """No other relay: does nothing."""

    def announce(
        self, room: str, stream_format: StreamFormat, speakers: frozenset[int], names: Mapping[int, str]
    ) -> None:
        """No other relay: does nothing."""

    def publish(self, room: str, packet: bytes) -> None:
        """No other relay: does nothing."""

    def report(self, room: str, report: Report) -> None:
        """All speakers are here."""

    async def use_token(self, token_id: str, expires_s: float) -> None:
        """Use a token up. Raises Refused if it was used before, or if too many would be remembered."""
        now_s = self._wall_clock()
        while self._expiries and self._expiries[0][0] <= now_s:
            self._used.discard(heapq.heappop(self._expiries)[1])
        if token_id in self._used:
            raise not_allowed()
        if len(self._used) >= self._most:
            raise Refused(CloseCode.TRY_LATER, "too many tokens used; try later")
        self._used.add(token_id)
        heapq.heappush(self._expiries, (expires_s, token_id))

    async def redeem(self, ticket: str, hello: Hello) -> bool:
        """No other relay gave it."""
        return False

    def readings(self) -> tuple[Reading, ...]:
        """Nothing to tell."""
        return ()
