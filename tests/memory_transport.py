"""A transport in memory: it loses, delays and reorders by a seed, on a clock that a test moves.

A `MemoryWire` is dialled like any relay; `pass_time` moves the clock and delivers what is due.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from itertools import count

from relay_kit import FakeClock
from websockets.datastructures import Headers

from streaming_encodec.errors import CallError
from streaming_encodec.relay.config import RelayConfig
from streaming_encodec.relay.relay import Relay
from streaming_encodec.transport.base import ConnectionEnded, Phase
from streaming_encodec.voice.network import Network, NetworkModel

TURNS = 20
"""Turns of the event loop after a delivery: more than any task here needs to act on it."""


class MemoryConnection:
    """One end: a `transport.base.ServerConnection`, at either side."""

    def __init__(self, wire: MemoryWire, token: str | None, seed: int) -> None:
        self._wire = wire
        self._packets = Network(wire.model, seed)
        self._controls = Network(NetworkModel(base_ms=wire.model.base_ms, ordered=True))
        self._inbox: asyncio.Queue[bytes | str | ConnectionEnded] = asyncio.Queue()
        self.peer = self
        self.ordered = self.reliable = wire.model.ordered
        self.address = "memory"
        self.path = "/"
        self.relay_address = None
        self.closing = False
        self.headers = Headers()
        if token is not None:
            self.headers["Authorization"] = f"Bearer {token}"
        self.is_open = True
        self.round_trip_s = 2 * wire.model.base_ms / 1000
        self.unsent_packets = 0

    @property
    def phase(self) -> Phase:
        return Phase.OPEN if self.is_open else Phase.CLOSING

    @property
    def heard_s(self) -> float:
        """Now: time here is not the event loop's, and no line is dead without a word."""
        return asyncio.get_running_loop().time()

    def probe(self) -> None:
        pass

    async def receive(self) -> bytes | str:
        message = await self._inbox.get()
        if isinstance(message, ConnectionEnded):
            self._inbox.put_nowait(message)
            raise message
        return message

    def send_packet(self, sender: int, frames: int, packet: bytes, *, spare: bool = False) -> None:
        for delivery in self._packets.send(packet, self._wire.clock()):
            self._wire.at(delivery.time_s, lambda data=packet: self.peer.arrive(data))

    def take_dropped(self) -> int:
        return 0

    def send_control(self, message: str, *, spare: bool = False) -> bool:
        (delivery,) = self._controls.send(b"", self._wire.clock())
        self._wire.at(delivery.time_s, lambda: self.peer.arrive(message))
        return True

    def arrive(self, message: bytes | str | ConnectionEnded) -> None:
        if self.is_open:
            self.is_open = not isinstance(message, ConnectionEnded)
            self._inbox.put_nowait(message)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        self.peer.arrive(ConnectionEnded(code, reason))
        self.arrive(ConnectionEnded())

    def abort(self) -> None:
        self.peer.arrive(ConnectionEnded())
        self.arrive(ConnectionEnded())

    def admitted(self) -> None:
        pass

    def stalled_s(self, now_s: float) -> float:
        return 0.0

    def stood_still(self, seconds: float, now_s: float) -> None:
        pass

    def is_overdue(self, now_s: float) -> bool:
        return False


class MemoryWire:
    """A relay's network: a `transport.base.Dialer`, and the time in which its packets move."""

    url = "memory:"

    def __init__(self, model: NetworkModel, *, seed: int = 0) -> None:
        self.model, self._seed = model, count(seed)
        self.clock = FakeClock()
        self.relay = Relay(RelayConfig(), self.clock, self.clock)
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._number = count()
        self._tasks: list[asyncio.Task[None]] = []
        self.connections: list[MemoryConnection] = []
        """The relay's ends."""

    def at(self, time_s: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._due, (time_s, next(self._number), act))

    async def connect(self, token: str | None = None) -> MemoryConnection:
        near, far = (MemoryConnection(self, token, next(self._seed)) for _ in range(2))
        near.peer, far.peer = far, near
        self.connections.append(far)
        self.relay._admission.opened(far)
        self._tasks.append(asyncio.create_task(self.relay._calls.serve(far)))
        return near

    async def diagnose(self, error: CallError) -> CallError:
        return error

    async def pass_time(self, seconds: float) -> None:
        """Move the clock, stopping at each arrival for all that follows from it."""
        until_s = self.clock.now_s + seconds
        await self._settle()
        while self._due and self._due[0][0] <= until_s:
            time_s, _, act = heapq.heappop(self._due)
            self.clock.now_s = max(self.clock.now_s, time_s)
            act()
            await self._settle()
        self.clock.now_s = until_s

    async def during(self, work: asyncio.Task[object]) -> None:
        """Let time pass until a task is done."""
        while not work.done():
            await self.pass_time(0.01)

    async def _settle(self) -> None:
        for _ in range(TURNS):
            await asyncio.sleep(0)
