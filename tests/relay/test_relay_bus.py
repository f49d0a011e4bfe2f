"""Relays that share rooms over a bus in memory: what each must tell the others, and what it makes of what they tell."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest
from relay_kit import FORMAT, KEY, OTHER, FakeClock, closed_with, counted, guest, heard, seated, told, until, voice

from streaming_encodec.errors import ConfigError
from streaming_encodec.relay.bus.base import NUMBERS_PER_NODE, Bus, BusEvents, Elsewhere, Reading
from streaming_encodec.relay.config import RelayConfig
from streaming_encodec.relay.limits import RelayLimits
from streaming_encodec.relay.relay import Relay
from streaming_encodec.transport.close_codes import CloseCode, not_allowed
from streaming_encodec.wire.control import Joined, Left, Report, serialize_control
from streaming_encodec.wire.header import read_header
from streaming_encodec.wire.hello import Hello
from streaming_encodec.wire.packet import StreamFormat


class Hub:
    """What the members of a cluster know together."""

    def __init__(self) -> None:
        self.members: list[MemoryBus] = []
        self.used: set[str] = set()


class MemoryBus:
    """A `Bus` whose other members are in this process; each message takes a turn of the event loop."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        node = len(hub.members)
        hub.members.append(self)
        self.numbers = range(node * NUMBERS_PER_NODE + 1, (node + 1) * NUMBERS_PER_NODE)
        self.rooms: set[str] = set()
        self.speakers: dict[str, tuple[StreamFormat, frozenset[int], Mapping[int, str]]] = {}
        self.ticket_prefix = f"{node}."
        self.linger_s = 0.0
        self._events: BusEvents

    async def open(self, events: BusEvents) -> None:
        self._events = events

    async def close(self) -> None:
        for room in list(self.speakers):
            self.announce(room, FORMAT, frozenset(), {})
        self._hub.members.remove(self)

    async def enter(self, room: str) -> Elsewhere:
        if room not in self.rooms:
            self.rooms.add(room)
            await asyncio.sleep(0.01)
        return self._elsewhere(room)

    def leave(self, room: str) -> None:
        self.rooms.discard(room)

    def announce(
        self, room: str, stream_format: StreamFormat, speakers: frozenset[int], names: Mapping[int, str]
    ) -> None:
        self.speakers[room] = (stream_format, speakers, names)
        for other in self._others(room):
            asyncio.get_running_loop().call_soon(
                lambda other=other: other._events.on_elsewhere(room, other._elsewhere(room))
            )

    def publish(self, room: str, packet: bytes) -> None:
        for other in self._others(room):
            asyncio.get_running_loop().call_soon(other._events.on_packet, room, packet)

    def report(self, room: str, report: Report) -> None:
        for other in self._others(room):
            if report.sender in other.numbers:
                asyncio.get_running_loop().call_soon(other._events.on_report, room, report)

    async def use_token(self, token_id: str, expires_s: float) -> None:
        await asyncio.sleep(0.001)
        if token_id in self._hub.used:
            raise not_allowed()
        self._hub.used.add(token_id)

    async def redeem(self, ticket: str, hello: Hello) -> bool:
        await asyncio.sleep(0.001)
        return any(other is not self and other._events.on_ticket(hello) for other in self._hub.members)

    def readings(self) -> tuple[Reading, ...]:
        return (Reading("cluster_nodes", "Other relays.", len(self._hub.members) - 1),)

    def _tell_elsewhere(self, room: str) -> None:
        self._events.on_elsewhere(room, self._elsewhere(room))

    def _others(self, room: str) -> list[MemoryBus]:
        return [other for other in self._hub.members if other is not self and room in other.rooms]

    def _elsewhere(self, room: str) -> Elsewhere:
        known = [m.speakers[room] for m in self._hub.members if m is not self and room in m.speakers]
        known = [entry for entry in known if entry[1]]
        speakers = frozenset(number for _, numbers, _ in known for number in numbers)
        names = {number: name for _, _, named in known for number, name in named.items()}
        return Elsewhere(speakers, known[0][0] if known else None, names)


@asynccontextmanager
async def cluster(count: int = 2, clock: FakeClock | None = None, **config: object) -> AsyncIterator[list[Relay]]:
    hub = Hub()
    clocks = {} if clock is None else {"clock": clock, "wall_clock": clock}
    relays = [
        Relay(RelayConfig(port=0, **config), bus=MemoryBus(hub), **clocks)  # type: ignore[arg-type]
        for _ in range(count)
    ]
    try:
        for relay in relays:
            await relay.start()
        yield relays
    finally:
        for relay in relays:
            await relay.stop()


def bus_of(relay: Relay) -> MemoryBus:
    bus: Bus = relay._bus
    assert isinstance(bus, MemoryBus)
    return bus


