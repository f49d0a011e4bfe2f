"""The relay: sockets around `RoomTable`. It moves packets and never decodes one, so it needs no torch."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self

from streaming_encodec.errors import CallError, CallErrorReason, PacketError
from streaming_encodec.relay.admission import Admission
from streaming_encodec.relay.bus.base import Bus, Elsewhere
from streaming_encodec.relay.bus.local import LocalBus
from streaming_encodec.relay.config import RelayConfig
from streaming_encodec.relay.listen import ConnectionCaps
from streaming_encodec.relay.login import Login
from streaming_encodec.relay.metrics import Metrics
from streaming_encodec.relay.rooms import Effects, Room, RoomTable, Seat
from streaming_encodec.relay.tokens import Grant
from streaming_encodec.transport.base import ConnectionEnded, ServerConnection
from streaming_encodec.transport.close_codes import FINAL_CODES, CloseCode, Refused
from streaming_encodec.transport.limits import OUTAGE_S
from streaming_encodec.transport.logs import event, failure
from streaming_encodec.transport.websocket.server import WebSocketListener
from streaming_encodec.wire.control import Bye, Report, parse_control, serialize_control
from streaming_encodec.wire.header import cut_packet
from streaming_encodec.wire.hello import Hello, Welcome

_TICK_S = 0.5
_CLEAN_CODES = (1000, 1001)

VoiceSeat = Seat[ServerConnection]


class Relay:
    """A relay that listens between `start` and `stop` (or within `async with`).

    Args:
        config: its settings.
        clock: seconds, monotonic, for limits. wall_clock: Unix time, for tokens.
        bus: carries the rooms to other relays; None without other relays.
    """

    def __init__(
        self,
        config: RelayConfig,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        bus: Bus | None = None,
    ) -> None:
        self.config = config
        self.metrics = Metrics()
        self._clock = clock
        self._bus: Bus = bus or LocalBus(wall_clock, config.limits.max_used_tokens)
        self._rooms: RoomTable[ServerConnection] = RoomTable(config.limits, config.rooms, numbers=self._bus.numbers)
        self._login = Login(config, wall_clock)
        self._caps = ConnectionCaps(config.limits, self.metrics, clock)
        self._admission = Admission(
            config,
            self.metrics,
            close=self._close,
            refused=self._caps.refused,
            gauges=lambda: {"rooms": len(self._rooms.rooms), "seats": self._rooms.seats},
            serve=self.serve,
        )
        self._entering: Counter[str] = Counter()  # clients that are about to enter a room
        self._tasks: set[asyncio.Task[None]] = set()
        self._listeners: list[WebSocketListener] = []  # one for each address
        self._ticker: asyncio.Task[None] | None = None

    # -- life -----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start to listen. Raises CallError if the address is not available, or the bus cannot be reached."""
        config = self.config
        await self._bus.open(self)
        try:
            for sock in await self._caps.listen(config.host, config.port):
                listener = await WebSocketListener.listen(
                    sock, self._admission, config.limits, tls=config.tls, origins=config.origins, clock=self._clock
                )
                self._listeners.append(listener)
        except OSError as error:
            await self._bus.close()
            raise CallError(
                f"cannot listen on {config.host}:{config.port}: {error.strerror or error}",
                CallErrorReason.CANNOT_LISTEN,
            ) from error
        self._ticker = asyncio.create_task(self._tick())
        event("listening", url=self.url, tokens=config.token_key is not None)

    @property
    def port(self) -> int:
        """The port of the relay."""
        if not self._listeners:
            raise CallError("the relay was not started", CallErrorReason.MISUSE)
        return self._listeners[0].port

    @property
    def url(self) -> str:
        """The address for clients on this machine."""
        host = self.config.host or "localhost"
        host = f"[{host}]" if ":" in host else host
        return f"{'ws' if self.config.tls is None else 'wss'}://{host}:{self.port}"

    def drain(self) -> None:
        """Admit no new client, and report that on `/healthz`; calls continue until `stop`."""
        self._admission.draining = True
        event("draining", seats=self._rooms.seats)

    async def drained(self) -> None:
        """Wait until all clients have left, but not longer than `drain_s`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.config.drain_s):
                while self._rooms.seats:
                    await asyncio.sleep(0.05)

    async def stop(self) -> None:
        """Close all connections (code 1012: clients reconnect by themselves) and stop listening."""
        if not self._listeners:
            return
        self._admission.draining = True
        for listener in self._listeners:
            listener.close()
        goodbye = serialize_control(Bye("the relay restarts", retry_s=0.1))
        connections = list(self._admission.connections)
        for connection in connections:
            connection.send_control(goodbye)
            connection.closing = True
        await asyncio.gather(*(c.close(CloseCode.RESTARTING, "the relay restarts") for c in connections))
        if self._ticker is not None:
            self._ticker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._ticker
        for listener in self._listeners:
            await listener.wait_closed()
        self._listeners.clear()
        await self._bus.close()
        self._caps.log_refused()
        event("stopped")

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    # -- one connection -------------------------------------------------------------------------------------

    async def serve(self, connection: ServerConnection) -> None:
        """Talk with one client until its connection ends; for transports, which open the connections."""
        seat: VoiceSeat | None = None
        code: int | None = None
        try:
            seat = await self._enter(connection)
            while True:
                self._take(connection, seat, await connection.receive())
                # A waiting message is received at once: let other clients have their turn between two of them.
                await asyncio.sleep(0)
        except Refused as refused:
            code = refused.code
            self.metrics.closed[code] += 1
            event("refused", logging.WARNING, address=connection.address, code=code, reason=refused.reason)
            self._vacate(connection, seat, code)
            await connection.close(refused.code, refused.reason)
        except ConnectionEnded as ended:
            code = ended.received if ended.received is not None else ended.sent
            if ended.sent is not None and not connection.closing:
                self.metrics.closed[ended.sent] += 1
        except Exception:
            failure("connection")
            code = CloseCode.INTERNAL_ERROR
            self.metrics.closed[code] += 1
            await connection.close(code, "the relay failed")
        finally:
            self.metrics.counts["packets_dropped"] += connection.take_dropped() + connection.unsent_packets
            self._vacate(connection, seat, code)

    async def _enter(self, connection: ServerConnection) -> VoiceSeat:
        try:
            async with asyncio.timeout(self.config.limits.hello_s):
                text = await connection.receive()
        except TimeoutError:
            raise Refused(CloseCode.TIMEOUT, "no hello in time") from None
        hello, bearer = self._login.read(connection, text)
        now_s = self._clock()
        found = self._rooms.resume(hello, connection, now_s)
        if found is None:
            found = await self._join(connection, hello, self._login.check(hello, bearer))
        seat, welcome, effects = found
        connection.admitted()
        connection.send_control(serialize_control(welcome))
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

    async def _join(
        self, connection: ServerConnection, hello: Hello, grant: Grant
    ) -> tuple[VoiceSeat, Welcome, Effects[ServerConnection]]:
        room = hello.room
        self._entering[room] += 1
        try:
            elsewhere = await self._bus.enter(room)
            self._apply(self._rooms.admit(hello, elsewhere))  # a full room uses up no token
            if grant.token_id is not None:
                await self._bus.use_token(grant.token_id, grant.expires_s)
                elsewhere = await self._bus.enter(room)  # others may have come meanwhile
                self._apply(self._rooms.admit(hello, elsewhere))
            return self._rooms.join(hello, connection, self._clock(), elsewhere)
        finally:
            self._entering[room] -= 1
            self._leave_bus(room)

    def _leave_bus(self, room: str) -> None:
        """Leave a room on the bus if no client here is in it or about to enter."""
        if not self._entering[room]:
            del self._entering[room]
            if room not in self._rooms.rooms:
                self._bus.leave(room)

    def _take(self, connection: ServerConnection, seat: VoiceSeat, message: str | bytes) -> None:
        if seat.peer is not connection:
            return  # replaced: what is still in the pipe does not count
        if isinstance(message, bytes):
            self._fan_out(seat, message, ordered=connection.ordered)
            return
        try:
            control = parse_control(message)
        except PacketError as error:
            raise Refused(CloseCode.BAD_MESSAGE, "not a control message") from error
        self._apply(self._rooms.control(seat, control, self._clock()))
        if isinstance(control, Bye):
            event("leave", room=seat.room.name, seat=seat.number, code=int(CloseCode.NORMAL))

    def _fan_out(self, seat: VoiceSeat, data: bytes, *, ordered: bool) -> None:
        begin_s = self._clock()
        counts = self.metrics.counts
        checked = self._rooms.packet(seat, data, begin_s, ordered=ordered)
        counts["packets_in"] += 1
        counts["bytes_in"] += len(data)
        if isinstance(checked, str):
            counts[checked] += 1
            return
        frames, packet = checked
        counts["frames_in"] += frames
        self._deliver(seat.room, seat, seat.number, frames, packet)
        self._bus.publish(seat.room.name, packet)
        self.metrics.fanout(self._clock() - begin_s)

    def _deliver(
        self, room: Room[ServerConnection], speaker: VoiceSeat | None, number: int, frames: int, packet: bytes
    ) -> None:
        """Send a packet to the listeners here."""
        copies: dict[int | None, bytes] = {None: packet}
        sent = size = 0
        for listener in room.listeners:
            if listener is speaker or listener.peer is None:
                continue
            layers = listener.max_codebooks
            copy = copies.get(layers)
            if copy is None:
                assert layers is not None  # None is there
                copy = copies[layers] = cut_packet(packet, layers)
            listener.peer.send_packet(number, frames, copy)
            sent += 1
            size += len(copy)
        counts = self.metrics.counts
        counts["packets_out"] += sent
        counts["bytes_out"] += size

    def _vacate(self, connection: ServerConnection, seat: VoiceSeat | None, code: int | None) -> None:
        """The connection is over: free its seat, or keep it for a client that may come back."""
        if seat is None or seat.peer is not connection:
            return
        if code in FINAL_CODES or code in _CLEAN_CODES:
            self._apply(self._rooms.leave(seat))
        else:
            self._rooms.lose(seat, self._clock())
        event("leave", room=seat.room.name, seat=seat.number, code=code)

    # -- what the bus brings ----------------------------------------------------------------------------------

    def on_packet(self, room: str, packet: bytes) -> None:
        """A speaker on another relay sent a packet."""
        here = self._rooms.rooms.get(room)
        found = None if here is None else self._rooms.from_elsewhere(here, packet, self._clock())
        if here is None or found is None:
            self.metrics.counts["packets_unheard"] += 1
            return
        self._deliver(here, None, *found, packet)

    def on_elsewhere(self, room: str, elsewhere: Elsewhere) -> None:
        """Speakers came or went on other relays."""
        here = self._rooms.rooms.get(room)
        if here is not None:
            self._apply(self._rooms.settle(here, elsewhere))

    def on_report(self, room: str, report: Report) -> None:
        """A listener on another relay reports on a speaker of this one."""
        here = self._rooms.rooms.get(room)
        if here is not None:
            self._apply(self._rooms.report(here, report))

    # -- doing what the protocol says -----------------------------------------------------------------------

    def _apply(self, effects: Effects[ServerConnection]) -> None:
        texts: dict[int, str] = {}
        for seat, message in effects.notices:
            if seat.peer is None:
                continue
            # There are as many reports a second as listeners, and the next one says as much as the last.
            spare = isinstance(message, Report)
            text = texts.get(id(message))  # one notice goes to many listeners as the same object
            if text is None:
                text = texts[id(message)] = serialize_control(message)
            if not seat.peer.send_control(text, spare=spare) and not spare:
                self._close(seat.peer, Refused(CloseCode.STALLED, "too many messages unread"))
        for peer, refused in effects.closes:
            self._close(peer, refused)
        for room, report in effects.reports:
            self._bus.report(room.name, report)
        for room in effects.announcements:
            self._bus.announce(room.name, room.format, frozenset(seat.number for seat in room.speakers()))
            self._leave_bus(room.name)

    def _close(self, connection: ServerConnection, refused: Refused) -> None:
        if connection.closing:
            return
        connection.closing = True
        self.metrics.closed[refused.code] += 1
        event("closed", address=connection.address, code=int(refused.code), reason=refused.reason)
        self._spawn(connection.close(refused.code, refused.reason))

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
                # An error of one seat must not stop the sweep.
                failure("tick")

    def _stood_still(self, seconds: float) -> None:
        """The process did not run for this long: that time counts for no timeout."""
        self.metrics.counts["stalls"] += 1
        event("stalled", logging.WARNING, seconds=round(seconds, 3))
        self._rooms.stood_still(seconds, self._clock())
        loop_s = asyncio.get_running_loop().time()
        for connection in self._admission.connections:
            connection.stood_still(seconds, loop_s)

    def _sweep(self, loop_s: float) -> None:
        """Close connections that have been idle, stalled, or closing for too long."""
        self._caps.log_refused()
        self._apply(self._rooms.tick(self._clock()))
        for connection in list(self._admission.connections):
            self.metrics.counts["packets_dropped"] += connection.take_dropped()
            if connection.is_overdue(loop_s):
                connection.abort()
            elif connection.stalled_s(loop_s) >= self.config.limits.stall_s:
                self.metrics.counts["evictions"] += not connection.closing
                self._close(connection, Refused(CloseCode.STALLED, "does not read what it is sent"))
