"""One client's datagram session at a relay: its request, its budgets, its end."""

from __future__ import annotations

from typing import Protocol
from urllib.parse import parse_qs, urlsplit

from aioquic.h3.events import HeadersReceived
from aioquic.quic.connection import NetworkAddress
from aioquic.quic.events import (
    ConnectionIdIssued,
    ConnectionIdRetired,
    ConnectionTerminated,
    ProtocolNegotiated,
    QuicEvent,
    StreamDataReceived,
)

from streaming_encodec.transport.base import SessionHost
from streaming_encodec.transport.close_codes import CloseCode
from streaming_encodec.transport.limits import FIRST_BYTES, Bucket, ServerLimits
from streaming_encodec.transport.logs import failure
from streaming_encodec.transport.webtransport.quic import VoiceHttp, VoiceQuic
from streaming_encodec.transport.webtransport.session import PATH, PROTOCOLS, DatagramSession

_PACKETS_PER_S = 1500.0
"""UDP packets that a session may send: voice, and acknowledgements of what a room of 16 speakers sends it."""
_LINGER_S = 0.5
"""From the close code to the end of the connection, unless the client ends it."""


class Door(Protocol):
    """The listener behind which sessions are: it brings each its packets, by the connection's identifiers."""

    def know(self, identifier: bytes, session: ServerDatagramSession) -> None:
        """Packets with this identifier are this session's."""

    def forget(self, identifier: bytes, session: ServerDatagramSession) -> None:
        """No longer."""

    def gone(self, session: ServerDatagramSession) -> None:
        """A connection is over, its last packets too."""


class ServerDatagramSession(DatagramSession):
    """A client's session: a `transport.base.ServerSession`."""

    lingers = True

    def __init__(self, quic: VoiceQuic, door: Door, host: SessionHost, limits: ServerLimits, group: str) -> None:
        super().__init__(quic, limits.queue_frames)
        self._door, self._host, self._limits = door, host, limits
        now_s = self._loop.time()
        self._bytes = Bucket(FIRST_BYTES / limits.hello_s, FIRST_BYTES, now_s)
        self._packets = Bucket(_PACKETS_PER_S, 2 * _PACKETS_PER_S, now_s)
        self._since_s = now_s
        self._asked = False
        self._flooding = False
        self.group = group
        self.identifiers: set[bytes] = set()

    @property
    def address(self) -> str:
        """The client's present address, without its port."""
        at = self._quic.get_peer_address()
        return "unknown" if at is None else str(at[0])

    def datagram_received(self, data: bytes | str, addr: NetworkAddress) -> None:
        """Take in what fits the budget."""
        if self._flooding:
            return
        now_s = self._loop.time()
        if not self._bytes.take(len(data), now_s) or not self._packets.take(1, now_s):
            self._flooding = True
            if self.is_open:
                self._host.flooded(self)
            else:
                self.abort()
            return
        super().datagram_received(data, addr)

    def is_overdue(self, now_s: float) -> bool:
        """Whether it should have opened, answered, or ended by now."""
        if self._over:
            return now_s - self._over_s > _LINGER_S
        return self.has_given_up(now_s) or (not self.is_open and now_s - self._since_s > self._limits.hello_s)

    def quic_event_received(self, event: QuicEvent) -> None:
        """Take an event of the QUIC connection."""
        if isinstance(event, ConnectionIdIssued):
            self._door.know(event.connection_id, self)
        elif isinstance(event, ConnectionIdRetired):
            self._door.forget(event.connection_id, self)
        elif isinstance(event, ConnectionTerminated):
            super().quic_event_received(event)
            self._door.gone(self)
        elif isinstance(event, ProtocolNegotiated):
            self._http = VoiceHttp(self._voice_quic)
        elif isinstance(event, StreamDataReceived) and event.stream_id % 4 == 0 and event.stream_id != 0:
            self.close(CloseCode.BAD_MESSAGE, "one request a connection")
        else:
            super().quic_event_received(event)

    def _headers(self, event: HeadersReceived) -> None:
        if self._asked or self._http is None:
            self.close(CloseCode.BAD_MESSAGE, "one request a connection")
            return
        self._asked = True
        status, key = _read_request(dict(event.headers))
        if status == 200:
            self._opened(event.stream_id)
            if not self._host.opened(self, key):
                self._stream_id, self._prefix, status = None, b"", 403
        answer = [(b":status", str(status).encode())]
        if status == 200:
            # The draft that browsers began with; some look for its name.
            answer.append((b"sec-webtransport-http3-draft", b"draft02"))
            self._bytes = Bucket(self._limits.bytes_per_s, 8 * self._limits.bytes_per_s, self._loop.time())
        self._http.send_headers(event.stream_id, answer, end_stream=status != 200)
        if status != 200:
            self.transmit()
            self.abort()

    def _arrived(self, packet: bytes) -> None:
        try:
            self._host.arrived(self, packet)
        except Exception:
            failure("datagram")
            self.close(CloseCode.INTERNAL_ERROR, "the relay failed")

    def _ended(self) -> None:
        if self._stream_id is not None:
            self._host.ended(self)


def _read_request(headers: dict[bytes, bytes]) -> tuple[int, str]:
    """The status for a request, and the key in it. The key is never logged."""
    url = urlsplit(headers.get(b":path", b"").decode("latin-1"))
    if url.path != PATH:
        return 404, ""
    if headers.get(b":method") != b"CONNECT" or headers.get(b":protocol") not in PROTOCOLS:
        return 405, ""
    keys = parse_qs(url.query).get("key", [])
    return 200, keys[0] if len(keys) == 1 else ""
