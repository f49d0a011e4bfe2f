"""A client's connection to a relay that mends itself. No sound in here: packets and control messages.

Sending never waits: what the network does not take is dropped, oldest first, because voice that comes late is
of no use and would only delay what follows.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from websockets.exceptions import ConnectionClosed

from streaming_encodec.client.explain import explain, is_not_allowed, is_transient
from streaming_encodec.client.token_source import TokenSource, fetch_token
from streaming_encodec.errors import CallError, CallErrorReason, PacketError
from streaming_encodec.transport.close_codes import FINAL_CODES
from streaming_encodec.transport.limits import Bucket
from streaming_encodec.transport.logs import event
from streaming_encodec.transport.websocket.client import SeatConnection
from streaming_encodec.transport.websocket.dial import DIAL_ERRORS, OPEN_S, RelayAddress
from streaming_encodec.transport.websocket.server import limit_unsent
from streaming_encodec.wire.control import (
    Bye,
    ControlMessage,
    Layers,
    parse_control,
    serialize_control,
)
from streaming_encodec.wire.hello import Hello, Welcome

_QUEUE_PACKETS = 20
_QUEUE_CONTROLS = 32
_SPEED = 1.1
_BURST_S = 2.0
"""Frames a second, as a multiple of the frame rate, and at once: within what relays take of a speaker
(`RelayLimits.speed`, `burst_s`), with a margin for packets that the network brings closer together."""
_FIRST_DELAY_S = 0.05
_LONGEST_DELAY_S = 1.2
"""Back within two seconds after the relay is, with the time a handshake takes."""


@dataclass(slots=True)
class LinkCounts:
    """What happened to the connection so far."""

    connects: int = 0
    resumes: int = 0
    packets_sent: int = 0
    bytes_sent: int = 0
    packets_dropped: int = 0
    """Packets that the network did not take in time, those of an outage included, and those handed over too fast."""


def reconnect_delay_s(attempt: int, chance: float) -> float:
    """How long to wait before an attempt (0, 1, …); `chance` in 0..1 spreads a crowd over time."""
    longest = min(_LONGEST_DELAY_S, _FIRST_DELAY_S * 2.0 ** min(attempt, 10))
    return longest * (0.5 + 0.5 * chance)


class Link:
    """One seat in one room, through as many connections as it takes.

    Args:
        url: `ws://host:port` or `wss://…`. tls: see `RelayAddress`.
        hello: who comes; its token and resume fields are filled in here.
        on_packet: called with each packet. on_control: with each control message, the welcomes among them.
        give_up_s: after an outage of so long the call is over; None tries for ever.

    Raises:
        ConfigError: the address is none.
    """

    def __init__(
        self,
        url: str,
        hello: Hello,
        token: TokenSource | None,
        *,
        on_packet: Callable[[bytes], None],
        on_control: Callable[[ControlMessage], None],
        tls: ssl.SSLContext | None = None,
        give_up_s: float | None = 120.0,
        chance: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.url = url
        self.counts = LinkCounts()
        self.welcome: Welcome | None = None
        self.connected = False
        self._hello = hello
        self._token = token
        self._on_packet = on_packet
        self._on_control = on_control
        self._address = RelayAddress(url, tls)
        self._give_up_s = give_up_s
        self._chance = chance
        self._clock = clock
        rate = 1 / hello.format.frame_seconds
        self._frames = Bucket(_SPEED * rate, _BURST_S * rate, clock())
        self._socket: SeatConnection | None = None
        self._controls: deque[str] = deque(maxlen=_QUEUE_CONTROLS)
        self._packets: deque[bytes] = deque()
        self._wake = asyncio.Event()
        self._pumping = False
        self._task: asyncio.Task[None] | None = None
        self._failure: CallError | None = None
        self._leaving = False
        self._over = asyncio.Event()

    # -- life -----------------------------------------------------------------------------------------------

    async def open(self) -> Welcome:
        """Connect for the first time. Raises CallError where that fails, with what to do about it."""
        try:
            socket, welcome = await self._connect(await fetch_token(self._token, OPEN_S))
        except (*DIAL_ERRORS, ConnectionClosed) as error:
            raise await self._address.explain(error) from error
        self._task = asyncio.create_task(self._run(socket))
        return welcome

    async def close(self) -> None:
        """Leave the room for good, after what waits was sent (for a second at most)."""
        if self._task is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                while self.connected and (self._packets or self._controls):
                    await asyncio.sleep(0.005)
        self._leaving = True
        if self._socket is not None and self.connected:
            with contextlib.suppress(ConnectionClosed, TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._socket.send(serialize_control(Bye("hung up")))
                    await self._socket.close()
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._end(None)

    @property
    def over(self) -> bool:
        """Whether the call has ended, for whatever cause."""
        return self._over.is_set()

    @property
    def round_trip_s(self) -> float:
        """A ping to the relay and back, lately; 0 before the first, some seconds after connecting."""
        return 0.0 if self._socket is None else self._socket.latency

    async def wait_over(self) -> None:
        """Wait until the call has ended."""
        await self._over.wait()

    def check(self) -> None:
        """Raise CallError if the call was ended by the relay or the network."""
        if self._failure is not None:
            raise self._failure

    # -- sending --------------------------------------------------------------------------------------------

    def send_packet(self, data: bytes) -> None:
        """Queue a packet; during an outage it is lost, as it would be late.

        So is one that comes too fast for the relay, which would end the connection.
        """
        frames = 1 + (data[2] & 7)  # see `wire.header`
        if not self.connected or not self._frames.take(frames, self._clock()):
            self.counts.packets_dropped += 1
            return
        if self._socket is not None and not self._pumping and not self._packets and self._socket.offer(data):
            self._count_sent(data)
            return
        self._packets.append(data)
        while len(self._packets) > _QUEUE_PACKETS:
            self._packets.popleft()
            self.counts.packets_dropped += 1
        self._wake.set()

    def send_packets(self, packets: list[bytes]) -> None:
        """Send or queue these."""
        for data in packets:
            self.send_packet(data)

    def set_layers(self, max_codebooks: int) -> None:
        """Have the relay cut what is heard to so many codebooks, also after an outage."""
        self._hello = replace(self._hello, max_codebooks=max_codebooks)
        self.send_control(Layers(max_codebooks))

    def send_control(self, message: ControlMessage) -> None:
        """Queue a control message; during an outage it is forgotten."""
        if self.connected:
            self._controls.append(serialize_control(message))
            self._wake.set()

    # -- inside ---------------------------------------------------------------------------------------------

    async def _connect(self, token: str | None) -> tuple[SeatConnection, Welcome]:
        socket = await self._address.connect(token)
        limit_unsent(socket.transport.get_extra_info("socket"))
        try:
            async with asyncio.timeout(OPEN_S):
                resume = self.welcome.resume if self.welcome is not None else None
                await socket.send(serialize_control(replace(self._hello, resume=resume)))
                welcome = parse_control(await socket.recv())
            if not isinstance(welcome, Welcome):
                raise PacketError("the relay's first message is a welcome")
        except PacketError as error:
            await socket.close()
            raise CallError(f"{self.url} is no relay of this kind: {error}", CallErrorReason.NOT_A_RELAY) from error
        except BaseException:
            socket.transport.abort()
            raise
        self._socket, self.welcome, self.connected = socket, welcome, True
        self.counts.connects += 1
        self.counts.resumes += welcome.resumed
        self._on_control(welcome)
        return socket, welcome

    async def _run(self, socket: SeatConnection) -> None:
        try:
            while True:
                await self._converse(socket)
                again = await self._reconnect()
                if again is None:
                    return
                socket = again
        except CallError as error:
            self._end(error)
        except Exception as error:
            self._end(CallError(f"the connection to {self.url} failed: {error}", CallErrorReason.LOST))
            raise

    async def _converse(self, socket: SeatConnection) -> None:
        """Pass messages until the connection ends. Raises CallError if coming again is no use."""
        self._pumping = False
        sender = asyncio.create_task(self._pump(socket))
        try:
            while True:
                message = await socket.recv()
                if isinstance(message, bytes):
                    self._on_packet(message)
                    continue
                try:
                    control = parse_control(message)
                except PacketError:
                    continue  # a newer relay may say more than this client knows
                self._on_control(control)
        except ConnectionClosed as closed:
            if closed.rcvd is not None and closed.rcvd.code in FINAL_CODES:
                raise explain(self.url, closed) from closed
            event("connection lost", code=closed.rcvd.code if closed.rcvd is not None else None)
        finally:
            self.connected = False
            self.counts.packets_dropped += len(self._packets)
            self._packets.clear()
            self._controls.clear()
            sender.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sender
            socket.transport.abort()

    async def _pump(self, socket: SeatConnection) -> None:
        assert self.welcome is not None  # set by `_connect`
        heartbeat_s = self.welcome.heartbeat_s
        with contextlib.suppress(ConnectionClosed):
            while True:
                try:
                    async with asyncio.timeout(heartbeat_s):
                        await self._wake.wait()
                except TimeoutError:
                    if self._hello.role != "subscribe":  # a silent speaker shows that it lives
                        layers = self._hello.max_codebooks or self._hello.format.max_codebooks
                        await socket.send(serialize_control(Layers(layers)))
                self._wake.clear()
                self._pumping = True  # what is being sent goes before what comes meanwhile
                while self._controls or self._packets:
                    if self._controls:
                        await socket.send(self._controls.popleft())
                    else:
                        data = self._packets.popleft()
                        await socket.send(data)
                        self._count_sent(data)
                self._pumping = False

    def _count_sent(self, data: bytes) -> None:
        self.counts.packets_sent += 1
        self.counts.bytes_sent += len(data)

    async def _reconnect(self) -> SeatConnection | None:
        loop = asyncio.get_running_loop()
        lost_s = loop.time()
        attempt = 0
        while True:
            await asyncio.sleep(reconnect_delay_s(attempt, self._chance()))
            attempt += 1
            token, no_token = None, None
            try:
                token = await fetch_token(self._token, OPEN_S)
            except CallError as error:  # the ticket may do without; if not, there may be one the next time
                no_token = error
            try:
                return (await self._connect(token))[0]
            except (*DIAL_ERRORS, ConnectionClosed) as error:
                if not is_transient(error) and (no_token is None or not is_not_allowed(error)):
                    raise await self._address.explain(error) from error
                if self._give_up_s is not None and loop.time() - lost_s > self._give_up_s:
                    raise CallError(
                        f"no connection to {self.url} for {self._give_up_s:g} s: the call is over", CallErrorReason.LOST
                    ) from error

    def _end(self, failure: CallError | None) -> None:
        self.connected = False
        # The relay answers a goodbye by ending the connection: no failure of whoever said it.
        self._failure = self._failure or (None if self._leaving else failure)
        self._over.set()
