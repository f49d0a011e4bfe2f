"""Clients that know several relays, by several URLs or by a name with several addresses."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest
from call_kit import tiny_model
from relay_kit import FORMAT, counted, running, until

from streaming_encodec.client.client import VoiceClient
from streaming_encodec.client.link import Link
from streaming_encodec.errors import CallError, CallErrorReason, ConfigError
from streaming_encodec.relay.limits import RelayLimits
from streaming_encodec.transport.websocket.client import WebSocketDialer
from streaming_encodec.wire.hello import Hello


def link(*urls: str) -> Link:
    hello = Hello("r", "both", FORMAT)
    return Link([WebSocketDialer(url) for url in urls], hello, None, on_packet=len, on_control=str)


@contextmanager
def nothing_there() -> Iterator[str]:
    """An address where nothing listens, and nothing will."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"ws://127.0.0.1:{bound.getsockname()[1]}"


async def test_the_first_relay_that_answers_is_used() -> None:
    async with running() as relay:
        with nothing_there() as nowhere:
            made = link(nowhere, relay.url)
            await made.open()
            assert made.url == relay.url
            await made.close()


async def test_where_none_answers_the_first_ones_error_is_told() -> None:
    with ExitStack() as stack:
        urls = [stack.enter_context(nothing_there()) for _ in range(3)]
        made = link(*urls)
        with pytest.raises(CallError, match=urls[0]) as told:
            await made.open()
        assert told.value.reason is CallErrorReason.UNREACHABLE


async def test_a_relay_that_goes_is_left_for_the_next_one() -> None:
    async with running() as one, running() as two:
        made = link(one.url, two.url)
        await made.open()
        assert made.url == one.url
        await one.stop()
        await until(lambda: made.connected and made.url == two.url, "it is at the other relay")
        assert made.counts.connects == 2
        await made.close()


async def test_a_relay_that_is_full_or_drains_is_passed_over() -> None:
    async with running(limits=RelayLimits(max_peers=1)) as full, running() as leaving, running() as free:
        first = link(full.url)
        await first.open()
        leaving.drain()
        made = link(full.url, leaving.url, free.url)
        await made.open()
        assert made.url == free.url
        assert counted(leaving, "joins") == 0
        for each in (made, first):
            await each.close()


async def test_a_refusal_that_every_relay_would_repeat_is_told_at_once() -> None:
    async with running(rooms=frozenset({"other"})) as one, running() as two:
        with pytest.raises(CallError) as told:
            await link(one.url, two.url).open()
        assert told.value.reason is CallErrorReason.NOT_ALLOWED
        assert counted(two, "connections") == 0


@pytest.mark.parametrize("dead", ["refuses", "is silent"])
async def test_a_name_with_several_addresses(monkeypatch: pytest.MonkeyPatch, dead: str) -> None:
    """Linux answers on all of 127.0.0.0/8; a socket whose backlog is full answers nobody."""
    async with running(host="127.0.0.1") as relay:
        with ExitStack() as stack:
            blocked = stack.enter_context(socket.socket())
            blocked.bind(("127.0.0.3", relay.port))
            if dead == "is silent":
                blocked.listen(0)
                for _ in range(4):
                    waiting = stack.enter_context(socket.socket())
                    waiting.setblocking(False)
                    waiting.connect_ex(("127.0.0.3", relay.port))
            resolve: Callable[..., object] = asyncio.get_running_loop().getaddrinfo

            async def resolved(host: object, port: object, **options: object) -> object:
                if host == "relays.example":
                    kind = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
                    return [(*kind, (address, port)) for address in ("127.0.0.3", "127.0.0.1")]
                return await resolve(host, port, **options)  # type: ignore[misc]

            monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolved)
            monkeypatch.setenv("no_proxy", "relays.example")
            made = link(f"ws://relays.example:{relay.port}")
            await made.open()
            await made.close()


def test_the_room_comes_from_the_url() -> None:
    model = tiny_model()
    assert VoiceClient("ws://h/r/tea%20time", None, model).room == "tea time"
    assert VoiceClient(["ws://h/r/tea", "ws://i", "ws://j/below/r/tea"], None, model).room == "tea"
    assert VoiceClient(["ws://h/r/tea", "ws://i"], None, model, room="tea").room == "tea"
    for urls, room in ((["ws://h/r/tea", "ws://i/r/coffee"], None), ("ws://h/r/tea", "coffee"), ("ws://h/r/", None)):
        with pytest.raises(ConfigError):
            VoiceClient(urls, None, model, room=room)
    with pytest.raises(ConfigError, match="at least one"):
        VoiceClient([], None, model)
