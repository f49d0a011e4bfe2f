"""A room in the relay's URL: who asks for another one is refused."""

from __future__ import annotations

import time
from urllib.parse import quote

import pytest
from relay_kit import FORMAT, KEY, closed_with, heard, running, voice
from websockets.asyncio.client import connect

from streaming_encodec.relay.relay import Relay
from streaming_encodec.transport.addresses import SUBPROTOCOL
from streaming_encodec.transport.close_codes import CloseCode
from streaming_encodec.wire.control import parse_control, serialize_control
from streaming_encodec.wire.hello import Hello, Welcome
from streaming_encodec.wire.room_path import room_path

HOSTILE = [
    "a b",
    "a.b",
    "*",
    ">",
    "a/b",
    "../r/x",
    "%2e",
    "r%00",
    "ä🎤",
    "' OR 1=1",
    "a?b",
    "a#b",
    "a+b",
    "\\",
    "~",
    "nul",
]


def at(relay: Relay, path: str) -> connect:
    return connect(relay.url + path, subprotocols=[SUBPROTOCOL], compression=None, proxy=None, close_timeout=1)


@pytest.mark.parametrize("room", HOSTILE)
async def test_a_room_is_the_same_by_its_url_and_by_the_hello_alone(room: str) -> None:
    async with running() as relay:
        paths = [room_path(room), "/r/" + quote(room, safe=""), "/"]
        sockets = []
        for path in paths:
            socket = await at(relay, path)
            sockets.append(socket)
            await socket.send(serialize_control(Hello(room, "both", FORMAT)))
            assert isinstance(parse_control(await socket.recv()), Welcome)
        assert list(relay._rooms.rooms) == [room]
        await sockets[0].send(voice(0))
        for socket in sockets[1:]:
            await heard(socket)
        for socket in sockets:
            await socket.close()


@pytest.mark.parametrize("room", ["tea", "Tea", "tea ", "t%65a", "te\u0301a"])
async def test_a_hello_for_another_room_than_the_urls_is_refused(room: str) -> None:
    async with running() as relay, at(relay, room_path("téa")) as socket:
        await socket.send(serialize_control(Hello(room, "both", FORMAT)))
        assert await closed_with(socket) == CloseCode.WRONG_ROOM
        assert not relay._rooms.rooms


async def test_a_token_is_not_used_up_by_the_wrong_url() -> None:
    async with running(token_key=KEY) as relay:
        token = KEY.sign("tea", now_s=time.time())
        for path, code in (("/r/coffee", CloseCode.WRONG_ROOM), ("/r/tea", None)):
            async with at(relay, path) as socket:
                await socket.send(serialize_control(Hello("tea", "both", FORMAT, token=token)))
                if code is None:
                    assert isinstance(parse_control(await socket.recv()), Welcome)
                else:
                    assert await closed_with(socket) == code
