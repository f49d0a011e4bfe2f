"""Relays over NATS when something dies: what is heard afterwards, and that none of it is old."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from nats_kit import NatsServer, acquainted, bus, bus_of, cluster, free_ports, nats_servers
from relay_kit import FORMAT, fetch, heard, seated, told, until, voice
from websockets.asyncio.client import ClientConnection

from streaming_encodec.client.link import Link
from streaming_encodec.relay.bus.base import Elsewhere
from streaming_encodec.relay.relay import Relay
from streaming_encodec.transport.limits import MAX_VOICE_AGE_S
from streaming_encodec.transport.websocket.client import WebSocketDialer
from streaming_encodec.wire.control import Joined, Left, Report, parse_control
from streaming_encodec.wire.header import read_header
from streaming_encodec.wire.hello import Hello

FRAME_S = FORMAT.frame_seconds


class Call:
    """A speaker who says a frame every 13 ms, and one who listens: when each packet was sent, and how old it came."""

    def __init__(self, mouth: ClientConnection, ear: ClientConnection) -> None:
        self._mouth, self._ear = mouth, ear
        self.sent_s: list[float] = []
        self.heard: list[int] = []
        self.controls: list[object] = []
        self.oldest_s = 0.0
        self.longest_stall_s = 0.0
        """Of this process: what it was late for, nobody else was."""

    async def speak(self) -> None:
        begin_s = time.perf_counter()
        while True:
            number = round((time.perf_counter() - begin_s) / FRAME_S)
            if number >= len(self.sent_s):
                self.sent_s += [time.perf_counter()] * (number + 1 - len(self.sent_s))
                await self._mouth.send(voice(number))
            before_s = time.perf_counter()
            await asyncio.sleep(FRAME_S / 2)
            self.longest_stall_s = max(self.longest_stall_s, time.perf_counter() - before_s - FRAME_S / 2)

    async def listen(self) -> None:
        while True:
            message = await self._ear.recv()
            if isinstance(message, str):
                self.controls.append(parse_control(message))
                continue
            number = read_header(message).sequence
            self.oldest_s = max(self.oldest_s, time.perf_counter() - self.sent_s[number])
            self.heard.append(number)

    async def heard_on(self, packets: int = 30) -> float:
        """Wait until so many more packets were heard; seconds to the first of them."""
        begin_s, before = time.perf_counter(), len(self.heard)
        await until(lambda: len(self.heard) > before, "something is heard")
        took_s = time.perf_counter() - begin_s
        await until(lambda: len(self.heard) >= before + packets, "more is heard")
        return took_s

    def check_ages(self) -> None:
        assert self.oldest_s <= MAX_VOICE_AGE_S + self.longest_stall_s
        assert self.heard == sorted(set(self.heard))


@asynccontextmanager
async def call(one: Relay, two: Relay) -> AsyncIterator[Call]:
    """A speaker at one relay, a listener at another one."""
    async with seated(two, "subscribe") as (ear, _), seated(one, "publish") as (mouth, _):
        made = Call(mouth, ear)
        tasks = [asyncio.create_task(made.speak()), asyncio.create_task(made.listen())]
        try:
            await made.heard_on()
            yield made
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("whose", ["the speaker's", "the listener's"])
async def test_voice_is_back_after_a_server_is_killed_and_nothing_old_is_heard(tmp_path: Path, whose: str) -> None:
    async with nats_servers(tmp_path, 2) as servers, cluster(servers) as (one, two), call(one, two) as made:
        servers[0 if whose == "the speaker's" else 1].kill()
        before = len(made.sent_s)
        await until(lambda: any(number >= before for number in made.heard), "what was said after that is heard")
        await made.heard_on()
        first = next(number for number in made.heard if number >= before)
        gap_s = made.sent_s[first] - made.sent_s[before]
        assert gap_s <= 2.0 + made.longest_stall_s
        made.check_ages()
        assert not [message for message in made.controls if isinstance(message, Left)]


@pytest.mark.parametrize("seconds", [1.0, 4.0])
async def test_a_server_that_stands_still_gives_nothing_old(tmp_path: Path, seconds: float) -> None:
    """Stopped for less than it takes to give it up, and for longer."""
    async with nats_servers(tmp_path) as (server,), cluster([server]) as (one, two), call(one, two) as made:
        server.process.send_signal(signal.SIGSTOP)
        try:
            before = len(made.sent_s)
            await until(lambda: len(made.sent_s) >= before + seconds / FRAME_S, "it has stood still")
        finally:
            server.process.send_signal(signal.SIGCONT)
        now = len(made.sent_s)
        await until(lambda: bool(made.heard) and made.heard[-1] >= now, "the present is heard again")
        await made.heard_on()
        made.check_ages()
        assert bus_of(one)._connection.dropped > 0


async def test_without_nats_each_relay_goes_on_by_itself(tmp_path: Path) -> None:
    async with nats_servers(tmp_path) as (server,), cluster([server]) as (one, two), call(one, two) as made:
        server.kill()
        await until(lambda: not bus_of(one)._connection.is_up and not bus_of(two)._connection.is_up, "it is gone")
        assert "cluster_connected 0.0" in (await fetch(one, "/metrics"))[2]
        assert (await fetch(one, "/healthz"))[0] == 200
        async with seated(one, "subscribe") as (near, _):
            await heard(near)
        await until(
            lambda: any(isinstance(message, Left) for message in made.controls), "nothing is known of the speaker"
        )
        server.restart()
        await until(lambda: isinstance(made.controls and made.controls[-1], Joined), "the speaker is there again")
        await made.heard_on()
        made.check_ages()


@asynccontextmanager
async def relay_process(servers: list[NatsServer], node: int) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """`serve` in a process of its own, and its URL."""
    (port,) = free_ports(1)
    program = "from streaming_encodec.cli.app import main; main()"
    command = [sys.executable, "-c", program, "serve", "--no-web", "--port", str(port)]
    for server in servers:
        command += ["--cluster", f"nats://127.0.0.1:{server.port}"]
    process = await asyncio.create_subprocess_exec(
        *command, "--node", str(node), stderr=asyncio.subprocess.PIPE, env=os.environ | {"PYTHONUNBUFFERED": "1"}
    )
    assert process.stderr is not None
    try:
        said = b""
        async with asyncio.timeout(60):
            while b'"listening"' not in said:
                line = await process.stderr.readline()
                said += line
                assert line, f"serve has ended: {said.decode()}"
        yield process, f"ws://127.0.0.1:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def link(*urls: str, role: str = "both") -> Link:
    hello = Hello("r", role, FORMAT)
    return Link([WebSocketDialer(url) for url in urls], hello, None, on_packet=len, on_control=str)


async def test_a_relay_is_killed_its_speakers_leave_and_its_clients_go_to_the_other(tmp_path: Path) -> None:
    async with (
        nats_servers(tmp_path) as servers,
        cluster(servers, 1) as (one,),
        relay_process(servers, 1) as (process, url),
        seated(one, "subscribe") as (ear, _),
    ):
        await acquainted(one, 1)
        moving = link(url, one.url)
        welcome = await moving.open()
        assert moving.url == url
        assert await told(ear) == Joined(welcome.sender)
        killed_s = time.monotonic()
        process.kill()
        # The client comes first: it takes a new number, for it is a new seat.
        again = await asyncio.wait_for(told(ear), 30)
        assert isinstance(again, Joined)
        back_s = time.monotonic() - killed_s
        assert moving.url == one.url
        message = await asyncio.wait_for(ear.recv(), 30)
        left_s = time.monotonic() - killed_s
        assert isinstance(message, str)
        assert parse_control(message) == Left(welcome.sender)
        assert back_s <= 3.0
        assert left_s <= 6.5  # 6, and what a busy machine takes
        await moving.close()


async def test_a_relay_stands_still_and_comes_back(tmp_path: Path) -> None:
    async with (
        nats_servers(tmp_path) as servers,
        cluster(servers) as (one, two),
        relay_process(servers, 2) as (process, url),
    ):
        for relay in (one, two):
            await acquainted(relay, 2)
        still = link(url)
        welcome = await still.open()
        async with call(one, two) as made:
            before = len(made.sent_s)
            process.send_signal(signal.SIGSTOP)
            try:
                left = Left(welcome.sender)
                await until(lambda: left in made.controls, "its speakers are forgotten")
            finally:
                process.send_signal(signal.SIGCONT)
            # The others did not notice: every packet was heard. A speaker who is late says the last of several numbers.
            upto = len(made.sent_s)
            await until(lambda: made.heard[-1] >= upto, "all was heard")
            said = {number for number in range(before, upto) if made.sent_s[number] != made.sent_s[number + 1]}
            assert said <= set(made.heard)
            await until(lambda: Joined(welcome.sender) in made.controls[made.controls.index(left) :], "it is back")
            made.check_ages()
        await still.close()


class _Heard:
    """Bus events of a test: counts what comes in which room."""

    def __init__(self) -> None:
        self.packets = 0
        self.strayed: list[tuple[str, bytes]] = []

    def on_packet(self, room: str, packet: bytes) -> None:
        self.packets += 1
        if packet.split(b"|")[0].decode() != room:
            self.strayed.append((room, packet))

    def on_elsewhere(self, room: str, elsewhere: Elsewhere) -> None: ...

    def on_report(self, room: str, report: Report) -> None: ...

    def on_ticket(self, hello: Hello) -> bool:
        return False


async def test_no_packet_of_a_hundred_thousand_comes_into_another_room(tmp_path: Path) -> None:
    rooms = [f"room {number}" for number in range(50)]
    async with nats_servers(tmp_path, 2) as servers:
        one, two, there = bus(servers, 0), bus(servers, 1), _Heard()
        await two.open(there)
        await one.open(_Heard())
        try:
            for room in rooms:
                await one.enter(room)
                await two.enter(room)
            await until(lambda: bool(one._presence.nodes), "it knows the other")
            sent = 0
            for turn in range(2000):
                for room in rooms:
                    one.publish(room, f"{room}|{turn}".encode())
                sent += len(rooms)
                if turn % 20 == 19:
                    await until(lambda: there.packets + one._connection.dropped >= sent, "they have come")  # noqa: B023
            assert there.strayed == []
            assert there.packets >= 99_000
            assert there.packets + one._connection.dropped == 100_000
        finally:
            await one.close()
            await two.close()
