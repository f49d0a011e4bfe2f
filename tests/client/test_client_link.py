"""A client's connection: packets are written at once, or wait their turn, and none overtakes another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from relay_kit import FORMAT, FakeClock, running, until, voice

from streaming_encodec.client.link import Link
from streaming_encodec.relay.relay import Relay
from streaming_encodec.wire.header import read_header
from streaming_encodec.wire.hello import Hello


def link(relay: Relay, role: str, on_packet: Callable[[bytes], None] = lambda data: None) -> Link:
    hello = Hello("r", role, FORMAT)
    return Link(relay.url, hello, None, on_packet=on_packet, on_control=lambda message: None)


async def test_no_packet_overtakes_one_that_is_being_sent() -> None:
    """For a moment there is no room; while the task sends what waited, those that come keep their order."""
    heard: list[int] = []
    async with running() as relay:
        ear = link(relay, "subscribe", lambda data: heard.append(read_header(data).sequence))
        mouth = link(relay, "publish")
        await ear.open()
        await mouth.open()
        assert mouth._socket is not None
        really_send = mouth._socket.send
        begun, gate = asyncio.Event(), asyncio.Event()

        async def slowly(message: object) -> None:
            begun.set()
            await gate.wait()
            await really_send(message)  # type: ignore[arg-type]

        mouth._socket.send = slowly  # type: ignore[method-assign, assignment]
        mouth._socket._full = True
        mouth.send_packet(voice(0))
        await begun.wait()  # the task has it in hand, and nothing else waits
        mouth._socket._full = False
        for number in range(1, 12):
            mouth.send_packet(voice(number))
        gate.set()
        await until(lambda: len(heard) == 12, "all were heard")
        assert heard == sorted(heard)
        assert mouth.counts.packets_sent == 12
        assert mouth.counts.connects == 1
        await mouth.close()
        await ear.close()


async def test_with_room_a_packet_wakes_no_task() -> None:
    heard: list[bytes] = []
    async with running() as relay:
        ear, mouth = link(relay, "subscribe", heard.append), link(relay, "publish")
        await ear.open()
        await mouth.open()
        assert mouth._socket is not None

        async def never(message: object) -> None:
            raise AssertionError("sent by the task")

        mouth._socket.send = never  # type: ignore[method-assign, assignment]
        mouth.send_packets([voice(number) for number in range(5)])
        await until(lambda: len(heard) == 5, "all were heard")
        assert mouth.counts.packets_sent == 5
        mouth._socket.transport.abort()
        assert not mouth._socket.offer(voice(5))  # nothing is written to a connection that goes down
        await ear.close()
        await mouth.close()


async def test_a_burst_stays_within_what_the_relay_takes() -> None:
    """Ten seconds of sound at once, and once more later: two seconds go through each time, the rest is counted."""
    clock = FakeClock()
    heard: list[bytes] = []
    async with running(clock=clock) as relay:
        ear = link(relay, "subscribe", heard.append)
        hello = Hello("r", "publish", FORMAT)
        mouth = Link(relay.url, hello, None, on_packet=heard.append, on_control=lambda message: None, clock=clock)
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
