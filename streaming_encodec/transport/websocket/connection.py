"""What both ends of a WebSocket connection do alike: they send at once or queue, and never wait for the peer.

While asyncio's transport is full, or the kernel holds voice that is old already, packets wait in the `Outbox`.
`resume_writing`, the next packet or a timer lets them go. So there is no task that sends, and no await in a relay's
fan-out.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

from websockets.asyncio.connection import Connection
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.protocol import State

from streaming_encodec.transport.base import ConnectionEnded
from streaming_encodec.transport.limits import WRITE_LIMIT_BYTES, Outbox
from streaming_encodec.transport.websocket.tcp import hurry, is_tcp, kernel_queue, tune

_LOOK_S = 0.02
"""How often to look whether the kernel has room again."""
_NO_VOICE_S = 1.0
"""Without a packet for so long it is a connection for control messages."""
_TLS_RECORD_BYTES = 22
"""What TLS 1.3 adds to a write."""


class MaskedFrames:
    """Packets as a client's frames: each has a mask of its own."""

    packet: bytes | None = None
    frame = b""

    def put(self, packet: bytes) -> None:
        """Make `frame` of a packet."""
        self.frame = Frame(Opcode.BINARY, packet).serialize(mask=True)

    def text(self, message: str) -> bytes:
        """The frame of a control message."""
        return Frame(Opcode.TEXT, message.encode()).serialize(mask=True)


class PlainFrames:
    """Packets as a server's frames, without masks. The last one is kept: many connections get the same."""

    __slots__ = ("frame", "packet")

    def __init__(self) -> None:
        self.packet: bytes | None = None
        self.frame = b""

    def put(self, packet: bytes) -> None:
        """Make `frame` of a packet."""
        self.packet, self.frame = packet, Frame(Opcode.BINARY, packet).serialize(mask=False)

    def text(self, message: str) -> bytes:
        """The frame of a control message."""
        return Frame(Opcode.TEXT, message.encode()).serialize(mask=False)


