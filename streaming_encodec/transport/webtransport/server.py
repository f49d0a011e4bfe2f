"""A relay's end of datagram sessions: a UDP port that strangers may write to, and the sessions behind it.

A stranger gets nothing but a Retry packet, which is shorter than what it sent, until it has shown that it receives
what is sent to its address (RFC 9000, 8.1.2). So no memory and no handshake is spent on addresses that are not the
sender's own, and nobody else is flooded. What remains has budgets: packets of strangers, handshakes (of all, and of an
address), sessions (of all, and of an address), and what each session sends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections import Counter
from collections.abc import Callable
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

from aioquic.buffer import Buffer  # type: ignore[attr-defined]  # without an __all__ there
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
from aioquic.quic.packet import (
    QuicHeader,
    QuicPacketType,
    QuicProtocolVersion,
    encode_quic_retry,
    encode_quic_version_negotiation,
    pull_quic_header,
)
from aioquic.quic.retry import QuicRetryTokenHandler

from streaming_encodec.transport.addresses import address_group
from streaming_encodec.transport.base import SessionHost
from streaming_encodec.transport.close_codes import CloseCode
from streaming_encodec.transport.limits import FIRST_BYTES, Bucket, ServerLimits
from streaming_encodec.transport.logs import failure
from streaming_encodec.transport.webtransport.certificate import Certificate
from streaming_encodec.transport.webtransport.quic import SERVER_ID_BYTES, VoiceHttp, VoiceQuic, server_configuration
from streaming_encodec.transport.webtransport.session import PATH, PROTOCOLS, DatagramSession

_FIRST_PACKET_BYTES = 1200
"""A client's first packets have at least so many bytes (RFC 9000, 14.1), so that it pays for what it gets."""
_RETRY_ID_BYTES = 8
_STRANGERS_PER_S = 400.0
"""Packets of strangers that are looked at; each costs some 50 µs. The others are dropped unread."""
_HANDSHAKES_PER_S = 25.0
"""Each costs some milliseconds. After a restart a thousand clients come back within a minute, and talk meanwhile."""
_HANDSHAKES_OF_ADDRESS_PER_S = 4.0
_MOST_HANDSHAKES = 64
"""Under way at once."""
_MANY_ADDRESSES = 1024
_PACKETS_PER_S = 1500.0
"""UDP packets that a session may send: voice, and acknowledgements of what a room of 16 speakers sends it."""
_UNSENT_BYTES = 65_536
"""Packets beyond are dropped when the system takes no more; voice would grow old there."""
_RECEIVE_BYTES = 1 << 20
_LINGER_S = 0.5
"""From the close code to the end of the connection, unless the client ends it."""
_VERSIONS = (QuicProtocolVersion.VERSION_1, QuicProtocolVersion.VERSION_2)


class ServerDatagramSession(DatagramSession):
    """A client's session: a `transport.base.ServerSession`."""

    lingers = True

    def __init__(
        self, quic: VoiceQuic, door: WebTransportListener, host: SessionHost, limits: ServerLimits, group: str
    ) -> None:
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


class _Outlet:
    """The socket as sessions see it: what the system does not take at once is bounded, and then dropped."""

    def __init__(self, transport: asyncio.DatagramTransport) -> None:
        self._transport = transport

    def sendto(self, data: bytes, address: NetworkAddress) -> None:
        """Send a UDP packet, or drop it."""
        waiting: int = self._transport.get_write_buffer_size()  # type: ignore[attr-defined]  # typeshed lacks it
        if waiting <= _UNSENT_BYTES and not self._transport.is_closing():  # a session's timer outlives the socket
            self._transport.sendto(data, address)


