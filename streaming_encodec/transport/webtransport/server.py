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

from aioquic.buffer import Buffer  # type: ignore[attr-defined]  # without an __all__ there
from aioquic.quic.connection import NetworkAddress
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
from streaming_encodec.transport.limits import Bucket, ServerLimits
from streaming_encodec.transport.logs import failure
from streaming_encodec.transport.self_signed import SelfSigned
from streaming_encodec.transport.webtransport.quic import SERVER_ID_BYTES, VoiceQuic, server_configuration
from streaming_encodec.transport.webtransport.server_session import ServerDatagramSession

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
_UNSENT_BYTES = 65_536
"""Packets beyond are dropped when the system takes no more; voice would grow old there."""
_RECEIVE_BYTES = 1 << 20
_VERSIONS = (QuicProtocolVersion.VERSION_1, QuicProtocolVersion.VERSION_2)


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
        self._certificate = SelfSigned.make(self._wall_clock())
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
