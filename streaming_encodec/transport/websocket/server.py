"""A WebSocket connection that never lets a slow reader hold up anybody else.

Packets are framed once and written to every listener as they are: frames from a server are not masked, and
nothing is compressed. While the transport is full, packets wait in the listener's `Outbox`; asyncio's
`resume_writing` lets them go. So there is no task per listener, and no await in the fan-out.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Callable
from typing import Any, Protocol

from websockets.asyncio.server import ServerConnection
from websockets.frames import Frame, Opcode
from websockets.protocol import Event, State

from streaming_encodec.relay.limits import RelayLimits
from streaming_encodec.transport.close_codes import Refused
from streaming_encodec.transport.limits import MOST_UNSENT_BYTES, READ_BYTES, UNSENT_LIMIT_BYTES, WRITE_LIMIT_BYTES
from streaming_encodec.transport.websocket.intake import Intake
from streaming_encodec.transport.websocket.outbox import Outbox

# Not in the socket module before Python 3.14, nor on every system.
_TCP_NOTSENT_LOWAT = {"linux": 25, "darwin": 0x201}.get(sys.platform)
_CLOSE_S = 2.0


class Doorkeeper(Protocol):
    """Who counts connections, before the WebSocket handshake."""

    def arrived(self, connection: VoiceConnection) -> None:
        """A TCP connection was accepted, and TLS settled if there is any."""

    def gone(self, connection: VoiceConnection) -> None:
        """It is over."""

    def flooded(self, connection: VoiceConnection) -> None:
        """It sends more bytes or frames than its `Intake` allows. Nothing more of it is read."""


def binary_frame(packet: bytes) -> bytes:
    """A packet as a WebSocket message of a server, ready for any number of sockets."""
    return Frame(Opcode.BINARY, packet).serialize(mask=False)


def text_frame(message: str) -> bytes:
    """The same for a control message."""
    return Frame(Opcode.TEXT, message.encode()).serialize(mask=False)


class VoiceConnection(ServerConnection):
    """One client of the relay."""

    def __init__(
        self, *args: Any, doorkeeper: Doorkeeper, limits: RelayLimits, clock: Callable[[], float], **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._doorkeeper = doorkeeper
        self._clock = clock
        self._intake = Intake(limits, clock())
        self._flooding = False
        self._full = False
        self._full_since_s = 0.0
        self._ending_since_s: float | None = None
        self.outbox = Outbox(limits.queue_frames)
        self.address = ""
        self.closing = False
        """Set by the relay once it has decided to close this connection."""

    # -- asyncio's callbacks --------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection, and keep the kernel from hoarding stale voice."""
        peer = transport.get_extra_info("peername")
        self.address = peer[0] if isinstance(peer, tuple) else "local"
        limit_unsent(transport.get_extra_info("socket"))
        super().connection_made(transport)
        limit_below_tls(transport)
        self._doorkeeper.arrived(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Uncount it."""
        super().connection_lost(exc)
        self._doorkeeper.gone(self)

    def data_received(self, data: bytes) -> None:
        """Take in what fits the budget, piece by piece, so that a flood is noticed after little work.

        Cuts off a client that makes the WebSocket layer answer (pings) and does not read the answers.
        """
        for at in range(0, len(data), READ_BYTES):
            if self._flooding:
                self.transport.pause_reading()  # again: the WebSocket layer resumes when its queue has room
            if self._flooding or self.transport.is_closing():
                return
            piece = data[at : at + READ_BYTES]
            if self._intake.data(len(piece), self._clock()):
                super().data_received(piece)
            else:
                self._flooding = True
            if self._flooding:
                self.transport.pause_reading()
                self._doorkeeper.flooded(self)
        if self.transport.get_write_buffer_size() > MOST_UNSENT_BYTES:
            self.transport.abort()

    def process_event(self, event: Event) -> None:
        """Count each frame, those that no message comes of too; `data_received` acts on it."""
        if isinstance(event, Frame) and not self._intake.frame(event, self._clock()):
            self._flooding = True
        super().process_event(event)

    def pause_writing(self) -> None:
        """The transport is full."""
        super().pause_writing()
        if not self._full:
            self._full_since_s = self.loop.time()
        self._full = True

    def resume_writing(self) -> None:
        """The transport has room again: let go what waits."""
        super().resume_writing()
        self._full = False
        # Nothing may follow a close frame; `write` calls `pause_writing` when the transport is full.
        while self.is_open and not self._full and (data := self.outbox.pop()) is not None:
            self.transport.write(data)

    # -- sending --------------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether messages may be written; not while the transport is going down, which asyncio logs."""
        return self.protocol.state is State.OPEN and not self.transport.is_closing()

    def offer(self, sender: int, frames: int, data: bytes) -> int:
        """Write a framed packet, or queue it; returns the number of packets dropped for it."""
        if not self.is_open:
            return 0
        if self._full:
            return self.outbox.put(sender, frames, data)
        self.transport.write(data)
        return 0

    def tell(self, data: bytes, *, spare: bool = False) -> bool:
        """Write or queue a framed control message, see `Outbox`; False where too many wait already."""
        if not self.is_open:
            return True
        if self._full:
            return self.outbox.put_control(data, spare=spare)
        self.transport.write(data)
        return True

    # -- going on, and ending --------------------------------------------------------------------------------

    def seated(self) -> None:
        """The client has a seat, and with it the budget of a stream."""
        self._intake.seated(self._clock())

    def stalled_s(self, now_s: float) -> float:
        """How long this peer has read nothing while there was something to read; `now_s` is the loop's time."""
        return now_s - self._full_since_s if self._full else 0.0

    def stood_still(self, seconds: float, now_s: float) -> None:
        """The relay itself did not run for so long: this peer could not read in that time."""
        self._full_since_s = min(now_s, self._full_since_s + seconds)

    def is_overdue(self, now_s: float) -> bool:
        """Whether this connection should have ended a while ago; to be asked again and again.

        A peer can leave a close frame unanswered, or not read the last bytes, for as long as it likes.
        """
        if self.protocol.state is not State.CLOSING and not self.transport.is_closing():
            return False
        if self._ending_since_s is None:
            self._ending_since_s = now_s
        return now_s - self._ending_since_s >= _CLOSE_S

    async def refuse(self, refused: Refused) -> None:
        """Close with a code; a peer that does not read or answer is cut off after a moment."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                if self._flooding and self.protocol.state is State.OPEN:
                    # Its answer would come behind the flood, which is not read: send the code and the end at once.
                    self.protocol.fail(refused.code, refused.reason)
                    self.send_data()
                    await self.wait_closed()
                else:
                    await self.close(refused.code, refused.reason)
        if self.transport is not None:
            self.transport.abort()


def limit_below_tls(transport: asyncio.BaseTransport) -> None:
    """Give the transport below TLS the same write limit; by itself it would hold 64 KiB of voice."""
    # asyncio has no public way to that transport.
    below = getattr(getattr(transport, "_ssl_protocol", None), "_transport", None)
    if below is not None:
        below.set_write_buffer_limits(WRITE_LIMIT_BYTES)


def limit_unsent(sock: socket.socket | None) -> None:
    """Let the kernel take no more bytes than it can send soon, where the system can do that."""
    if sock is not None and _TCP_NOTSENT_LOWAT is not None and sock.family != getattr(socket, "AF_UNIX", None):
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, UNSENT_LIMIT_BYTES)