class WebTransportListener(asyncio.DatagramProtocol):
    """A UDP socket, whose sessions are handed to a `SessionHost`. wall_clock: Unix time, for the certificate."""

    def __init__(self, host: SessionHost, limits: ServerLimits, wall_clock: Callable[[], float]) -> None:
        self._host, self._limits, self._wall_clock = host, limits, wall_clock
        self._renew()
        self._loop = asyncio.get_running_loop()
        now_s = self._loop.time()
        self._sessions: dict[bytes, ServerDatagramSession] = {}  # by each of their identifiers
        self._of_address: Counter[str] = Counter()
        self._all: set[ServerDatagramSession] = set()
        self._retry = QuicRetryTokenHandler()
        self._strangers = Bucket(_STRANGERS_PER_S, _STRANGERS_PER_S, now_s)
        self._handshakes = Bucket(_HANDSHAKES_PER_S, 2 * _HANDSHAKES_PER_S, now_s)
        self._handshakes_of: dict[str, Bucket] = {}
        self._transport: asyncio.DatagramTransport | None = None
        self._outlet: _Outlet | None = None
        self.dropped = 0
        """Packets of strangers that were not answered, for want of a budget."""

    @classmethod
    async def listen(
        cls,
        host: SessionHost,
        limits: ServerLimits,
        family: int,
        address: tuple[Any, ...],
        wall_clock: Callable[[], float],
    ) -> WebTransportListener:
        """Begin to listen at an address and port. Raises OSError."""
        sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # IPv4 has a socket of its own
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
            sock.bind(address)
            sock.setblocking(False)
            loop = asyncio.get_running_loop()
            _, listener = await loop.create_datagram_endpoint(lambda: cls(host, limits, wall_clock), sock=sock)
        except BaseException:
            sock.close()
            raise
        return listener

    @property
    def certificate_sha256(self) -> str:
        """The hash of the certificate that new sessions are shown."""
        return self._certificate.sha256

    def close(self) -> None:
        """End what sessions there are, and close the socket."""
        for session in list(self._all):
            session.close(CloseCode.RESTARTING, "the relay restarts")
        if self._transport is not None:
            self._transport.close()

    def tick(self) -> None:
        """End what is overdue, and renew the certificate in time. Call it now and then."""
        now_s = self._loop.time()
        for session in list(self._all):
            if session.is_overdue(now_s):
                session.abort()
        if self._wall_clock() >= self._certificate.renew_s:
            self._renew()

    def _renew(self) -> None:
        self._certificate = Certificate.make(self._wall_clock())
        self._configuration = server_configuration(self._certificate)

    # -- asyncio's callbacks --------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is there."""
        self._transport = cast(asyncio.DatagramTransport, transport)
        self._outlet = _Outlet(self._transport)

    def datagram_received(self, data: bytes, address: NetworkAddress) -> None:
        """Hand a packet to its session, or answer a stranger."""
        session = self._sessions.get(_identifier(data))
        if session is not None:
            self._hand_over(session, data, address)
            return
        # The first packet of a connection has a long header, and the fixed bit.
        if len(data) < _FIRST_PACKET_BYTES or data[0] & 0xC0 != 0xC0:
            return
        if not self._strangers.take(1, self._loop.time()):
            self.dropped += 1
            return
        try:
            header = pull_quic_header(Buffer(data=data), host_cid_length=SERVER_ID_BYTES)
        except ValueError:
            return
        self._stranger(header, data, address)

    def _stranger(self, header: QuicHeader, data: bytes, address: NetworkAddress) -> None:
        assert self._outlet is not None  # packets come through the transport
        if header.packet_type is QuicPacketType.VERSION_NEGOTIATION:
            return
        if header.version not in _VERSIONS:
            self._outlet.sendto(
                encode_quic_version_negotiation(
                    source_cid=header.destination_cid,
                    destination_cid=header.source_cid,
                    supported_versions=list(_VERSIONS),
                ),
                address,
            )
            return
        if header.packet_type is not QuicPacketType.INITIAL:
            return
        if not header.token:
            self._ask_back(header, address)
            return
        try:
            original = self._retry.validate_token(
                address=address, destination_cid=header.destination_cid, token=header.token, now=self._loop.time()
            )
        except ValueError:
            return  # of another relay, or too old: the client begins anew
        session = self._admit(header, original, address)
        if session is not None:
            self._hand_over(session, data, address)

    def _hand_over(self, session: ServerDatagramSession, data: bytes, address: NetworkAddress) -> None:
        try:
            session.datagram_received(data, address)
        except Exception:
            # asyncio would close the socket, which is everybody's.
            failure("datagram session")
            session.abort()
            self.gone(session)

    def _ask_back(self, header: QuicHeader, address: NetworkAddress) -> None:
        """Have a stranger show that it receives what is sent to its address."""
        assert self._outlet is not None
        assert header.version is not None
        identifier = os.urandom(_RETRY_ID_BYTES)
        token = self._retry.create_token(
            address=address,
            original_destination_connection_id=header.destination_cid,
            retry_source_connection_id=identifier,
            now=self._loop.time(),
        )
        answer = encode_quic_retry(
            version=header.version,
            source_cid=identifier,
            destination_cid=header.source_cid,
            original_destination_cid=header.destination_cid,
            retry_token=token,
        )
        self._outlet.sendto(answer, address)

    def _admit(self, header: QuicHeader, original: bytes, address: NetworkAddress) -> ServerDatagramSession | None:
        """A connection for a client whose address is its own; None where there are too many. It will try again."""
        now_s = self._loop.time()
        group = address_group(str(address[0]))
        limits = self._limits
        if (
            len(self._all) >= limits.max_connections
            or self._of_address[group] >= limits.max_connections_per_address
            or sum(not session.is_open for session in self._all) >= _MOST_HANDSHAKES
            or not self._bucket_of(group, now_s).take(1, now_s)
            or not self._handshakes.take(1, now_s)
        ):
            self.dropped += 1
            return None
        quic = VoiceQuic(
            configuration=self._configuration,
            original_destination_connection_id=original,
            retry_source_connection_id=header.destination_cid,
        )
        session = ServerDatagramSession(quic, self, self._host, limits, group)
        session.connection_made(cast(asyncio.BaseTransport, self._outlet))
        self._all.add(session)
        self._of_address[group] += 1
        self.know(header.destination_cid, session)
        self.know(quic.host_cid, session)
        return session

    def _bucket_of(self, group: str, now_s: float) -> Bucket:
        bucket = self._handshakes_of.get(group)
        if bucket is None:
            if len(self._handshakes_of) >= _MANY_ADDRESSES:
                self._handshakes_of = {
                    one: other for one, other in self._handshakes_of.items() if not other.is_full(now_s)
                }
            rate = _HANDSHAKES_OF_ADDRESS_PER_S
            bucket = self._handshakes_of[group] = Bucket(rate, 2 * self._limits.max_connections_per_address, now_s)
        return bucket

    # -- what sessions report ----------------------------------------------------------------------------------

    def know(self, identifier: bytes, session: ServerDatagramSession) -> None:
        """Packets with this identifier are this session's."""
        self._sessions[identifier] = session
        session.identifiers.add(identifier)

    def forget(self, identifier: bytes, session: ServerDatagramSession) -> None:
        """No longer."""
        session.identifiers.discard(identifier)
        self._sessions.pop(identifier, None)

    def gone(self, session: ServerDatagramSession) -> None:
        """A connection is over, its last packets too."""
        if session not in self._all:
            return
        self._all.discard(session)
        for identifier in list(session.identifiers):
            self.forget(identifier, session)
        self._of_address[session.group] -= 1
        if not self._of_address[session.group]:
            del self._of_address[session.group]


def _identifier(data: bytes) -> bytes:
    """The identifier of the connection that a packet is for, where it may stand (RFC 9000, 17)."""
    if len(data) < 7:
        return b""
    if data[0] & 0x80:
        return data[6 : 6 + data[5]]
    return data[1 : 1 + SERVER_ID_BYTES]
