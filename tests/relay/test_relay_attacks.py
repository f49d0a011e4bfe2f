"""Everything a stranger can try, each with the code it is closed with. After each the relay still serves."""

from __future__ import annotations

import asyncio
import json
import socket as sockets
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from relay_kit import (
    FORMAT,
    KEY,
    OTHER,
    FakeClock,
    certificate,
    closed_with,
    counted,
    enter,
    guest,
    heard,
    running,
    seated,
    until,
    voice,
)
from websockets.exceptions import InvalidStatus
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Frame, Opcode

from streaming_encodec.errors import ConfigError
from streaming_encodec.relay.config import RelayConfig
from streaming_encodec.relay.limits import RelayLimits
from streaming_encodec.relay.relay import Relay
from streaming_encodec.relay.tokens import TokenKey
from streaming_encodec.transport.close_codes import CloseCode
from streaming_encodec.transport.tls import server_tls
from streaming_encodec.wire.control import Joined, serialize_control
from streaming_encodec.wire.hello import Hello

HELLO = serialize_control(Hello("r", "both", FORMAT))


@pytest.fixture
async def relay() -> AsyncIterator[Relay]:
    """A relay that must serve a speaker and a listener after whatever a test did to it."""
    async with running() as relay:
        yield relay
        async with (
            seated(relay, "subscribe", "after") as (ear, _),
            seated(relay, "publish", "after") as (mouth, _),
        ):
            await mouth.send(voice(7))
            assert (await heard(ear))[6] == 7


def changed(data: bytes, at: int, value: int) -> bytes:
    return data[:at] + bytes((value,)) + data[at + 1 :]