class WebSocketConnection(Connection):
    """A `transport.base.Connection` over TCP; mixed into the client's and the server's class of websockets."""

    ordered = True
    reliable = True

    def __init__(self, *args: Any, frames: MaskedFrames | PlainFrames, queue_frames: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._frames = frames
        self._full = False
        self._reported = 0  # packets that the outbox dropped
        self._heard_s = self.loop.time()
        self._question: asyncio.Task[None] | None = None
        self._kernel = kernel_queue(None, lambda: 0.0)
        self._record_bytes = 0
        self._tcp: socket.socket | None = None
        self._hurries = False
        self._voice_s = float("-inf")  # when a packet was last given to it
        self._look: asyncio.TimerHandle | None = None
        self.outbox = Outbox(queue_frames)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the kernel from holding much voice."""
        sock: socket.socket | None = transport.get_extra_info("socket")
        if sock is not None and is_tcp(sock):
            self._tcp = sock
            tune(sock)
        self._kernel = kernel_queue(sock, lambda: self.latency)
        self._record_bytes = 0 if transport.get_extra_info("ssl_object") is None else _TLS_RECORD_BYTES
        super().connection_made(transport)
        _limit_below_tls(transport)

    def data_received(self, data: bytes) -> None:
        """The other end lives."""
        self._heard_s = self.loop.time()
        super().data_received(data)

    def pause_writing(self) -> None:
        """The transport is full."""
        super().pause_writing()
        self._full = True

    def resume_writing(self) -> None:
        """The transport has room again: send what waits."""
        super().resume_writing()
        self._full = False
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing more leaves."""
        if self._look is not None:
            self._look.cancel()
        super().connection_lost(exc)

    @property
    def is_open(self) -> bool:
        """Whether messages may be sent; not while the transport is going down, which asyncio would log."""
        return self.protocol.state is State.OPEN and not self.transport.is_closing()

    @property
    def round_trip_s(self) -> float:
        """Of a recent ping; 0 before the first, some seconds after connecting."""
        return self.latency

    @property
    def heard_s(self) -> float:
        """When something last came."""
        return self._heard_s

    def probe(self) -> None:
        """Send a ping, unless the last one was not answered."""
        if self._question is None or self._question.done():
            self._question = self.loop.create_task(self._wait_for_answer())

    async def ask(self) -> float:
        """Send a ping and wait for the answer; returns the round trip in seconds. Raises ConnectionEnded."""
        try:
            return await (await self.ping())
        except ConnectionClosed as closed:
            raise ended(closed) from closed

    async def _wait_for_answer(self) -> None:
        with contextlib.suppress(ConnectionEnded):
            await self.ask()

    @property
    def unsent_packets(self) -> int:
        """Packets in the queue."""
        return self.outbox.packets

    async def receive(self) -> bytes | str:
        """The next packet or control message. Raises ConnectionEnded."""
        try:
            return await self.recv()
        except ConnectionClosed as closed:
            raise ended(closed) from closed

    def send_packet(self, sender: int, frames: int, packet: bytes, *, spare: bool = False) -> None:
        """Write a packet, or queue it; see `transport.base.Connection`."""
        if self.protocol.state is not State.OPEN or self.transport.is_closing():
            return
        now_s = self.loop.time()
        if spare and (self.outbox or self._kernel.is_slow(now_s)):
            return
        self._voice_s = now_s
        self._hurry(True)
        framed = self._frames
        if packet is not framed.packet:
            framed.put(packet)
        if not self.outbox and self._has_room(now_s):
            self._write(framed.frame, now_s)
        else:
            self.outbox.put(sender, frames, framed.frame, now_s)
            self._flush()

    def take_dropped(self) -> int:
        """How many packets were dropped since this was last asked."""
        dropped, self._reported = self.outbox.dropped - self._reported, self.outbox.dropped
        return dropped

    def send_control(self, message: str, *, spare: bool = False) -> bool:
        """Write or queue a control message; see `transport.base.Connection`."""
        if not self.is_open:
            return True
        data, now_s = self._frames.text(message), self.loop.time()
        if now_s - self._voice_s > _NO_VOICE_S:
            self._hurry(False)
        if not self.outbox and self._has_room(now_s):
            self._write(data, now_s)
            return True
        taken = self.outbox.put_control(data, spare=spare)
        self._flush()
        return taken

    def abort(self) -> None:
        """Cut the connection at once."""
        self.transport.abort()

    def _hurry(self, soon: bool) -> None:
        if soon is not self._hurries and self._tcp is not None:
            self._hurries = soon
            hurry(self._tcp, soon)

    def _has_room(self, now_s: float) -> bool:
        """Whether what is written now would leave soon."""
        return not self._full and not self._kernel.is_late(now_s)

    def _write(self, data: bytes, now_s: float) -> None:
        self.transport.write(data)
        self._kernel.wrote(len(data) + self._record_bytes, now_s)

    def _flush(self) -> None:
        """Send what waits while there is room, and look again later."""
        now_s = self.loop.time()
        # Nothing may follow a close frame; `write` calls `pause_writing` when the transport is full.
        while self.is_open and self._has_room(now_s) and (data := self.outbox.pop(now_s)) is not None:
            self._write(data, now_s)
        if self._look is None and self.outbox and self.is_open and not self._full:
            self._look = self.loop.call_later(_LOOK_S, self._look_again)

    def _look_again(self) -> None:
        self._look = None
        self._flush()


def ended(closed: ConnectionClosed) -> ConnectionEnded:
    """The end of a connection, as the rest of the package knows it."""
    # What the WebSocket layer refuses by itself (1002, 1007, 1009) was sent first, not received.
    sent = closed.sent.code if closed.sent is not None and not closed.rcvd_then_sent else None
    if closed.rcvd is None:
        return ConnectionEnded(sent=sent)
    return ConnectionEnded(closed.rcvd.code, closed.rcvd.reason, sent=sent)


def _limit_below_tls(transport: asyncio.BaseTransport) -> None:
    """Give the transport below TLS the same write limit; by itself it would hold 64 KiB of voice."""
    # asyncio has no public way to that transport.
    below = getattr(getattr(transport, "_ssl_protocol", None), "_transport", None)
    if below is not None:
        below.set_write_buffer_limits(WRITE_LIMIT_BYTES)
