"""A client's connection to a relay, which is restored when it breaks. It carries packets and control messages.

Sending never waits: what the network does not take is dropped, oldest first, because voice that comes late is
of no use and would only delay what follows.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from streaming_encodec.client.datagrams import DatagramWay
from streaming_encodec.client.entering import FINAL_REASONS, HELLO_S, THIS_RELAY, reconnect_delay_s, say_hello
from streaming_encodec.client.heartbeat import wait_for_silence
from streaming_encodec.client.token_source import TokenSource, fetch_token
from streaming_encodec.errors import CallError, CallErrorReason, PacketError
from streaming_encodec.transport.base import ClientConnection, ConnectionEnded, Dialer, PacketSession, Sent
from streaming_encodec.transport.close_codes import FINAL_CODES, CloseCode
from streaming_encodec.transport.failures import ended_error
from streaming_encodec.transport.limits import Bucket
from streaming_encodec.transport.logs import event
from streaming_encodec.wire.control import (
    AskDatagrams,
    Bye,
    ControlMessage,
    Layers,
    Left,
    parse_control,
    serialize_control,
)
from streaming_encodec.wire.header import ends
from streaming_encodec.wire.hello import DatagramOffer, Hello, Welcome

_SPEED = 1.1
_BURST_S = 2.0
"""Frames a second, as a multiple of the frame rate, and at once: within what relays take of a speaker
(`RelayLimits.speed`, `burst_s`), with a margin for packets that the network brings closer together."""
_GIVE_UP_S = 0.5
"""A connection that another one is to replace is given up after so much more silence: what it holds is old voice."""
_LOOK_S = 0.05
"""How often to look for a sign of life of a connection that another one is about to replace."""


@dataclass(slots=True)
class LinkCounts:
    """What happened to the connection so far."""

    connects: int = 0
    resumes: int = 0
    packets_sent: int = 0
    bytes_sent: int = 0
    datagrams_sent: int = 0
    """Of the packets sent, those that went over a datagram session and not over the connection."""
    datagrams_received: int = 0
    packets_dropped: int = 0
    """Packets that the network did not take in time, those of an outage included, and those handed over too fast."""


class Link:
    """One participant of one room, through as many connections as it takes.

    Args:
        dialers: the ways to the relays. The first one that takes this client is used; when it is gone, the next one.
        hello: this client; its token and resume fields are filled in here.
        on_packet: called with each packet. on_control: with each control message, the welcomes among them.
        give_up_s: after an outage of so long the call is over; None tries for ever.
        datagrams: open a datagram session where the relay offers one. Voice goes that way as long as it is answered.
    """

    def __init__(
        self,
        dialers: Dialer | Sequence[Dialer],
        hello: Hello,
        token: TokenSource | None,
        *,
        on_packet: Callable[[bytes], None],
        on_control: Callable[[ControlMessage], None],
        give_up_s: float | None = 120.0,
        datagrams: bool = False,
        chance: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counts = LinkCounts()
        self.welcome: Welcome | None = None
        self.connected = False
        self._dialers = tuple(dialers) if isinstance(dialers, Sequence) else (dialers,)
        self._hello = hello
        self._token = token
        self._on_packet = on_packet
        self._on_control = on_control
        self._give_up_s = give_up_s
        self._chance = chance
        self._clock = clock
        rate = 1 / hello.format.frame_seconds
        self._frames = Bucket(_SPEED * rate, _BURST_S * rate, clock())
        self._connection: ClientConnection | None = None
        self._next: asyncio.Task[ClientConnection] | None = None  # opens the next connection
        self._moving = False  # a hello has asked to move to it, and no welcome came yet
        self._datagrams = DatagramWay(self._ask_datagrams, self._on_datagram, chance) if datagrams else None
        self._heard_ordered = True
        self._task: asyncio.Task[None] | None = None
        self._failure: CallError | None = None
        self._leaving = False
        self._over = asyncio.Event()

    # -- life -----------------------------------------------------------------------------------------------

    async def open(self) -> Welcome:
        """Connect for the first time. Raises CallError where that fails, with what to do about it."""
        try:
            connection, welcome = await self._connect(await fetch_token(self._token, HELLO_S))
        except CallError as error:
            raise await self._dialers[0].diagnose(error) from error.__cause__
        self._task = asyncio.create_task(self._run(connection))
        return welcome

    async def close(self) -> None:
        """Leave the room for good, after what waits was sent (for a second at most)."""
        if self._task is None:
            return
        connection = self._connection
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                while self.connected and connection is not None and connection.unsent_packets:
                    await asyncio.sleep(0.005)
        self._leaving = True
        if self._datagrams is not None:
            await self._datagrams.close()
        if connection is not None and self.connected:
            connection.send_control(serialize_control(Bye("hung up")))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await connection.close()
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._end(None)

    @property
    def url(self) -> str:
        """Of the relay that is used, or tried."""
        return self._dialers[0].url

    @property
    def over(self) -> bool:
        """Whether the call has ended, for whatever cause."""
        return self._over.is_set()

    @property
    def sends_ordered(self) -> bool:
        """Whether packets that are sent now arrive at the relay in order, and all of them."""
        session = self._certain_session
        if session is not None:
            return session.ordered
        return self._connection is None or self._connection.ordered

    @property
    def hears_ordered(self) -> bool:
        """Whether the last packet that came from the relay came by a way that keeps order."""
        return self._heard_ordered

    @property
    def round_trip_s(self) -> float:
        """A message to the relay and its answer, lately; 0 in the first seconds."""
        session = self._certain_session
        if session is not None and session.round_trip_s:
            return session.round_trip_s
        return 0.0 if self._connection is None else self._connection.round_trip_s

    @property
    def _certain_session(self) -> PacketSession | None:
        """The datagram session, while it is answered."""
        session = None if self._datagrams is None else self._datagrams.session
        return session if session is not None and session.is_certain else None

    async def wait_over(self) -> None:
        """Wait until the call has ended."""
        await self._over.wait()

    def check(self) -> None:
        """Raise CallError if the call was ended by the relay or the network."""
        if self._failure is not None:
            raise self._failure

    # -- sending --------------------------------------------------------------------------------------------

    def send_packet(self, data: bytes) -> None:
        """Send a packet, or queue it; during an outage it is lost, as it would be late.

        So is one that comes too fast for the relay, which would end the connection.
        """
        frames = 1 + (data[2] & 7)  # see `wire.header`
        counts, way = self.counts, self._datagrams
        session = None if way is None else way.session
        if (not self.connected and session is None) or not self._frames.take(frames, self._clock()):
            counts.packets_dropped += 1
            return
        counts.packets_sent += 1
        counts.bytes_sent += len(data)
        sent = Sent.NO
        if session is not None:
            sent = session.send_packet(0, frames, data)
            self._count_dropped(session.take_dropped())
            counts.datagrams_sent += sent is Sent.YES
            if sent is Sent.YES and not ends(data):
                return
        if self._connection is not None and self.connected:
            # The end goes both ways: without it, listeners would make up what is no more said.
            self._connection.send_packet(0, frames, data, spare=sent is Sent.PERHAPS and not ends(data))
            self._count_dropped(self._connection.take_dropped())

    def send_packets(self, packets: list[bytes]) -> None:
        """Send or queue these."""
        for data in packets:
            self.send_packet(data)

    def set_layers(self, max_codebooks: int) -> None:
        """Have the relay cut what is heard to so many codebooks, also after an outage."""
        self._hello = replace(self._hello, max_codebooks=max_codebooks)
        self.send_control(Layers(max_codebooks))

    def send_control(self, message: ControlMessage) -> None:
        """Send a control message; during an outage, or where many wait already, it is forgotten."""
        if self._connection is not None and self.connected:
            self._connection.send_control(serialize_control(message), spare=True)

    # -- inside ---------------------------------------------------------------------------------------------

    async def _connect(self, token: str | None) -> tuple[ClientConnection, Welcome]:
        """Connect to the first relay that takes this client, from the present one on. Raises the first one's error."""
        failure: CallError | None = None
        for _ in self._dialers:
            try:
                return await self._enter(self._dialers[0], token)
            except CallError as error:
                if error.reason in FINAL_REASONS - THIS_RELAY:
                    raise
                failure = failure or error
                self._dialers = (*self._dialers[1:], self._dialers[0])
        assert failure is not None  # there is a dialer
        raise failure

    async def _enter(self, dialer: Dialer, token: str | None) -> tuple[ClientConnection, Welcome]:
        connection = await dialer.connect(token)
        self._moving = True
        resume = self.welcome.resume if self.welcome is not None else None
        welcome = await say_hello(connection, self.url, replace(self._hello, resume=resume))
        self._connection, self.welcome, self.connected, self._moving = connection, welcome, True, False
        self.counts.connects += 1
        self.counts.resumes += welcome.resumed
        if self._datagrams is not None:
            self._datagrams.offered(welcome.datagrams, connection.relay_address, fresh=not welcome.resumed)
        self._on_control(welcome)
        return connection, welcome

    async def _run(self, connection: ClientConnection) -> None:
        try:
            while True:
                await self._converse(connection)
                connection = await self._open_next()
                self._next = None
        except CallError as error:
            self._end(error)
        except Exception as error:
            self._end(CallError(f"the connection to {self.url} failed: {error}", CallErrorReason.LOST))
            raise
        finally:
            self._cancel_next()

    async def _converse(self, connection: ClientConnection) -> None:
        """Pass messages until the connection ends, or another one took its place.

        Raises CallError if coming again is no use.
        """
        receive = asyncio.create_task(self._receive(connection))
        watch = asyncio.create_task(self._watch(connection))
        life = asyncio.create_task(self._show_life(connection))
        try:
            done, _ = await asyncio.wait({receive, watch}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            if self._connection is connection:
                self.connected = False
            self._count_dropped(connection.take_dropped() + connection.unsent_packets)
            for task in (receive, watch, life):
                task.cancel()
            connection.abort()

    async def _receive(self, connection: ClientConnection) -> None:
        try:
            while True:
                message = await connection.receive()
                if isinstance(message, bytes):
                    if not ends(message):  # that one comes this way too, whatever way the others take
                        self._heard_ordered = connection.ordered
                    self._on_packet(message)
                    continue
                try:
                    control = parse_control(message)
                except PacketError:
                    continue  # a newer relay may say more than this client knows
                if isinstance(control, DatagramOffer):
                    if self._datagrams is not None:
                        self._datagrams.offered(control, connection.relay_address)
                    continue
                self._on_control(control)
        except ConnectionEnded as ended:
            # Who moves to another connection is told on the old one that it did, perhaps before the welcome comes.
            moved = ended.received == CloseCode.REPLACED and (self._moving or self._connection is not connection)
            if ended.received in FINAL_CODES and not moved:
                raise ended_error(self.url, ended) from ended
            event("connection lost", code=ended.received)

    async def _watch(self, connection: ClientConnection) -> None:
        """Return when another connection takes the place of this one, from which nothing came any more.

        The other one is opened beside it: what comes here soon is heard, and ends the attempt. After that this one is
        given up.
        """
        loop = asyncio.get_running_loop()
        while True:
            asked_s = await wait_for_silence(connection, lambda: self._certain_session is not None)
            event("connection silent")
            self.connected = False
            attempt = self._open_next()
            until_s = loop.time() + _GIVE_UP_S
            while not attempt.done() and (self._moving or connection.heard_s <= asked_s):
                if loop.time() >= until_s:
                    return
                await asyncio.wait({attempt}, timeout=_LOOK_S)
            if attempt.done():
                attempt.result()
                return
            self._cancel_next()
            self.connected = True

    def _open_next(self) -> asyncio.Task[ClientConnection]:
        """The task that opens the next connection; it may have begun before the old one ended."""
        if self._next is None:
            self._next = asyncio.create_task(self._reconnect())
        return self._next

    def _cancel_next(self) -> None:
        attempt, self._next = self._next, None
        if attempt is not None and not attempt.cancel() and not attempt.cancelled() and attempt.exception() is None:
            attempt.result().abort()

    def _on_datagram(self, packet: bytes) -> None:
        self.counts.datagrams_received += 1
        if packet.startswith(b"{"):  # no packet begins so
            self._on_message(packet)
            return
        self._heard_ordered = False
        self._on_packet(packet)

    def _on_message(self, data: bytes) -> None:
        """A control message in a datagram: who has left. The connection, which may stand still, says the same."""
        with contextlib.suppress(UnicodeDecodeError, PacketError):
            control = parse_control(data.decode())
            if isinstance(control, Left):
                self._on_control(control)

    def _ask_datagrams(self) -> None:
        self.send_control(AskDatagrams())

    async def _show_life(self, connection: ClientConnection) -> None:
        """A silent speaker shows that it lives: the relay would disconnect it."""
        assert self.welcome is not None  # set by `_connect`
        while self._hello.role != "subscribe":
            await asyncio.sleep(self.welcome.heartbeat_s)
            layers = self._hello.max_codebooks or self._hello.format.max_codebooks
            connection.send_control(serialize_control(Layers(layers)), spare=True)

    def _count_dropped(self, packets: int) -> None:
        """Packets that were counted as sent were dropped before they left. Their lengths are much alike."""
        counts = self.counts
        counts.bytes_sent -= packets * counts.bytes_sent // max(1, counts.packets_sent)
        counts.packets_sent -= packets
        counts.packets_dropped += packets

    async def _reconnect(self) -> ClientConnection:
        loop = asyncio.get_running_loop()
        lost_s = loop.time()
        attempt = 0
        while True:
            await asyncio.sleep(reconnect_delay_s(attempt, self._chance()))
            attempt += 1
            token, no_token = None, None
            try:
                token = await fetch_token(self._token, HELLO_S)
            except CallError as error:  # the resumption token may do without; if not, there may be one the next time
                no_token = error
            try:
                return (await self._connect(token))[0]
            except CallError as error:
                refused = error.reason in FINAL_REASONS
                if refused and (no_token is None or error.reason is not CallErrorReason.NOT_ALLOWED):
                    raise
                if self._give_up_s is not None and loop.time() - lost_s > self._give_up_s:
                    why = f"no connection to {self.url} for {self._give_up_s:g} s: the call is over"
                    raise CallError(why, CallErrorReason.LOST) from error

    def _end(self, failure: CallError | None) -> None:
        self.connected = False
        # The relay answers `bye` by ending the connection: that is not a failure.
        self._failure = self._failure or (None if self._leaving else failure)
        self._over.set()
