"""A guest who sends more than anybody needs: it is put out after little work, and the calls of others go on."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest
from raw_kit import FIRST_FRAGMENT, FRAGMENT, PING, PONG, binary, raw, text
from relay_kit import FakeClock, certificate, closed_with, counted, guest, heard, running, seated, until, voice
from websockets.frames import Frame, Opcode

from streaming_encodec.bench.relay import flood as measure
from streaming_encodec.bench.relay import udp_flood
from streaming_encodec.bench.relay_flood import FLOODS, UDP_FLOODS
from streaming_encodec.bench.relay_process import relay_process
from streaming_encodec.relay.limits import RelayLimits
from streaming_encodec.relay.relay import Relay
from streaming_encodec.transport.close_codes import CloseCode
from streaming_encodec.transport.limits import FIRST_BYTES, OUTAGE_S, UNANSWERED_CONNECTIONS, Bucket
from streaming_encodec.transport.tls import client_tls, server_tls
from streaming_encodec.transport.websocket.server import Intake, WebSocketServerConnection

FRAMES = 100_000
"""Of six bytes each, 600 kB: without a budget these keep a relay busy for seconds."""


@asynccontextmanager
async def a_call(relay: Relay, context: ssl.SSLContext | None = None) -> AsyncIterator[Callable[[], int]]:
    """A speaker and a listener in a room of their own; gives the number of packets that arrived, one after another."""
    options = {} if context is None else {"ssl": context}
    arrived = 0

    async def go_on() -> None:
        nonlocal arrived
        while True:
            await mouth.send(voice(arrived, timestamp=round(75 * relay._clock())))
            assert (await heard(ear))[6] == arrived % 256
            arrived += 1
            await asyncio.sleep(1 / 75)

    async with (
        seated(relay, "subscribe", "call", options) as (ear, _),
        seated(relay, "publish", "call", options) as (mouth, _),
    ):
        talk = asyncio.create_task(go_on())
        try:
            yield lambda: arrived
            before = arrived
            await until(lambda: talk.done() or arrived >= before + 10, "the call went on after the flood")
            if talk.done():
                talk.result()
        finally:
            talk.cancel()


def secured(secure: bool, folder: Path) -> tuple[dict[str, ssl.SSLContext], ssl.SSLContext | None]:
    if not secure:
        return {}, None
    files = certificate(folder)
    return {"tls": server_tls(*files)}, client_tls(files[0])


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("stage", ["no hello yet", "seated"])
@pytest.mark.parametrize(
    ("kind", "flood"),
    [
        ("pings", PING * FRAMES),
        ("long pings", Frame(Opcode.PING, bytes(125)).serialize(mask=True) * (FRAMES // 20)),
        ("pongs", PONG * FRAMES),
        ("empty fragments", FIRST_FRAGMENT + FRAGMENT * FRAMES),
        ("empty fragments between pings", FIRST_FRAGMENT + (FRAGMENT + PING) * (FRAMES // 2)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_flood_of_frames_is_put_out_after_little_work(
    kind: str, flood: bytes, stage: str, secure: bool, tmp_path: Path
) -> None:
    options, context = secured(secure, tmp_path)
    async with (
        running(clock=FakeClock(), limits=RelayLimits(outage_s=1000.0, burst_s=1000.0), **options) as relay,
        a_call(relay, context),
        raw(relay, context) as attacker,
    ):
        await attacker.upgrade()
        if stage == "seated":
            await attacker.take_seat()
        attacker.write(flood)
        code, pongs = await attacker.until_closed()
        assert code == CloseCode.TOO_FAST
        assert pongs <= 100  # the budget, and what fits into the piece that was read last
        assert relay.metrics.closed == {CloseCode.TOO_FAST: 1}


@pytest.mark.parametrize("flood", [PING * FRAMES, FIRST_FRAGMENT + FRAGMENT * FRAMES], ids=["pings", "fragments"])
async def test_the_rest_of_a_flood_is_not_read(flood: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The WebSocket layer resumes reading by itself when messages were taken out of its queue."""
    pieces = 0
    take_in = WebSocketServerConnection.data_received

    def noting(connection: WebSocketServerConnection, data: bytes) -> None:
        nonlocal pieces
        pieces += 1
        take_in(connection, data)

    async with running(clock=FakeClock()) as relay, raw(relay) as attacker:
        await attacker.upgrade()
        await attacker.take_seat()
        monkeypatch.setattr(WebSocketServerConnection, "data_received", noting)
        attacker.write(flood)
        await until(lambda: not relay._admission.connections, "it was cut off")
    assert pieces < 20


async def test_the_load_generators_floods_are_put_out() -> None:
    """No figures are asserted, only that the program runs, and that each of its floods meets a limit."""
    with relay_process(RelayLimits()) as relay:
        results = await measure(relay, attackers=4, seconds=0.5)
        after = await asyncio.to_thread(urlopen, f"http://127.0.0.1:{relay.port}/metrics")
    assert [result["flood"] for result in results] == ["none", *FLOODS, "none"]
    assert all(result["missing"] == 0 and result["packets_out"] > 0 for result in results)
    text = after.read().decode()
    assert 'closed_total{code="4429"}' in text
    assert "cut_off_total 0.0" not in text


