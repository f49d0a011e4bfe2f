"""A listener with a datagram session beside its connection, for measuring a relay."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Self

from streaming_encodec.bench.bare_client import BareListener
from streaming_encodec.errors import CallError, CallErrorReason
from streaming_encodec.transport.webtransport.client import ClientDatagramSession, open_session
from streaming_encodec.wire.control import parse_control
from streaming_encodec.wire.header import HEADER_BYTES
from streaming_encodec.wire.hello import Hello, Welcome
from streaming_encodec.wire.packet import StreamFormat

OPENINGS_PER_S = 20.0
"""A relay takes no more handshakes a second than 25."""


class DatagramListener(BareListener):
    """Notes how long each packet took by the way by which it came first."""

    _session: ClientDatagramSession
    _keeping: asyncio.Task[None]

    def __init__(self, port: int, hello: Hello) -> None:
        super().__init__(port, hello)
        self.datagrams = 0
        """Packets that came as datagrams, and not before by the other way."""
        self._seen: set[bytes] = set()

    def heard(self, packet: bytes) -> None:
        """A packet came, perhaps for the second time."""
        name = packet[4:8]  # sender and sequence number
        if name not in self._seen:
            self._seen.add(name)
            super().heard(packet)

    def _datagram(self, packet: bytes) -> None:
        if len(packet) >= HEADER_BYTES and not packet.startswith(b"{"):  # no word of who left
            self.datagrams += packet[4:8] not in self._seen
            self.heard(packet)

    @classmethod
    async def join(cls, port: int, room: str, stream_format: StreamFormat, *, stalled: bool = False) -> Self:
        """Take a seat, and open a session."""
        self = await cls._join(port, Hello(room, "subscribe", stream_format))
        welcome = parse_control(await self.welcomed)
        if not isinstance(welcome, Welcome) or welcome.datagrams is None:
            raise CallError("this relay offers no datagram sessions", CallErrorReason.UNREACHABLE)
        self._session = await open_session("127.0.0.1", welcome.datagrams, self._datagram)
        self._keeping = asyncio.create_task(self._session.keep())
        return self

    def close(self) -> None:
        """Cut the connection, and end the session."""
        self._keeping.cancel()
        super().close()


async def join_all(port: int, room: str, stream_format: StreamFormat, ways: Sequence[str]) -> list[BareListener]:
    """Listeners of one room, each by its way: "websocket" or "datagrams"."""
    ears: list[BareListener] = []
    for way in ways:
        listener = DatagramListener if way == "datagrams" else BareListener
        ears.append(await listener.join(port, room, stream_format))
        if way == "datagrams":
            await asyncio.sleep(1 / OPENINGS_PER_S)
    return ears
