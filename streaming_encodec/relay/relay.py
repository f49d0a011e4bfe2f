"""The relay: sockets around `RoomTable`. It moves packets and never decodes one, so it needs no torch."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Callable, Coroutine
from functools import partial
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Origin, Subprotocol

from streaming_encodec.errors import CallError, CallErrorReason, PacketError
from streaming_encodec.relay.admission import Entrance
from streaming_encodec.relay.config import RelayConfig
from streaming_encodec.relay.listen import Gate
from streaming_encodec.relay.login import Door
from streaming_encodec.relay.metrics import Metrics
from streaming_encodec.relay.rooms import Effects, RoomTable, Seat
from streaming_encodec.transport.addresses import SUBPROTOCOL
from streaming_encodec.transport.close_codes import FINAL_CODES, CloseCode, Refused
from streaming_encodec.transport.limits import BACKLOG, MAX_MESSAGE_BYTES, OUTAGE_S, WRITE_LIMIT_BYTES
from streaming_encodec.transport.logs import event, failure
from streaming_encodec.transport.websocket.server import VoiceConnection, binary_frame, text_frame
from streaming_encodec.wire.control import Bye, ControlMessage, Report, parse_control, serialize_control
from streaming_encodec.wire.header import cut_packet

_TICK_S = 0.5
_CLEAN_CODES = (1000, 1001)

VoiceSeat = Seat[VoiceConnection]


class Relay:
    """A relay that listens between `start` and `stop` (or within `async with`).

    Args:
        config: how it is set up.
        clock: seconds, monotonic, for limits. wall_clock: Unix time, for tokens.
    """

    def __init__(
        self,
        config: RelayConfig,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.config = config
        self.metrics = Metrics()
        self._clock = clock
        self._rooms: RoomTable[VoiceConnection] = RoomTable(config.limits, config.rooms)
        self._door = Door(config, wall_clock)
        self._gate = Gate(config.limits, self.metrics, clock)
        self._entrance = Entrance(config, self.metrics, self._close, self._gate.refused)
        self._tasks: set[asyncio.Task[None]] = set()
        self._servers: list[Server] = []  # one for each address
        self._ticker: asyncio.Task[None] | None = None

    # -- life -----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to listen. Raises CallError where the address cannot be had."""
        config = self.config
        try:
            for sock in await self._gate.listen(config.host, config.port):
                self._servers.append(await self._serve(sock))
        except OSError as error:
            raise CallError(
                f"cannot listen on {config.host}:{config.port}: {error.strerror or error}",
                CallErrorReason.CANNOT_LISTEN,
            ) from error
        self._ticker = asyncio.create_task(self._tick())
        event("listening", url=self.url, tokens=config.token_key is not None)

    async def _serve(self, sock: socket.socket) -> Server:
        config, limits = self.config, self.config.limits
        return await serve(
            self._handle,
            sock=sock,
            origins=[None, *(Origin(origin) for origin in config.origins)],
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression=None,
            process_request=self._process_request,
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
                VoiceConnection, doorkeeper=self._entrance, limits=limits, clock=self._clock
            ),
            ssl=config.tls,
        )

    @property
    def port(self) -> int:
        """The port that is listened on."""
        if not self._servers:
            raise CallError("the relay was not started", CallErrorReason.MISUSE)
        return int(self._servers[0].sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        """Where clients on this machine find the relay."""
        host = self.config.host or "localhost"
        host = f"[{host}]" if ":" in host else host
        return f"{'ws' if self.config.tls is None else 'wss'}://{host}:{self.port}"

    def drain(self) -> None:
        """From now on let nobody in, and say so on `/healthz`; calls go on until `stop`."""
        self._entrance.draining = True
        event("draining", seats=self._rooms.seats)

    async def drained(self) -> None:
        """Wait until nobody is left, but not longer than `drain_s`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.config.drain_s):
                while self._rooms.seats:
                    await asyncio.sleep(0.05)

    async def stop(self) -> None:
        """Say goodbye to all (close code 1012: they come back by themselves) and stop listening."""
        if not self._servers:
            return
        self._entrance.draining = True
        for server in self._servers:
            server.close(close_connections=False)
        goodbye = text_frame(serialize_control(Bye("the relay restarts", retry_s=0.1)))
        for connection in self._entrance.connections:
            connection.tell(goodbye)
            connection.closing = True
        restarting = Refused(CloseCode.RESTARTING, "the relay restarts")
        await asyncio.gather(*(connection.refuse(restarting) for connection in list(self._entrance.connections)))
        if self._ticker is not None:
            self._ticker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._ticker
        for server in self._servers:
            await server.wait_closed()
        self._servers.clear()
        self._gate.log_refused()
        event("stopped")

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    # -- one connection -------------------------------------------------------------------------------------

    def _process_request(self, connection: ServerConnection, request: Request) -> Response | None:
        assert isinstance(connection, VoiceConnection)  # made by create_connection
        try:
            return self._entrance.answer(connection, request, rooms=len(self._rooms.rooms), seats=self._rooms.seats)
        except Exception:
            failure("request")
            return connection.respond(HTTPStatus.INTERNAL_SERVER_ERROR, "the relay failed\n")

    async def _handle(self, connection: ServerConnection) -> None:
        assert isinstance(connection, VoiceConnection)  # made by create_connection
        seat: VoiceSeat | None = None
        code: int | None = None
        try:
            seat = await self._enter(connection)
            while True:
                self._take(connection, seat, await connection.recv())
                # A message that waits already is received at once: let others have their turn between two of them.
                await asyncio.sleep(0)
        except Refused as refused:
            code = refused.code
            self.metrics.closed[code] += 1
            event("refused", logging.WARNING, address=connection.address, code=code, reason=refused.reason)
            self._vacate(connection, seat, code)
            await connection.refuse(refused)
        except ConnectionClosed as closed:
            # What the WebSocket layer refuses by itself (1002, 1007, 1009) was sent, not received.
            mine = closed.sent.code if closed.sent is not None and not closed.rcvd_then_sent else None
            code = closed.rcvd.code if closed.rcvd is not None else mine
            if mine is not None and not connection.closing:
                self.metrics.closed[mine] += 1
        except Exception:
            failure("connection")
            code = CloseCode.INTERNAL_ERROR
            self.metrics.closed[code] += 1
            await connection.refuse(Refused(CloseCode.INTERNAL_ERROR, "the relay failed"))
        finally:
            self._vacate(connection, seat, code)

    async def _enter(self, connection: VoiceConnection) -> VoiceSeat:
        try:
            async with asyncio.timeout(self.config.limits.hello_s):
                text = await connection.recv()
        except TimeoutError:
            raise Refused(CloseCode.TIMEOUT, "no hello in time") from None
        hello, bearer = self._door.read(connection, text)
        now_s = self._clock()
        found = self._rooms.resume(hello, connection, now_s)
        if found is None:
            grant = self._door.check(hello, bearer)
            self._apply(self._rooms.admit(hello))
            self._door.use(grant)
            found = self._rooms.join(hello, connection, now_s)
        seat, welcome, effects = found
        connection.seated()
        connection.tell(text_frame(serialize_control(welcome)))
        self._apply(effects)
        self.metrics.counts["resumes" if welcome.resumed else "joins"] += 1
        event(
            "resume" if welcome.resumed else "join",
            room=hello.room,
            seat=seat.number,
            role=seat.role,
            address=connection.address,
        )
        return seat

    def _take(self, connection: VoiceConnection, seat: VoiceSeat, message: str | bytes) -> None:
        if seat.peer is not connection:
            return  # replaced: what is still in the pipe does not count
        if isinstance(message, bytes):
            self._fan_out(seat, message)
            return
        try:
            control = parse_control(message)
        except PacketError as error:
            raise Refused(CloseCode.BAD_MESSAGE, "not a control message") from error
        self._apply(self._rooms.control(seat, control, self._clock()))
        if isinstance(control, Bye):
            event("leave", room=seat.room.name, seat=seat.number, code=int(CloseCode.NORMAL))

    def _fan_out(self, seat: VoiceSeat, data: bytes) -> None:
        begin_s = self._clock()
        frames, packet = self._rooms.packet(seat, data, begin_s)
        framed: dict[int | None, bytes] = {}
        sent = size = dropped = 0
        for listener in seat.room.listeners:
            if listener is seat or listener.peer is None:
                continue
            layers = listener.max_codebooks
            copy = framed.get(layers)
            if copy is None:
                copy = binary_frame(packet if layers is None else cut_packet(packet, layers))
                framed[layers] = copy
            dropped += listener.peer.offer(seat.number, frames, copy)
            sent += 1
            size += len(copy)
        counts = self.metrics.counts
        counts["packets_in"] += 1
        counts["frames_in"] += frames
        counts["bytes_in"] += len(data)
        counts["packets_out"] += sent
        counts["bytes_out"] += size
        counts["packets_dropped"] += dropped
        self.metrics.fanout(self._clock() - begin_s)

    def _vacate(self, connection: VoiceConnection, seat: VoiceSeat | None, code: int | None) -> None:
        """The connection is over: free its seat, or keep it for a client that may come back."""
        if seat is None or seat.peer is not connection:
            return
        if code in FINAL_CODES or code in _CLEAN_CODES:
            self._apply(self._rooms.leave(seat))
        else:
            self._rooms.lose(seat, self._clock())
        event("leave", room=seat.room.name, seat=seat.number, code=code)

    # -- doing what the protocol says -----------------------------------------------------------------------

    def _apply(self, effects: Effects[VoiceConnection]) -> None:
        framed: dict[int, bytes] = {}
        for seat, message in effects.notices:
            if seat.peer is None:
                continue
            # There are as many reports a second as listeners, and the next one says as much as the last.
            spare = isinstance(message, Report)
            if not seat.peer.tell(self._framed(framed, message), spare=spare) and not spare:
                self._close(seat.peer, Refused(CloseCode.STALLED, "too many messages unread"))
        for peer, refused in effects.closes:
            self._close(peer, refused)

    def _framed(self, framed: dict[int, bytes], message: ControlMessage) -> bytes:
        key = id(message)  # one notice goes to many listeners as the same object
        if key not in framed:
            framed[key] = text_frame(serialize_control(message))
        return framed[key]

    def _close(self, connection: VoiceConnection, refused: Refused) -> None:
        if connection.closing:
            return
        connection.closing = True
        self.metrics.closed[refused.code] += 1
        event("closed", address=connection.address, code=int(refused.code), reason=refused.reason)
        self._spawn(connection.refuse(refused))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        then_s = loop.time()
        while True:
            await asyncio.sleep(_TICK_S)
            try:
                late_s, then_s = loop.time() - then_s - _TICK_S, loop.time()
                if late_s >= OUTAGE_S:
                    self._stood_still(late_s)
                self._sweep(loop.time())
            except Exception:
                # The sweep must go on whatever one seat did to it.
                failure("tick")

    def _stood_still(self, seconds: float) -> None:
        """The process did not run for so long: nobody's time may run out for that."""
        self.metrics.counts["stalls"] += 1
        event("stalled", logging.WARNING, seconds=round(seconds, 3))
        self._rooms.stood_still(seconds, self._clock())
        loop_s = asyncio.get_running_loop().time()
        for connection in self._entrance.connections:
            connection.stood_still(seconds, loop_s)

    def _sweep(self, loop_s: float) -> None:
        """Close whatever has been idle, stalled, or ending, for too long."""
        self._gate.log_refused()
        self._apply(self._rooms.tick(self._clock()))
        for connection in list(self._entrance.connections):
            if connection.is_overdue(loop_s):
                connection.transport.abort()
            elif connection.stalled_s(loop_s) >= self.config.limits.stall_s:
                self.metrics.counts["evictions"] += not connection.closing
                self._close(connection, Refused(CloseCode.STALLED, "does not read what it is sent"))
