"""A line that is dead though nobody says so: the client notices, and goes on over another connection."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest
from client.test_client_outage import Line, line_to
from relay_kit import FORMAT, running, until, voice

from streaming_encodec.client.heartbeat import patience_s, wait_for_silence
from streaming_encodec.client.link import Link
from streaming_encodec.transport.websocket import opening
from streaming_encodec.transport.websocket.client import WebSocketDialer
from streaming_encodec.wire.header import read_header
from streaming_encodec.wire.hello import Hello


class SilentLine(Line):
    """A line that can go dead: nothing passes on what is open, and nobody is told."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self._passing = asyncio.Event()
        self._passing.set()
        self._generation = 0
        self.attempts = 0

    def die(self) -> None:
        """Connections that are open carry nothing more, ever; new ones wait until `revive`."""
        self._generation += 1
        self._passing.clear()

    def stall(self) -> None:
        """Nothing passes until `revive`, which lets go what waited."""
        self._passing.clear()

    def revive(self) -> None:
        self._passing.set()

    async def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.attempts += 1
        await self._passing.wait()
        await super().connect(reader, writer)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        generation = self._generation
        try:
            while data := await reader.read(1 << 16):
                await self._passing.wait()
                if self._generation != generation:
                    await asyncio.Event().wait()
                writer.write(data)
        finally:
            writer.transport.abort()


def link(url: str, role: str, on_packet: Callable[[bytes], object] = len) -> Link:
    hello = Hello("r", role, FORMAT)
    return Link(WebSocketDialer(url), hello, None, on_packet=on_packet, on_control=lambda message: None)


@pytest.mark.parametrize("role", ["subscribe", "publish"])
async def test_a_dead_connection_is_replaced_by_another_one(role: str) -> None:
    heard: list[bytes] = []
    async with running() as relay, line_to(relay.port, SilentLine) as line:
        mine = link(line.url, role, heard.append)
        await mine.open()
        line.die()
        await until(lambda: not mine.connected, "the silence was noticed")
        line.revive()
        await until(lambda: mine.connected, "it came back")
        assert (mine.counts.connects, mine.counts.resumes) == (2, 1)
        assert relay._rooms.participants == 1
        if role == "subscribe":
            mouth = link(relay.url, "publish")
            await mouth.open()
            mouth.send_packet(voice(1))
            await until(lambda: heard, "voice comes the new way")
            await mouth.close()
        mine.check()
        await mine.close()


async def test_a_line_that_only_stalled_keeps_its_connection() -> None:
    async with running() as relay, line_to(relay.port, SilentLine) as line:
        mine = link(line.url, "subscribe")
        await mine.open()
        line.stall()
        await until(lambda: line.attempts > 1, "another connection is tried")
        line.revive()
        await until(lambda: mine.connected, "it goes on")
        # Either may win; the participant is there once, and nothing ended the call.
        await until(lambda: relay._rooms.participants == 1, "one participant")
        mine.check()
        assert not mine.over
        await mine.close()


async def test_what_a_dead_line_held_back_is_not_heard() -> None:
    heard: list[bytes] = []
    async with running() as relay, line_to(relay.port, SilentLine) as line:
        mine, mouth = link(line.url, "subscribe", heard.append), link(relay.url, "publish")
        await mine.open()
        await mouth.open()
        old = mine._connection
        assert old is not None
        line.stall()
        mouth.send_packet(voice(1))
        await until(lambda: not old.is_open, "the old connection is given up")
        line.revive()
        await until(lambda: mine.connected, "it came back")
        mouth.send_packet(voice(2, timestamp=1000))
        await until(lambda: heard, "voice comes the new way")
        assert [read_header(data).sequence for data in heard] == [2]
        await mouth.close()
        await mine.close()


async def test_who_is_idle_is_asked_and_not_replaced() -> None:
    async with running() as relay:
        mine = link(relay.url, "subscribe")
        await mine.open()
        connection = mine._connection
        assert connection is not None
        for _ in range(3):
            last_s = connection.heard_s
            while connection.heard_s <= last_s:
                await asyncio.sleep(0.01)
        assert mine.counts.connects == 1
        await mine.close()


@pytest.mark.parametrize(("round_trip_s", "patience"), [(0.0, 1.5), (0.02, 0.5), (0.3, 0.9), (0.5, 1.5), (2.0, 1.5)])
def test_patience_grows_with_the_round_trip(round_trip_s: float, patience: float) -> None:
    assert patience_s(round_trip_s) == pytest.approx(patience)


class Questioned:
    """A connection that answers as often as it is told to."""

    round_trip_s = 0.01

    def __init__(self, answers: int) -> None:
        self._answers = answers
        self.questions = 0
        self.heard_s = asyncio.get_running_loop().time()

    def probe(self) -> None:
        self.questions += 1
        if self.questions <= self._answers:
            loop = asyncio.get_running_loop()
            loop.call_later(0.001, lambda: setattr(self, "heard_s", loop.time()))


async def test_only_an_unanswered_question_is_silence() -> None:
    asked = Questioned(answers=3)
    await asyncio.wait_for(wait_for_silence(asked), 30)  # type: ignore[arg-type]
    assert asked.questions == 4


async def test_there_is_no_hurry_where_voice_has_another_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streaming_encodec.client.heartbeat._LEAST_PATIENCE_S", 3600.0)
    monkeypatch.setattr("streaming_encodec.client.heartbeat._MOST_PATIENCE_S", 3600.0)
    monkeypatch.setattr("streaming_encodec.client.heartbeat._UNHURRIED_S", 0.1)
    asked = Questioned(answers=2)
    await asyncio.wait_for(wait_for_silence(asked, lambda: True), 30)  # type: ignore[arg-type]
    assert asked.questions == 3


def local(port: int) -> opening.Address:
    return socket.AF_INET, socket.IPPROTO_TCP, ("127.0.0.1", port)


async def test_of_several_addresses_the_one_that_answers_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, and not listening: it refuses
        refused, good = local(closed.getsockname()[1]), local(server.getsockname()[1])
        with await opening.open_socket([refused, good]) as sock:
            assert sock.getpeername() == good[2]
        with pytest.raises(ConnectionRefusedError):
            await opening.open_socket([refused])


async def test_a_try_that_is_not_answered_is_followed_by_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as may be open at a time; the first one that is answered wins, and the others are closed."""
    begun: list[socket.socket] = []
    open_at_once: list[int] = []
    loop = asyncio.get_running_loop()

    async def connect(sock: socket.socket, target: Any) -> None:
        begun.append(sock)
        open_at_once.append(sum(one.fileno() >= 0 for one in begun))
        if len(begun) < 6:
            await asyncio.Event().wait()

    monkeypatch.setattr(loop, "sock_connect", connect)
    monkeypatch.setattr(opening, "_AGAIN_S", 0.01)
    with await opening.open_socket([local(1)]) as sock:
        assert sock is begun[5]
        await until(lambda: all(one.fileno() < 0 for one in begun[:5]), "the others are closed")
    assert max(open_at_once) <= opening._MOST_OPEN + 1


async def test_a_relay_that_was_reached_once_is_not_looked_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running() as relay:
        dialer = WebSocketDialer(relay.url.replace("127.0.0.1", "localhost"))
        await (await dialer.connect()).close()

        async def never(*args: object, **kwargs: object) -> None:
            raise AssertionError("names are not looked up over a line that may be dead")

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", never)
        await (await dialer.connect()).close()