async def test_pings_within_the_budget_are_answered() -> None:
    clock = FakeClock()
    async with running(clock=clock) as relay, seated(relay, "subscribe") as (socket, _):
        for _ in range(100):
            clock.now_s += 1 / 16
            await asyncio.wait_for(await socket.ping(), 10)


async def test_a_message_in_a_few_fragments_is_a_message() -> None:
    async with (
        running() as relay,
        seated(relay, "subscribe") as (ear, _),
        seated(relay, "publish") as (mouth, _),
    ):
        packet = voice(5)
        await mouth.send([packet[:20], packet[20:30], b"", packet[30:]])
        assert (await heard(ear))[6] == 5


async def test_the_load_generators_udp_floods_reach_the_port_and_the_calls_go_on() -> None:
    with relay_process(RelayLimits(), datagrams=True) as relay:
        results = await udp_flood(relay, attackers=2, seconds=0.3)
    assert [result["flood"] for result in results] == ["none", *UDP_FLOODS, "none"]
    assert all((result.get("packets", 0) > 0) == (result["flood"] != "none") for result in results)
    assert all(of["listeners"] >= 14 for result in results for of in result["ways"].values())
    assert all(result["ways"]["websocket"]["missing"] == 0 for result in results)


@pytest.mark.parametrize("header", [b"X: " + b"y" * 8000 + b"\r\n", b"X: y\r\n", b"y"], ids=["long", "many", "endless"])
async def test_a_flood_of_headers_is_cut_off(header: bytes) -> None:
    async with running(clock=FakeClock()) as relay, a_call(relay), raw(relay) as attacker:
        attacker.write(b"GET / HTTP/1.1\r\nHost: x\r\n" + header * (1_000_000 // len(header)))
        answer = await attacker.until_end()
        assert answer == b"" or answer.startswith((b"HTTP/1.1 431", b"HTTP/1.1 414"))
        await until(lambda: len(relay._admission.connections) == 2, "it is gone")


async def test_more_bytes_than_a_request_and_a_hello_are_cut_off() -> None:
    async with running(clock=FakeClock()) as relay, raw(relay) as attacker:
        line = b"X: " + b"y" * 6000 + b"\r\n"  # each within the limits of HTTP libraries
        attacker.write(b"GET / HTTP/1.1\r\nHost: x\r\n" + line * 4)
        assert await attacker.until_end() == b""
        assert counted(relay, "cut_off") == 1


async def test_a_flood_of_bytes_in_a_seat() -> None:
    limits = RelayLimits(bytes_per_s=1000.0)
    async with running(clock=FakeClock(), limits=limits) as relay, raw(relay) as attacker:
        await attacker.upgrade()
        await attacker.take_seat()
        attacker.write(text('{"type":"layers","max_codebooks":4' + " " * 1000 + "}") * 20)
        code, _ = await attacker.until_closed()
        assert code == CloseCode.TOO_FAST
        assert counted(relay, "joins") == 1


async def test_others_have_their_turn_within_a_burst() -> None:
    """A burst that the limits allow goes to many listeners, yet a packet of another room does not wait for its end."""
    order: list[str] = []
    async with running() as relay, raw(relay) as many, raw(relay) as other:
        for speaker, room in ((many, "many"), (other, "other")):
            await speaker.upgrade()
            await speaker.take_seat("publish", room)
        fan_out = relay._calls._fan_out

        def noting(seat: object, data: bytes, **options: bool) -> None:
            order.append(seat.room.name)  # type: ignore[attr-defined]
            fan_out(seat, data, **options)  # type: ignore[arg-type]

        relay._calls._fan_out = noting  # type: ignore[method-assign,assignment]
        many.write(b"".join(binary(voice(n)) for n in range(150)))
        other.write(binary(voice(1)))
        await until(lambda: len(order) == 151, "all came through")
    assert order.index("other") < 20


async def test_an_address_that_opens_connections_over_and_over() -> None:
    clock = FakeClock()
    limits = RelayLimits(max_connections_per_address=4)
    async with running(clock=clock, limits=limits) as relay, a_call(relay):
        most = 2 * (4 + UNANSWERED_CONNECTIONS)

        async def come_and_go(times: int) -> None:
            for _ in range(times):
                async with raw(relay) as client:
                    client.write(b"x")

        await come_and_go(most - 2)  # two have the call
        assert counted(relay, "cut_off") == 0
        await come_and_go(3)
        await until(lambda: counted(relay, "cut_off") == 3, "more are cut off")
        clock.now_s += 1.0
        await come_and_go(4)
        async with raw(relay) as client:
            assert await client.until_end() == b""
        assert counted(relay, "cut_off") == 4


async def test_bytes_of_which_tls_makes_nothing(tmp_path: Path) -> None:
    """A client hello of the longest kind, which is buffered until it is whole."""
    options, _ = secured(True, tmp_path)
    limits = RelayLimits(bytes_per_s=1000.0, hello_s=1000.0)
    async with running(clock=FakeClock(), limits=limits, **options) as relay, raw(relay) as attacker:
        attacker.write(b"\x16\x03\x01\x40\x00\x01\x00\x7f\xff" + bytes(16_380))
        attacker.write(b"\x16\x03\x01\x40\x00" + bytes(10_000))
        assert await attacker.until_end() == b""
        await until(lambda: not relay._caps.open, "it is gone")


async def test_addresses_are_forgotten() -> None:
    clock = FakeClock()
    async with running(clock=clock) as relay:
        caps = relay._caps
        for number in range(20_000):
            clock.now_s += 0.01
            over = caps.admit(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
            assert over is not None
            over()
        assert len(caps._addresses) <= 2048


def test_the_budget_of_a_connection() -> None:
    limits = RelayLimits()
    ping, whole, part = Frame(Opcode.PING, b""), Frame(Opcode.BINARY, b"x"), Frame(Opcode.BINARY, b"x", fin=False)
    intake = Intake(limits, 0.0)
    assert intake.data(FIRST_BYTES, 0.0)
    assert not intake.data(1, 0.0)
    assert all(intake.frame(frame, 0.0) for frame in (ping, whole, part, ping) * 8)
    for frame in (ping, whole, part):
        assert not intake.frame(frame, 0.0)
    intake.admitted(0.0)
    assert intake.data(8 * 131_072, 0.0)
    assert not intake.data(1, 0.0)
    assert all(intake.frame(whole, 0.0) for _ in range(1000))  # counted as packets or control messages
    assert not intake.frame(ping, 0.0)
    assert intake.frame(part, 1.0)


# -- bursts after an outage ---------------------------------------------------------------------------------


def test_what_an_outage_held_back_is_forgiven_once() -> None:
    bucket = Bucket(100.0, 200.0, 0.0, forgiven=1000.0)
    assert not bucket.take(201, 0.0)
    assert bucket.take(200 + 400, 4.0)
    assert not bucket.take(1, 4.0)
    assert bucket.take(200, 6.0 - 1e-9 + OUTAGE_S)
    assert not bucket.take(200, 6.0 + OUTAGE_S)


def test_an_outage_is_forgiven_within_a_bound() -> None:
    bucket = Bucket(100.0, 200.0, 0.0, forgiven=1000.0)
    assert not bucket.take(1201, 500.0)
    assert bucket.take(1200, 500.0)


def test_what_is_not_used_of_it_is_gone_after_as_long_a_time() -> None:
    bucket = Bucket(100.0, 200.0, 0.0, forgiven=1000.0)
    now_s = 4.0
    assert bucket.take(0, now_s)
    for _ in range(40):
        now_s += 0.1
        assert bucket.take(0, now_s)
    assert not bucket.take(201, now_s)


def test_pauses_between_packets_are_no_outage() -> None:
    bucket = Bucket(100.0, 200.0, 0.0, forgiven=1000.0)
    assert all(bucket.take(0, 0.99 * n) for n in range(100))
    assert not bucket.take(201, 99.0)


async def test_a_speaker_whose_network_stood_still_is_not_put_out() -> None:
    clock = FakeClock()
    async with (
        running(clock=clock) as relay,
        seated(relay, "subscribe") as (ear, _),
        seated(relay, "publish") as (mouth, _),
    ):
        await mouth.send(voice(0))
        await heard(ear)
        clock.now_s += 6.0
        for sequence in range(1, 451):
            await mouth.send(voice(sequence))
        await until(lambda: counted(relay, "packets_in") == 451, "all are let through")
        assert counted(relay, "packets_late") == 419  # and those that can still be heard are passed on
        # What is passed on has the burst and as much as the outage could hold back: 150 and 562 frames, of which 32
        # went.
        for sequence in range(451, 1200):
            await mouth.send(voice(sequence))
        assert await closed_with(mouth) == CloseCode.TOO_FAST


async def test_nobodys_time_runs_out_while_the_relay_itself_stands_still() -> None:
    clock = FakeClock()
    async with running(clock=clock) as relay, seated(relay, "publish") as (mouth, _):
        await mouth.send(voice(1))
        await until(lambda: counted(relay, "packets_in") == 1, "it was heard")
        clock.now_s += 20.0
        relay._stood_still(20.0)
        relay._sweep(asyncio.get_running_loop().time())
        assert not relay.metrics.closed
        clock.now_s += 15.0
        relay._sweep(asyncio.get_running_loop().time())
        assert await closed_with(mouth) == CloseCode.TIMEOUT
        assert counted(relay, "stalls") == 1


async def test_the_relay_notices_that_it_stood_still() -> None:
    import time

    async with running() as relay, guest(relay):
        time.sleep(2.0)  # blocks the relay's loop
        await until(lambda: counted(relay, "stalls") == 1, "it was noticed")
