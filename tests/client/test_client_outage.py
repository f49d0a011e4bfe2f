"""The line between a client and its relay is cut and mended, while the relay and the others go on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from call_kit import PATIENT, Ear, VoiceClient, say, sound, tiny_model
from relay_kit import FORMAT, KEY, running, until

from streaming_encodec.client.link import Link
from streaming_encodec.client.token_source import fetch_token
from streaming_encodec.errors import CallError
from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.transport.websocket.client import WebSocketDialer
from streaming_encodec.wire.hello import Hello


@pytest.fixture(scope="module")
def model() -> EncodecModel:
    return tiny_model()


class Line:
    """A TCP line to a relay on this machine."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._whole = True
        self._writers: set[asyncio.StreamWriter] = set()
        self.lose_welcome = False
        """Break once, as the next welcome is on its way."""
        self.url = ""

    def cut(self) -> None:
        """From now on nobody comes through; whoever was on the line loses it."""
        self._whole = False
        for writer in self._writers:
            writer.transport.abort()

    def mend(self) -> None:
        self._whole = True

    async def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        if not self._whole:
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers.add(back)
        await asyncio.gather(self._pass(reader, back), self._pass(there, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                if self.lose_welcome and b'"welcome"' in data:
                    self.lose_welcome = False
                    break
                writer.write(data)
        except OSError:
            pass
        finally:
            writer.transport.abort()


@asynccontextmanager
async def line_to(port: int, kind: type[Line] = Line) -> AsyncIterator[Any]:
    line = kind(port)
    server = await asyncio.start_server(line.connect, "127.0.0.1", 0)
    line.url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield line
    finally:
        server.close()
        line.cut()


async def test_who_leaves_in_a_listeners_outage_is_heard_no_more(model: EncodecModel) -> None:
    async with (
        running() as relay,
        line_to(relay.port) as line,
        VoiceClient(line.url, None, model, role="subscribe", playout=PATIENT) as listener,
        Ear(listener) as ear,
    ):
        async with VoiceClient(relay.url, None, model, role="publish") as speaker:
            await say(speaker, sound(0.3))
            await until(lambda: ear.codes, "voice came through")
            line.cut()
            await until(lambda: not listener.connected, "the listener lost the relay")
        line.mend()
        await until(lambda: listener.connected, "it came back")
        assert listener.statistics.link.resumes == 1
        await until(lambda: not listener.speakers, "nobody is heard")
        assert not listener.present


class Fetcher:
    """A function that fetches tokens as long as whoever gives them can be reached."""

    def __init__(self) -> None:
        self.down = False
        self.asked = 0

    async def __call__(self) -> str:
        self.asked += 1
        if self.down:
            raise LookupError("all attempts to connect failed")  # as HTTP clients have errors of their own
        return KEY.sign("r", now_s=time.time())


def link_to(url: str, token: str | Callable[[], object]) -> Link:
    hello = Hello("r", "both", FORMAT)
    return Link(WebSocketDialer(url), hello, token, on_packet=lambda data: None, on_control=lambda message: None)  # type: ignore[arg-type]


async def test_the_ticket_does_where_no_fresh_token_can_be_fetched() -> None:
    fetch = Fetcher()
    async with running(token_key=KEY) as relay, line_to(relay.port) as line:
        link = link_to(line.url, fetch)
        await link.open()
        fetch.down = True
        line.cut()
        await until(lambda: fetch.asked >= 4, "it was asked for a token again and again")
        line.mend()
        await until(lambda: link.connected, "it came back")
        assert link.counts.resumes == 1
        link.check()
        await link.close()


async def test_where_the_ticket_is_no_good_either_a_fresh_token_is_awaited() -> None:
    fetch = Fetcher()
    async with running(token_key=KEY) as relay:
        link = link_to(relay.url, fetch)
        await link.open()
        fetch.down = True
        relay._rooms.leave(next(iter(relay._rooms.rooms["r"].participants.values())))
        next(iter(relay._admission.connections)).transport.abort()
        await until(lambda: relay.metrics.closed[4403] >= 2, "it was refused twice")
        assert not link.over
        fetch.down = False
        await until(lambda: link.connected, "it came back")
        assert (link.counts.connects, link.counts.resumes) == (2, 0)
        link.check()
        await link.close()


async def test_a_token_that_cannot_be_fetched_at_first_is_told() -> None:
    fetch = Fetcher()
    fetch.down = True
    async with running(token_key=KEY) as relay:
        with pytest.raises(CallError, match=r"fetches one failed.*all attempts"):
            await link_to(relay.url, fetch).open()

    async def never() -> str:
        await asyncio.Event().wait()
        raise AssertionError("it was not waited for")

    with pytest.raises(CallError, match="none in"):
        await fetch_token(never, 0.01)
    assert await fetch_token(lambda: "token", 0.01) == "token"


async def test_a_welcome_that_is_lost_on_the_way_does_not_end_the_call() -> None:
    async with running(token_key=KEY) as relay, line_to(relay.port) as line:
        link = link_to(line.url, KEY.sign("r", now_s=time.time()))
        await link.open()
        line.lose_welcome = True
        next(iter(relay._admission.connections)).transport.abort()
        await until(lambda: link.counts.resumes == 1, "it came back")
        assert relay.metrics.counts["resumes"] == 2  # of the first one the client never heard
        assert relay._rooms.participants == 1
        await link.close()