@pytest.mark.parametrize(
    ("name", "data", "code"),
    [
        ("empty", b"", CloseCode.BAD_MESSAGE),
        ("truncated", voice(1)[:-1], CloseCode.BAD_MESSAGE),
        ("cut within the head", voice(1)[:5], CloseCode.BAD_MESSAGE),
        ("longer than it says", voice(1) + b"\0", CloseCode.BAD_MESSAGE),
        ("longer than any packet", b"\xe1" + bytes(1500), CloseCode.BAD_MESSAGE),
        ("oversized", b"\xe1" + bytes(4000), CloseCode.TOO_BIG),
        ("huge", bytes(1 << 20), CloseCode.TOO_BIG),
        ("first nibble flipped", changed(voice(1), 0, 0x61), CloseCode.BAD_MESSAGE),
        ("flag flipped", changed(voice(1), 1, 0x80), CloseCode.BAD_MESSAGE),
        ("shape flipped", changed(voice(1), 2, voice(1)[2] ^ 0x80), CloseCode.BAD_MESSAGE),
        ("seven frames", changed(voice(1), 2, 6), CloseCode.BAD_MESSAGE),
        ("width flipped", changed(voice(1), 3, 8), CloseCode.BAD_MESSAGE),
        ("wrong version", changed(voice(1), 0, 0xE2), CloseCode.WRONG_VERSION),
        ("another model's width", voice(1, bits_per_code=11), CloseCode.BAD_MESSAGE),
        ("text that is no message", "hello there", CloseCode.BAD_MESSAGE),
        ("a message of the relay's", serialize_control(Joined(3)), CloseCode.BAD_MESSAGE),
        ("a second hello", HELLO, CloseCode.BAD_MESSAGE),
        ("deep nesting", "[" * 2000, CloseCode.BAD_MESSAGE),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 40 and "{" not in value else "",
)
async def test_bad_messages(relay: Relay, name: str, data: bytes | str, code: CloseCode) -> None:
    async with seated(relay, room="after") as (socket, _):
        await socket.send(data)
        assert await closed_with(socket) == code


async def test_replayed_packets(relay: Relay) -> None:
    async with seated(relay) as (socket, _):
        for sequence in (65535, 65536, 65540, 65538):
            await socket.send(voice(sequence))
        assert await closed_with(socket) == CloseCode.BAD_MESSAGE
    assert relay.metrics.counts["packets_in"] == 3


async def test_random_bytes_close_their_sender_and_nobody_else(relay: Relay) -> None:
    rng = np.random.default_rng(4)
    async with seated(relay, "subscribe") as (ear, _):
        for size in (1, 11, 12, 40, 52, 300, 900):
            async with seated(relay, "publish") as (socket, _):
                await socket.send(rng.bytes(size))
                assert await closed_with(socket) in (CloseCode.BAD_MESSAGE, CloseCode.WRONG_VERSION)
        async with seated(relay, "publish") as (mouth, _):
            await mouth.send(voice(3))
            assert (await heard(ear))[6] == 3


async def test_every_flipped_bit_is_refused_or_stays_a_packet(relay: Relay) -> None:
    good = voice(100)
    refused = 0
    async with seated(relay, "subscribe") as (ear, _):
        for bit in range(8 * 12):
            flipped = changed(good, bit // 8, good[bit // 8] ^ 1 << bit % 8)
            async with seated(relay, "publish") as (mouth, welcome):
                before = counted(relay, "packets_in")
                await mouth.send(flipped)
                while not (passed := counted(relay, "packets_in") > before) and mouth.close_code is None:
                    await asyncio.sleep(0.001)
                if passed:
                    came = await heard(ear)
                    assert len(came) == len(good)
                    assert int.from_bytes(came[4:6], "little") == welcome.sender
                else:
                    assert mouth.close_code in (CloseCode.BAD_MESSAGE, CloseCode.WRONG_VERSION)
                    refused += 1
    assert refused >= 8 + 3 + 8 + 4  # version, unknown flags, shape, width


async def test_another_model(relay: Relay) -> None:
    async with seated(relay), guest(relay) as socket:
        await socket.send(serialize_control(Hello("r", "publish", OTHER)))
        assert await closed_with(socket) == CloseCode.WRONG_MODEL


async def test_a_listener_with_another_model_cannot_keep_a_speaker_out(relay: Relay) -> None:
    async with seated(relay, "subscribe", format=OTHER) as (ear, _), seated(relay, "publish"):
        assert await closed_with(ear) == CloseCode.WRONG_MODEL


@pytest.mark.parametrize("frames", [1, 6])
async def test_frames_too_fast(frames: int) -> None:
    clock = FakeClock()
    async with running(clock=clock) as relay, seated(relay) as (socket, _):
        for sequence in range(150 // frames + 1):
            await socket.send(voice(sequence, frames=frames))
        assert await closed_with(socket) == CloseCode.TOO_FAST
        assert relay.metrics.counts["frames_in"] == 150


async def test_94_frames_a_second_are_not_too_fast() -> None:
    clock = FakeClock()
    async with (
        running(clock=clock) as relay,
        seated(relay, "publish") as (mouth, _),
        seated(relay, "subscribe") as (ear, _),
    ):
        for sequence in range(400):
            clock.now_s += 1 / 93.75
            await mouth.send(voice(sequence))
            await heard(ear)


async def test_control_messages_too_fast(relay: Relay) -> None:
    async with seated(relay, "subscribe") as (socket, _):
        for _ in range(200):
            await socket.send('{"type":"layers","max_codebooks":4}')
        assert await closed_with(socket) == CloseCode.TOO_FAST


async def test_no_hello_in_time() -> None:
    async with running(limits=RelayLimits(hello_s=0.2)) as relay, guest(relay) as socket:
        assert await closed_with(socket) == CloseCode.TIMEOUT


async def test_no_handshake_in_time() -> None:
    async with running(limits=RelayLimits(hello_s=0.2)) as relay:
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n")
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()


@pytest.mark.parametrize("role", ["publish", "both"])
async def test_idle_publisher(role: str) -> None:
    clock = FakeClock()
    async with running(clock=clock) as relay, seated(relay, role) as (socket, _), seated(relay, "subscribe"):
        await socket.send(voice(1))
        await asyncio.sleep(0.05)
        clock.now_s += 15.0
        assert await closed_with(socket) == CloseCode.TIMEOUT


async def test_a_silent_listener_is_not_idle() -> None:
    clock = FakeClock()
    async with running(clock=clock) as relay, seated(relay, "subscribe") as (ear, _):
        clock.now_s += 1000.0
        await asyncio.sleep(0.7)  # longer than the relay's tick
        async with seated(relay, "publish") as (mouth, _):
            await mouth.send(voice(1))
            await heard(ear)


def _claims(**changes: Any) -> str:
    import jwt

    claims = {"aud": "streaming-encodec", "room": "r", "publish": True, "subscribe": True}
    claims |= {"iat": 1000, "exp": 1600, "jti": "one"} | changes
    claims = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(claims, changes.get("key", b"k" * 32), algorithm="HS256")


def _unsigned() -> str:
    import jwt

    return jwt.encode(jwt.decode(_claims(), options={"verify_signature": False}), "", algorithm="none")


@pytest.mark.parametrize("way", ["header", "hello"])
@pytest.mark.parametrize(
    ("name", "token"),
    [
        ("none", None),
        ("nonsense", "x.y.z"),
        ("forged", TokenKey.from_secret(b"j" * 32).sign("r", now_s=1000)),
        ("unsigned", _unsigned()),
        ("bit flipped", KEY.sign("r", now_s=1000)[:-3] + "AAA"),
        ("expired", KEY.sign("r", now_s=0, ttl_s=1000)),
        ("wrong room", KEY.sign("q", now_s=1000)),
        ("valid for years", KEY.sign("r", now_s=1000, ttl_s=1e8)),
        ("no expiry", _claims(exp=None)),
        ("no id", _claims(jti=None)),
        ("another audience", _claims(aud="other")),
        ("expiry is text", _claims(room=["r"])),
        ("publish is text", _claims(publish="yes")),
        ("not before a minute from now", _claims(nbf=1060)),
        ("not before some text", _claims(nbf="1000")),
    ],
)
async def test_bad_tokens(way: str, name: str, token: str | None) -> None:
    async with running(clock=FakeClock(), token_key=KEY) as relay:
        header = {"Authorization": f"Bearer {token}"} if way == "header" and token else {}
        async with guest(relay, additional_headers=header) as socket:
            hello = Hello("r", "both", FORMAT, token=token if way == "hello" else None)
            await socket.send(serialize_control(hello))
            assert await closed_with(socket) == CloseCode.NOT_ALLOWED
            assert socket.close_reason == "no such room, or not allowed in it"


async def test_a_token_is_good_once() -> None:
    token = KEY.sign("r", now_s=1000)
    async with running(clock=FakeClock(), token_key=KEY) as relay:
        async with seated(relay, token=token), guest(relay) as socket:
            await socket.send(serialize_control(Hello("r", "both", FORMAT, token=token)))
            assert await closed_with(socket) == CloseCode.NOT_ALLOWED
        async with seated(relay, token=KEY.sign("r", now_s=1000)):
            pass


@pytest.mark.parametrize(
    ("publish", "subscribe", "role", "fine"),
    [
        (False, True, "subscribe", True),
        (False, True, "publish", False),
        (False, True, "both", False),
        (True, False, "publish", True),
        (True, False, "subscribe", False),
        (True, False, "both", False),
    ],
)
async def test_seats_that_a_token_does_not_allow(publish: bool, subscribe: bool, role: str, fine: bool) -> None:
    token = KEY.sign("r", now_s=1000, publish=publish, subscribe=subscribe)
    async with running(clock=FakeClock(), token_key=KEY) as relay, guest(relay) as socket:
        if fine:
            await enter(socket, role, token=token)
        else:
            await socket.send(serialize_control(Hello("r", role, FORMAT, token=token)))
            assert await closed_with(socket) == CloseCode.NOT_ALLOWED


async def test_a_publisher_in_a_subscribe_only_seat(relay: Relay) -> None:
    async with seated(relay, "subscribe") as (socket, welcome):
        assert welcome.sender == 0
        await socket.send(voice(1))
        assert await closed_with(socket) == CloseCode.NOT_ALLOWED


async def test_no_such_room_and_not_allowed_are_one_answer() -> None:
    answers = set()
    async with (
        running(clock=FakeClock(), token_key=KEY, rooms=frozenset({"r", "s"})) as relay,
        seated(relay, token=KEY.sign("r", now_s=1000)),
    ):
        for room, of in (("r", "s"), ("s", "r"), ("none", "r"), ("none", "none")):
            async with guest(relay) as socket:
                token = KEY.sign(of, now_s=1000)
                await socket.send(serialize_control(Hello(room, "both", FORMAT, token=token)))
                answers.add((await closed_with(socket), socket.close_reason))
    assert answers == {(4403, "no such room, or not allowed in it")}


@pytest.mark.parametrize(
    ("origins", "origin", "fine"),
    [
        ((), None, True),
        ((), "https://evil.example", False),
        (("https://app.example",), "https://app.example", True),
        (("https://app.example",), "https://evil.example", False),
        (("https://app.example",), "null", False),
    ],
)
async def test_foreign_origin(origins: tuple[str, ...], origin: str | None, fine: bool) -> None:
    async with running(origins=origins) as relay:
        if fine:
            async with seated(relay, connection={"origin": origin}):
                return
        with pytest.raises(InvalidStatus) as refused:
            async with guest(relay, origin=origin):
                pass
        assert refused.value.response.status_code == 403


async def test_too_many_connections_of_one_address() -> None:
    async with running(limits=RelayLimits(max_connections_per_address=2)) as relay:
        async with seated(relay), guest(relay):
            with pytest.raises(InvalidStatus) as refused:
                async with guest(relay):
                    pass
            assert refused.value.response.status_code == 429
        async with seated(relay), guest(relay):
            pass


async def test_too_many_connections() -> None:
    async with running(limits=RelayLimits(max_connections=2)) as relay, seated(relay), guest(relay):
        with pytest.raises(InvalidStatus) as refused:
            async with guest(relay):
                pass
        assert refused.value.response.status_code == 503


def _is_open(one: sockets.socket) -> bool:
    try:
        return one.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


async def test_packets_do_not_wait_for_one_another() -> None:
    """Nagle's algorithm would hold a small packet back until the one before it is acknowledged: 40 ms and more."""
    async with running() as relay, seated(relay):
        (connection,) = relay._admission.connections
        accepted = connection.transport.get_extra_info("socket")
        assert accepted.getsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY)


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("limits", [{"max_connections": 2}, {"max_connections_per_address": 2}])
async def test_far_too_many_connections_are_cut_off_unanswered(
    limits: dict[str, int], secure: bool, tmp_path: Path
) -> None:
    """With TLS too, though none of them so much as begins its handshake."""
    options = {"tls": server_tls(*certificate(tmp_path))} if secure else {}
    async with running(limits=RelayLimits(**limits), **options) as relay:
        for _ in range(2):  # what is over is not counted for ever
            held = [sockets.create_connection(("127.0.0.1", relay.port)) for _ in range(90)]
            for one in held:
                one.setblocking(False)
            await until(lambda: sum(map(_is_open, held)) == 2 + 64, "the others were cut off")  # noqa: B023
            assert secure or len(relay._admission.connections) == 2 + 64
            for one in held:
                one.close()
            await until(lambda: not relay._caps.open, "all were counted out")


@pytest.mark.parametrize(
    ("limits", "role", "room"),
    [
        (RelayLimits(max_rooms=1), "both", "another"),
        (RelayLimits(max_speakers=1), "publish", "r"),
        (RelayLimits(max_speakers=1), "both", "r"),
        (RelayLimits(max_peers=1), "subscribe", "r"),
    ],
)
async def test_too_many_rooms_speakers_or_peers(limits: RelayLimits, role: str, room: str) -> None:
    async with running(limits=limits) as relay, seated(relay), guest(relay) as socket:
        await socket.send(serialize_control(Hello(room, role, FORMAT)))
        assert await closed_with(socket) == CloseCode.TRY_LATER


async def test_a_full_room_does_not_use_up_a_token() -> None:
    token = KEY.sign("r", now_s=1000)
    async with running(clock=FakeClock(), token_key=KEY, limits=RelayLimits(max_peers=1)) as relay:
        async with seated(relay, token=KEY.sign("r", now_s=1000)), guest(relay) as socket:
            await socket.send(serialize_control(Hello("r", "both", FORMAT, token=token)))
            assert await closed_with(socket) == CloseCode.TRY_LATER
        async with seated(relay, token=token):
            pass


async def test_compressed_frames(relay: Relay) -> None:
    async with guest(relay, extensions=[ClientPerMessageDeflateFactory()]) as socket:
        assert socket.protocol.extensions == []  # offered, and not taken
        await enter(socket)
        frame = Frame(Opcode.BINARY, voice(1)).serialize(mask=True)
        socket.transport.write(changed(frame, 0, frame[0] | 0x40))  # RSV1: "this is compressed"
        assert await closed_with(socket) == CloseCode.PROTOCOL_ERROR


@pytest.mark.parametrize("greeted", [False, True])
async def test_a_message_of_empty_fragments_without_end(relay: Relay, greeted: bool) -> None:
    """No fragment counts towards the longest message, so their number is what must be bounded."""
    async with guest(relay) as socket:
        if greeted:
            await enter(socket)
        socket.transport.write(Frame(Opcode.TEXT, b"", fin=False).serialize(mask=True))
        fragment = Frame(Opcode.CONT, b"", fin=False).serialize(mask=True)
        for _ in range(50):
            socket.transport.write(100 * fragment)
        # Or sooner, for frames that come too fast.
        assert await closed_with(socket) in (CloseCode.TOO_BIG, 1008, CloseCode.TOO_FAST)


async def test_unmasked_frames(relay: Relay) -> None:
    async with seated(relay) as (socket, _):
        socket.transport.write(Frame(Opcode.BINARY, voice(1)).serialize(mask=False))
        assert await closed_with(socket) == CloseCode.PROTOCOL_ERROR


async def test_text_that_is_not_utf8(relay: Relay) -> None:
    async with seated(relay) as (socket, _):
        await socket.send(b'{"type":"\xff"}', text=True)
        assert await closed_with(socket) == CloseCode.INVALID_TEXT


async def test_another_subprotocol_is_not_spoken(relay: Relay) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with guest(relay, subprotocols=["streaming-encodec.v9"]):
            pass
    assert refused.value.response.status_code == 400


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"protocol": 2}, CloseCode.WRONG_VERSION),
        ({"protocol": "1"}, CloseCode.BAD_MESSAGE),
        ({"role": "king"}, CloseCode.BAD_MESSAGE),
        ({"room": ""}, CloseCode.BAD_MESSAGE),
        ({"room": "x" * 65}, CloseCode.BAD_MESSAGE),
        ({"room": "a\nb"}, CloseCode.BAD_MESSAGE),
        ({"format": None}, CloseCode.BAD_MESSAGE),
        ({"format": FORMAT.to_dict() | {"frame_samples": 1}}, CloseCode.BAD_MESSAGE),
        ({"token": 5}, CloseCode.BAD_MESSAGE),
        ({"type": "layers"}, CloseCode.BAD_MESSAGE),
    ],
)
async def test_bad_hellos(relay: Relay, change: dict[str, Any], code: CloseCode) -> None:
    async with guest(relay) as socket:
        await socket.send(json.dumps(json.loads(HELLO) | change))
        assert await closed_with(socket) == code