async def test_a_room_is_one_on_two_relays() -> None:
    async with cluster() as (one, two), seated(one) as (anna, annas), seated(two) as (bert, berts):
        assert annas.sender == 1
        assert berts.sender == NUMBERS_PER_NODE + 1
        assert berts.speakers == (annas.sender,)
        assert await told(anna) == Joined(berts.sender)
        for speaker, listener, number in ((anna, bert, annas.sender), (bert, anna, berts.sender)):
            for sequence in range(3):
                await speaker.send(voice(sequence))
                head = read_header(await heard(listener))
                assert (head.sender, head.sequence) == (number, sequence)
        await bert.send(serialize_control(Report(annas.sender, 0.1, 0.1, 1.0, 5.0, 40.0)))
        report = await told(anna)
        assert isinstance(report, Report)
        assert (report.sender, report.listener) == (annas.sender, berts.sender)
        await bert.close()
        assert await told(anna) == Left(berts.sender)
        await until(lambda: not bus_of(two).rooms, "nobody on the second relay listens any more")


async def test_nobody_hears_another_room_or_himself() -> None:
    async with cluster() as (one, two), seated(one) as (anna, _), seated(two, room="other") as (bert, _), seated(two):
        await told(anna)
        await anna.send(voice(0))
        await until(lambda: counted(two, "packets_out") == 1, "it went to the same room there")
        assert counted(one, "packets_out") == 0
        await bert.send(voice(7))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anna.recv(), 0.1)


async def test_the_model_of_a_room_is_one_on_all_relays() -> None:
    async with cluster() as (one, two), seated(one), guest(two) as other, seated(two, "subscribe") as (ear, _):
        await other.send(serialize_control(Hello("r", "both", OTHER)))
        assert await closed_with(other) == CloseCode.WRONG_MODEL
        # Both settled one at the same moment, and the other relay's came first.
        two._calls.on_elsewhere("r", Elsewhere(frozenset({1}), OTHER))
        assert await closed_with(ear) == CloseCode.WRONG_MODEL


async def test_a_token_is_good_once_on_all_relays() -> None:
    async with cluster(token_key=KEY, clock=FakeClock()) as relays:
        tokens = [KEY.sign("r", now_s=1000.0, subscribe=False) for _ in range(8)]
        hellos = [(relay, token) for token in tokens for relay in relays for _ in range(2)]
        codes = await asyncio.gather(*(_try(relay, token) for relay, token in hellos))
        assert sorted(codes) == [0] * len(tokens) + [CloseCode.NOT_ALLOWED] * 3 * len(tokens)


async def _try(relay: Relay, token: str) -> int:
    async with guest(relay) as socket:
        await socket.send(serialize_control(Hello("r", "publish", FORMAT, token=token)))
        if isinstance(await asyncio.wait_for(_first(socket), 5), str):
            return 0
        return socket.close_code or -1


async def _first(socket: object) -> str | bytes | None:
    from websockets.exceptions import ConnectionClosed

    try:
        return await socket.recv()  # type: ignore[attr-defined, no-any-return]
    except ConnectionClosed:
        return None


async def test_speakers_elsewhere_count_and_a_relay_that_goes_takes_its_speakers_along() -> None:
    async with (
        cluster(limits=RelayLimits(max_speakers=1)) as (one, two),
        seated(one, "subscribe") as (ear, _),
        seated(two) as (_, welcome),
        guest(one) as late,
    ):
        assert await told(ear) == Joined(welcome.sender)
        await late.send(serialize_control(Hello("r", "publish", FORMAT)))
        assert await closed_with(late) == CloseCode.TRY_LATER
        await two.stop()
        assert await told(ear) == Left(welcome.sender)


async def test_what_the_bus_brings_is_checked() -> None:
    clock = FakeClock()
    async with (
        cluster(clock=clock) as (one, two),
        seated(one, "subscribe") as (ear, _),
        seated(two) as (mouth, welcome),
    ):
        await told(ear)
        for packet in (b"", bytes(12), voice(0, sender=1), voice(0, sender=welcome.sender + 1)):
            one._calls.on_packet("r", packet)
        one._calls.on_packet("nowhere", voice(0, sender=welcome.sender))
        assert counted(one, "packets_unheard") == 5
        await mouth.send(voice(0))
        await heard(ear)
        clock.now_s += 3.0
        one._calls.on_packet("r", voice(75, sender=welcome.sender))  # a bus that was away gives what it kept
        assert counted(one, "packets_unheard") == 6
        await mouth.send(voice(225))
        assert read_header(await heard(ear)).sequence == 225


def test_more_participants_than_numbers_are_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="1023 participants"):
        Relay(RelayConfig(limits=RelayLimits(max_peers=1024)), bus=MemoryBus(Hub()))
