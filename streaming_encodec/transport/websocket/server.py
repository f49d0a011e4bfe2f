"""A relay's end of WebSocket connections: one client that may send too much or read too little, and the listener."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any, cast

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import Event, State
from websockets.typing import Subprotocol

from streaming_encodec.transport.addresses import SUBPROTOCOL
from streaming_encodec.transport.base import Host, HttpAnswer, Phase
from streaming_encodec.transport.limits import (
    BACKLOG,
    FIRST_BYTES,
    MAX_MESSAGE_BYTES,
    MOST_UNSENT_BYTES,
    READ_BYTES,
    WRITE_LIMIT_BYTES,
    Bucket,
    ServerLimits,
)
from streaming_encodec.transport.logs import failure
from streaming_encodec.transport.plain_http import PlainHttp
from streaming_encodec.transport.websocket.connection import PlainFrames, WebSocketConnection

_MESSAGES = (Opcode.TEXT, Opcode.BINARY)
_CLOSE_S = 2.0
_PHASES = {State.CONNECTING: Phase.OPENING, State.OPEN: Phase.OPEN}


class Intake:
    """The budget of a connection, before it is admitted and after. Pure: the time is handed in.

    Before that there is little to send: an HTTP request and a hello. So `FIRST_BYTES` is the limit, and every
    frame counts. From `admitted` on the bytes of a fast stream are allowed, and whole messages count as what they are
    (see `relay.participants`). Pings, pongs and fragments count always: each costs as much work as a packet.
    """

    def __init__(self, limits: ServerLimits, now_s: float) -> None:
        self._limits = limits
        self._bytes = Bucket(FIRST_BYTES / limits.hello_s, FIRST_BYTES, now_s)
        self._frames = Bucket(limits.upkeep_frames_per_s, 2 * limits.upkeep_frames_per_s, now_s)
        self._admitted = False

    def admitted(self, now_s: float) -> None:
        """The client is a participant."""
        self._admitted = True
        self._bytes = Bucket(self._limits.bytes_per_s, 8 * self._limits.bytes_per_s, now_s)

    def data(self, size: int, now_s: float) -> bool:
        """Count bytes; False where there were too many."""
        return self._bytes.take(size, now_s)

    def frame(self, frame: Frame, now_s: float) -> bool:
        """Count a frame; False where there were too many."""
        if self._admitted and frame.fin and frame.opcode in _MESSAGES:
            return True
        return self._frames.take(1, now_s)


class WebSocketServerConnection(WebSocketConnection, ServerConnection):
    """One client of the relay: a `transport.base.ServerConnection`."""

    def __init__(
        self,
        *args: Any,
        host: Host,
        limits: ServerLimits,
        clock: Callable[[], float],
        frames: PlainFrames,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, frames=frames, queue_frames=limits.queue_frames, **kwargs)
        self._host = host
        self._limits = limits
        self._clock = clock
        self._plain: PlainHttp | None = None  # until a first request is not for a file
        self._intake = Intake(limits, clock())
        self._flooding = False
        self._full_since_s = 0.0
        self._ending_since_s: float | None = None
        self.address = ""
        self.closing = False

    # -- asyncio's callbacks --------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection."""
        peer = transport.get_extra_info("peername")
        self.address = peer[0] if isinstance(peer, tuple) else "local"
        self.transport = cast(asyncio.Transport, transport)
        if self._host.serves_files:
            self._plain = PlainHttp(
                self.transport, self._host, self, self._limits, turn=self._turn, answered=self._answered
            )
        else:
            super().connection_made(transport)
        self._host.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Uncount it."""
        if self._plain is not None:
            self._plain.lost()
        else:
            super().connection_lost(exc)
        self._host.ended(self)

    def eof_received(self) -> None:
        """The client sends nothing more."""
        if self._plain is None:
            super().eof_received()

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
            if not self._intake.data(len(piece), self._clock()):
                self._flooding = True
            elif self._plain is not None:
                self._plain.received(piece)
            else:
                super().data_received(piece)
            if self._flooding:
                self.transport.pause_reading()
                self._host.flooded(self)
        if self._plain is None and self.transport.get_write_buffer_size() > MOST_UNSENT_BYTES:
            self.transport.abort()

    def process_event(self, event: Event) -> None:
        """Count each frame, those that no message comes of too; `data_received` acts on it."""
        if isinstance(event, Frame) and not self._intake.frame(event, self._clock()):
            self._flooding = True
        super().process_event(event)

    def pause_writing(self) -> None:
        """The transport is full."""
        if self._plain is not None:
            self._plain.pause_writing()
            return
        if not self._full:
            self._full_since_s = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        """The transport has room again."""
        if self._plain is not None:
            self._plain.resume_writing()
        else:
            super().resume_writing()

    def _answered(self) -> None:
        """A file was sent: the next request has a budget of its own."""
        self._intake = Intake(self._limits, self._clock())

    def _turn(self, received: bytes) -> None:
        """What comes now is for the WebSocket layer, and it has come from the beginning."""
        self._plain = None
        super().connection_made(self.transport)
        super().data_received(received)

    # -- what the relay asks ---------------------------------------------------------------------------------

    @property
    def headers(self) -> Headers:
        """Of the request; there are none before it came."""
        return Headers() if self.request is None else self.request.headers

    @property
    def path(self) -> str:
        """Of the request, without its query; empty before it came."""
        return "" if self.request is None else self.request.path.partition("?")[0]

    @property
    def phase(self) -> Phase:
        """How far it is."""
        return _PHASES.get(self.protocol.state, Phase.CLOSING)

    def admitted(self) -> None:
        """The client is a participant, with the budget of a stream."""
        self._intake.admitted(self._clock())

    def stalled_s(self, now_s: float) -> float:
        """For how long this peer has read nothing while there was something to read; `now_s` is the loop's time."""
        return max(now_s - self._full_since_s if self._full else 0.0, self._kernel.stalled_s(now_s))

    def stood_still(self, seconds: float, now_s: float) -> None:
        """The relay itself did not run for so long: this peer could not read in that time."""
        self._full_since_s = min(now_s, self._full_since_s + seconds)
        self._kernel.stood_still(seconds, now_s)

    def is_overdue(self, now_s: float) -> bool:
        """Whether this connection should have ended a while ago; to be asked again and again.

        A peer can leave a close frame unanswered, or not read the last bytes, for as long as it likes.
        """
        if self._plain is not None:
            return False  # it has times of its own, for readers that are slow but read
        if self.protocol.state is not State.CLOSING and not self.transport.is_closing():
            return False
        if self._ending_since_s is None:
            self._ending_since_s = now_s
        return now_s - self._ending_since_s >= _CLOSE_S

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close with a code; a peer that does not read or answer is cut off after a moment."""
        if self._plain is not None:
            self.transport.abort()
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                if self._flooding and self.protocol.state is State.OPEN:
                    # Its answer would come behind the flood, which is not read: send the code and the end at once.
                    self.protocol.fail(code, reason)
                    self.send_data()
                    await self.wait_closed()
                else:
                    await super().close(code, reason)
        if self.transport is not None:
            self.transport.abort()


class WebSocketListener:
    """A listening socket, whose connections are handed to a `Host`."""

    def __init__(self, server: Server) -> None:
        self._server = server

    @classmethod
    async def listen(
        cls,
        sock: socket.socket,
        host: Host,
        limits: ServerLimits,
        *,
        tls: ssl.SSLContext | None,
        clock: Callable[[], float],
    ) -> WebSocketListener:
        """Begin to listen. Raises OSError."""

        async def handle(connection: ServerConnection) -> None:
            await host.serve(_own(connection))

        server = await serve(
            handle,
            sock=sock,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression=None,
            process_request=partial(_process_request, host),
            server_header=None,
            open_timeout=limits.hello_s,
            ping_interval=limits.heartbeat_s,
            ping_timeout=2 * limits.heartbeat_s,
            close_timeout=1.0,
            max_size=MAX_MESSAGE_BYTES,
            max_queue=16,
            write_limit=WRITE_LIMIT_BYTES,
            backlog=BACKLOG,
            logger=logging.getLogger("streaming_encodec.transport.websockets"),
            create_connection=partial(  # type: ignore[arg-type]  # a factory serves as well as a class
                WebSocketServerConnection, host=host, limits=limits, clock=clock, frames=PlainFrames()
            ),
            ssl=tls,
        )
        return cls(server)

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return int(self._server.sockets[0].getsockname()[1])

    def close(self) -> None:
        """Accept no more; connections go on."""
        self._server.close(close_connections=False)

    async def wait_closed(self) -> None:
        """Wait until all connections have ended."""
        await self._server.wait_closed()


def _own(connection: ServerConnection) -> WebSocketServerConnection:
    assert isinstance(connection, WebSocketServerConnection)  # made by create_connection
    return connection


def _process_request(host: Host, connection: ServerConnection, request: Request) -> Response | None:
    try:
        answer = host.answer(_own(connection), request.path.partition("?")[0])
    except Exception:
        failure("request")
        answer = HttpAnswer(HTTPStatus.INTERNAL_SERVER_ERROR, "the relay failed\n")
    if answer is None:
        return None
    response = connection.respond(answer.status, answer.body)
    del response.headers["Content-Type"]
    response.headers["Content-Type"] = answer.content_type
    return response