async def test_a_packet_before_the_hello(relay: Relay) -> None:
    async with guest(relay) as socket:
        await socket.send(voice(1))
        assert await closed_with(socket) == CloseCode.BAD_MESSAGE


async def test_strangers_resumption_tokens_are_nothing_worth(relay: Relay) -> None:
    async with seated(relay, room="a") as (mine, welcome):
        async with seated(relay, room="b", resume=welcome.resume) as (_, other):
            assert not other.resumed
        async with seated(relay, "subscribe", room="a", resume=welcome.resume) as (_, other):
            assert not other.resumed
        await mine.send(voice(1))


@pytest.mark.parametrize("host", ["0.0.0.0", "", "::", "192.0.2.1", "relay.example"])
def test_a_bind_open_to_the_world_needs_tokens_and_tls(host: str) -> None:
    import ssl

    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for options in ({}, {"token_key": KEY}, {"tls": tls}):
        with pytest.raises(ConfigError, match="insecure"):
            RelayConfig(host, **options)
    RelayConfig(host, token_key=KEY, tls=tls)
    RelayConfig(host, insecure=True)
    for name in ("127.0.0.1", "::1", "localhost", "127.8.8.8"):
        RelayConfig(name)


@pytest.mark.parametrize("field", ["queue_frames", "hello_s", "max_rooms"])
def test_limits_are_positive(field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        replace(RelayLimits(), **{field: 0})


def test_no_more_may_speak_than_a_client_hears() -> None:
    RelayLimits(max_speakers=64)
    with pytest.raises(ConfigError, match="max_speakers is at most 64"):
        RelayLimits(max_speakers=65)
