"""The relay: listens, and watches over its connections. It forwards packets and never decodes one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import socket
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from streaming_encodec.errors import CallError, CallErrorReason
from streaming_encodec.relay.admission import Admission
from streaming_encodec.relay.bus.base import Bus
from streaming_encodec.relay.bus.local import LocalBus
from streaming_encodec.relay.calls import Calls
from streaming_encodec.relay.config import RelayConfig
from streaming_encodec.relay.listen import ConnectionCaps
from streaming_encodec.relay.login import Login
from streaming_encodec.relay.metrics import Metrics
from streaming_encodec.relay.rooms import RoomTable
from streaming_encodec.transport.base import ServerConnection
from streaming_encodec.transport.close_codes import CloseCode, Refused
from streaming_encodec.transport.limits import OUTAGE_S
from streaming_encodec.transport.logs import event, failure
from streaming_encodec.transport.websocket.server import WebSocketListener
from streaming_encodec.wire.control import Bye, serialize_control

if TYPE_CHECKING:  # loaded where datagrams are offered
    from streaming_encodec.transport.webtransport.server import WebTransportListener

_TICK_S = 0.5
_PORTS = 16
"""Free TCP ports that are tried until the same number is free for UDP too."""


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
        self._clock, self._wall_clock = clock, wall_clock
        self._bus: Bus = bus or LocalBus(wall_clock, config.limits.max_used_tokens)
        self.metrics = Metrics(self._bus.readings)
        self._rooms: RoomTable[ServerConnection] = RoomTable(
            config.limits,
            config.rooms,
            new_resumption_token=lambda: self._bus.ticket_prefix + secrets.token_urlsafe(18),
            numbers=self._bus.numbers,
        )
        self._calls = Calls(self._rooms, self._bus, Login(config, wall_clock), self.metrics, config.limits, clock)
        self._caps = ConnectionCaps(config.limits, self.metrics, clock)
        self._admission = Admission(
            config,
            self.metrics,
            close=self._calls.close,
            refused=self._caps.refused,
            gauges=lambda: {
                "rooms": len(self._rooms.rooms),
                "seats": self._rooms.participants,
                "sessions_open": len(self._calls.datagrams),
            },
            serve=self._calls.serve,
            clock=clock,
        )
        self._listeners: list[WebSocketListener] = []  # one for each address
        self._session_listeners: list[WebTransportListener] = []
        self._ticker: asyncio.Task[None] | None = None

    # -- life -----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start to listen. Raises CallError if the address is not available, or the bus cannot be reached."""
        config = self.config
        await self._bus.open(self._calls)
        try:
            for sock in await self._listen():
                listener = await WebSocketListener.listen(
                    sock, self._admission, config.limits, tls=config.tls, clock=self._clock
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

    async def _listen(self) -> list[socket.socket]:
        """Sockets for connections, and sessions at the same addresses and ports. Raises OSError."""
        config = self.config
        for attempt in range(_PORTS):
            sockets = await self._caps.listen(config.host, config.port)
            if not config.datagrams:
                break
            try:
                await self._listen_for_sessions(sockets)
                break
            except OSError as error:
                for sock in sockets:
                    sock.close()
                self._close_sessions()
                if config.port or attempt == _PORTS - 1:
                    error.strerror = f"{error.strerror or error} (UDP; without datagram sessions it is not needed)"
                    raise
        return sockets

    async def _listen_for_sessions(self, sockets: list[socket.socket]) -> None:
        from streaming_encodec.transport.webtransport.server import WebTransportListener

        for sock in sockets:
            self._session_listeners.append(
                await WebTransportListener.listen(
                    self._calls.datagrams, self.config.limits, sock.family, sock.getsockname(), self._wall_clock
                )
            )
        self._calls.datagrams.begin(self._session_listeners[0], sockets[0].getsockname()[1])

    def _close_sessions(self) -> None:
        self._calls.datagrams.end()
        for listener in self._session_listeners:
            listener.close()
        self._session_listeners.clear()

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
        event("draining", participants=self._rooms.participants)

    async def drained(self) -> None:
        """Wait until all clients have left, but not longer than `drain_s`."""
        await self._empty_within(self.config.drain_s)

    async def _empty_within(self, limit_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while self._rooms.participants:
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
        self._close_sessions()
        await asyncio.gather(*(c.close(CloseCode.RESTARTING, "the relay restarts") for c in connections))
        # Those who go to another relay of the cluster bring it this one's resumption tokens.
        await self._empty_within(self._bus.linger_s)
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

    # -- time ------------------------------------------------------------------------------------------------

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
                # The sweep must go on whatever one participant did to it.
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
        self._calls.apply(self._rooms.tick(self._clock()))
        self._calls.tick()
        for listener in self._session_listeners:
            listener.tick()
        for connection in list(self._admission.connections):
            self.metrics.counts["packets_dropped"] += connection.take_dropped()
            if connection.is_overdue(loop_s):
                connection.abort()
            elif connection.stalled_s(loop_s) >= self.config.limits.stall_s:
                self.metrics.counts["evictions"] += not connection.closing
                self._calls.close(connection, Refused(CloseCode.STALLED, "does not read what it is sent"))
