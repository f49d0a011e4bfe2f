"""A client's connection: packets are written at once, or wait their turn, and none overtakes another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from memory_transport import MemoryConnection, MemoryWire
from relay_kit import FORMAT, FakeClock, running, until, voice

from streaming_encodec.client.link import Link
from streaming_encodec.errors import CallError, CallErrorReason
from streaming_encodec.relay.relay import Relay
from streaming_encodec.transport.websocket.client import WebSocketClient, WebSocketDialer
from streaming_encodec.voice.network import NetworkModel
from streaming_encodec.wire.header import read_header
from streaming_encodec.wire.hello import Hello


def link(relay: Relay, role: str, on_packet: Callable[[bytes], None] = lambda data: None) -> Link:
    hello = Hello("r", role, FORMAT)
    dialer = WebSocketDialer(relay.url)
    return Link(dialer, hello, None, on_packet=on_packet, on_control=lambda message: None)


def socket_of(link: Link) -> WebSocketClient:
    assert isinstance(link._connection, WebSocketClient)
    return link._connection


async def test_no_packet_overtakes_one_that_waits() -> None:
    """For a moment there is no room; what comes then, and after it, keeps its order."""
    heard: list[int] = []
    async with running() as relay:
        ear = link(relay, "subscribe", lambda data: heard.append(read_header(data).sequence))
        mouth = link(relay, "publish")
        await ear.open()
        await mouth.open()
        socket = socket_of(mouth)
        socket.pause_writing()
        for number in range(5):
            mouth.send_packet(voice(number))
        assert socket.unsent_packets == 5
        await asyncio.sleep(0)
        socket.resume_writing()
        for number in range(5, 12):
            mouth.send_packet(voice(number))
        await until(lambda: len(heard) == 12, "all were heard")
        assert heard == sorted(heard)
        assert mouth.counts.packets_sent == 12
        assert mouth.counts.connects == 1
        await mouth.close()
        await ear.close()


async def test_what_waits_too_long_or_is_too_much_is_dropped_and_counted() -> None:
    heard: list[int] = []
    async with running() as relay:
        ear = link(relay, "subscribe", lambda data: heard.append(read_header(data).sequence))
        mouth = link(relay, "publish")
        await ear.open()
        await mouth.open()
        socket = socket_of(mouth)
        socket.pause_writing()
        for number in range(35):
            mouth.send_packet(voice(number))
        assert socket.unsent_packets == 30  # 0.4 s of frames
        assert (mouth.counts.packets_sent, mouth.counts.packets_dropped) == (30, 5)
        await asyncio.sleep(0.45)
        socket.resume_writing()
        mouth.send_packet(voice(35))
        await until(lambda: heard == [35], "only the new one was heard")
        assert (mouth.counts.packets_sent, mouth.counts.packets_dropped) == (1, 35)
        assert 0 < mouth.counts.bytes_sent <= len(voice(35)) + 36
        await mouth.close()
        await ear.close()


async def test_with_room_a_packet_wakes_no_task() -> None:
    heard: list[bytes] = []
    async with running() as relay:
        ear, mouth = link(relay, "subscribe", heard.append), link(relay, "publish")
        await ear.open()
        await mouth.open()
        socket = socket_of(mouth)

        async def never(message: object) -> None:
            raise AssertionError("sent by a task")

        socket.send = never  # type: ignore[method-assign, assignment]
        mouth.send_packets([voice(number) for number in range(5)])
        await until(lambda: len(heard) == 5, "all were heard")
        assert mouth.counts.packets_sent == 5
        socket.transport.abort()
        assert not socket.is_open  # nothing is written to a connection that goes down
        await ear.close()
        await mouth.close()


async def test_a_burst_stays_within_what_the_relay_takes() -> None:
    """Ten seconds of sound at once, and once more later: two seconds go through each time, the rest is counted."""
    clock = FakeClock()
    heard: list[bytes] = []
    async with running(clock=clock) as relay:
        ear = link(relay, "subscribe", heard.append)
        hello = Hello("r", "publish", FORMAT)
        dialer = WebSocketDialer(relay.url)
        mouth = Link(dialer, hello, None, on_packet=heard.append, on_control=lambda message: None, clock=clock)
        await ear.open()
        await mouth.open()
        for burst in range(2):
            for number in range(750):
                mouth.send_packet(voice(burst * 750 + number))
                await asyncio.sleep(0)  # the link keeps no more than 20 that the network does not take
            await until(lambda: mouth.counts.packets_sent + mouth.counts.packets_dropped == 750 * (burst + 1), "all")  # noqa: B023
            clock.now_s += 10
        assert relay.metrics.closed[4429] == 0
        assert mouth.counts.connects == 1
        assert mouth.counts.packets_dropped >= 2 * 600
        await until(lambda: relay.metrics.counts["packets_in"] == mouth.counts.packets_sent, "all came")
        await mouth.close()
        await ear.close()


class Failing(MemoryWire):
    """A way to a relay that fails as it is told to, after the first connection."""

    def __init__(self, *reasons: CallErrorReason) -> None:
        super().__init__(NetworkModel(base_ms=0.0, ordered=True))
        self.reasons = [*reasons]

    async def connect(self, token: str | None = None) -> MemoryConnection:
        if self.connections and self.reasons:
            raise CallError("why", self.reasons.pop(0))
        return await super().connect(token)


async def lost(wire: Failing) -> Link:
    """A link that has just lost its connection."""
    made = Link(wire, Hello("r", "both", FORMAT), None, on_packet=len, on_control=str, chance=lambda: 0.0)
    await wire.during(asyncio.create_task(made.open()))
    wire.connections[0].abort()
    await wire.pass_time(0.1)
    return made


async def test_a_link_tries_again_after_what_may_pass() -> None:
    may_pass = (CallErrorReason.UNREACHABLE, CallErrorReason.PROXY, CallErrorReason.FULL, CallErrorReason.RELAY_ENDED)
    wire = Failing(*may_pass)
    made = await lost(wire)
    while not made.connected:
        await wire.pass_time(0.1)
        await asyncio.sleep(0.01)
        assert not made.over
    assert not wire.reasons
    assert made.counts.connects == 2
    await wire.during(asyncio.create_task(made.close()))


@pytest.mark.parametrize(
    "reason",
    [
        CallErrorReason.NOT_A_RELAY,
        CallErrorReason.NOT_ALLOWED,
        CallErrorReason.PROTOCOL,
        CallErrorReason.REPLACED,
        CallErrorReason.UNTRUSTED,
        CallErrorReason.WRONG_MODEL,
        CallErrorReason.WRONG_ROOM,
    ],
)
async def test_a_link_gives_up_at_once_where_another_attempt_fails_too(reason: CallErrorReason) -> None:
    made = await lost(Failing(reason))
    await asyncio.wait_for(made.wait_over(), 10)
    with pytest.raises(CallError) as told:
        made.check()
    assert told.value.reason is reason
    await made.close()
