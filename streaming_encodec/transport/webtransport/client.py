"""A client's end of datagram sessions."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import cast

from aioquic.h3.events import HeadersReceived
from aioquic.quic.connection import NetworkAddress
from aioquic.quic.events import HandshakeCompleted, QuicEvent

from streaming_encodec.errors import CallError, CallErrorReason
from streaming_encodec.transport.webtransport.answers import LOST_S
from streaming_encodec.transport.webtransport.quic import VoiceHttp, VoiceQuic, client_configuration
from streaming_encodec.transport.webtransport.session import PATH, DatagramSession
from streaming_encodec.wire.hello import DatagramOffer

OPEN_S = 5.0
"""A session takes no longer to open."""
_QUEUE_FRAMES = 30
"""Frames that wait: 0.4 s."""
_WATCH_S = 0.1
_IDLE_PING_S = 1.0
"""Where nothing else is sent, so that a change of address is noticed, and no router on the way forgets the client."""
_MOVE_S = 1.5
"""Between two attempts from a new socket."""


class ClientDatagramSession(DatagramSession):
    """A `transport.base.PacketSession` to a relay; made by `open_session`."""

    def __init__(self, quic: VoiceQuic, offer: DatagramOffer, host: str, on_packet: Callable[[bytes], None]) -> None:
        super().__init__(quic, _QUEUE_FRAMES)
        self._offer, self._host, self._on_packet = offer, host, on_packet
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._finished = asyncio.Event()
        self._moved_s = self._heard_s = float("-inf")
        self._socket: asyncio.DatagramTransport | None = None
        self._is_dialled = False

    async def open(self) -> None:
        """Open it. Raises CallError where the relay refuses, OSError where there is no network."""
        await self._bind()
        found = await self._loop.getaddrinfo(
            self._host, self._offer.port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST
        )
        self._is_dialled = True
        self.connect(found[0][4])
        await asyncio.shield(self._ready)

    def discard(self) -> None:
        """End it, and close its socket."""
        if self._is_dialled:  # before that QUIC knows nobody to tell
            self.abort()
        if self._socket is not None:
            self._socket.close()

    async def keep(self) -> None:
        """Wait until it is over. Keep it alive meanwhile: pings, and a new socket where none is answered."""
        try:
            while not self._over:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_WATCH_S):
                        await self._finished.wait()
                        return
                now_s = self._loop.time()
                waited_s = self._answers.waited_s(now_s)
                if self.has_given_up(now_s):
                    return
                if min(waited_s, now_s - self._heard_s) > LOST_S and now_s - self._moved_s > _MOVE_S:
                    self._moved_s = now_s
                    await self._move()
                certain = self._answers.is_certain(now_s)
                if self._answers.since_asked_s(now_s) >= (_IDLE_PING_S if certain else 2 * _WATCH_S):
                    self.ping()
        finally:
            self.discard()

    async def _bind(self) -> None:
        """Take a fresh socket. It is not tied to one address of this machine: where that changes, so does it."""
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            sock.bind(("", 0))
            await self._loop.create_datagram_endpoint(lambda: self, sock=sock)
        except BaseException:
            sock.close()
            raise

    async def _move(self) -> None:
        """Go on from another socket: the network may have forgotten the old one, or have another address now.

        The relay follows a client that moves (RFC 9000, 9). It is called by another identifier then, so that nobody
        on the way can tell that it is the same client.
        """
        old = self._socket
        with contextlib.suppress(OSError):
            await self._bind()
            if old is not None:
                old.close()
            self.change_connection_id()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A socket is there, the first or another."""
        super().connection_made(transport)
        self._socket = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes | str, addr: NetworkAddress) -> None:
        """Something came; on a slow line an answer may take longer than it takes to give a line up."""
        self._heard_s = self._loop.time()
        super().datagram_received(data, addr)

    def quic_event_received(self, event: QuicEvent) -> None:
        """Take an event of the QUIC connection."""
        if isinstance(event, HandshakeCompleted):
            # Nothing secret was sent yet; the key goes to the right relay alone.
            if self._voice_quic.peer_certificate_sha256 != self._offer.certificate_sha256:
                self.abort()
                return
            self._http = VoiceHttp(self._voice_quic)
            stream_id = self._voice_quic.get_next_available_stream_id()
            authority = f"[{self._host}]" if ":" in self._host else self._host
            self._http.send_headers(
                stream_id,
                [
                    (b":method", b"CONNECT"),
                    (b":scheme", b"https"),
                    (b":authority", f"{authority}:{self._offer.port}".encode()),
                    (b":path", f"{PATH}?key={self._offer.key}".encode()),
                    (b":protocol", b"webtransport"),
                ],
            )
        else:
            super().quic_event_received(event)

    def _headers(self, event: HeadersReceived) -> None:
        if self.is_open:
            return
        if dict(event.headers).get(b":status") != b"200":
            self.abort()
            return
        self._opened(event.stream_id)
        if not self._ready.done():
            self._ready.set_result(None)

    def _arrived(self, packet: bytes) -> None:
        self._on_packet(packet)

    def _ended(self) -> None:
        self._finished.set()
        if not self._ready.done():
            self._ready.set_exception(CallError("no datagram session with the relay", CallErrorReason.UNREACHABLE))
            self._ready.exception()  # seen: nobody may be waiting


async def open_session(host: str, offer: DatagramOffer, on_packet: Callable[[bytes], None]) -> ClientDatagramSession:
    """Open a session at a relay's IP address, as it was offered. Raises CallError where that fails."""
    session = ClientDatagramSession(VoiceQuic(configuration=client_configuration(host)), offer, host, on_packet)
    try:
        async with asyncio.timeout(OPEN_S):
            await session.open()
    except (TimeoutError, OSError) as error:
        session.discard()
        raise CallError(f"no datagrams from {host}:{offer.port}", CallErrorReason.UNREACHABLE) from error
    except BaseException:
        session.discard()
        raise
    return session
