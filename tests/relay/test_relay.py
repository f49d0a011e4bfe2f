"""The relay's driver: slow readers, resuming, draining, plain HTTP, TLS, logs, no torch."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from relay_kit import (
    KEY,
    FakeClock,
    certificate,
    closed_with,
    counted,
    enter,
    fetch,
    guest,
    heard,
    running,
    seated,
    told,
    until,
    voice,
)
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode

from streaming_encodec.bench.bare_client import BareListener, churn_once
from streaming_encodec.errors import CallError, CallErrorReason, ConfigError
from streaming_encodec.relay.config import RelayConfig
from streaming_encodec.relay.limits import RelayLimits
from streaming_encodec.relay.relay import Relay
from streaming_encodec.transport.close_codes import CloseCode
from streaming_encodec.transport.tls import client_tls, server_tls
from streaming_encodec.wire.control import Bye, Joined, Left, Report, serialize_control
from streaming_encodec.wire.hello import Welcome
from streaming_encodec.wire.packet import parse_packet


async def test_rooms_do_not_hear_each_other_and_nobody_hears_himself() -> None:
    async with (
        running() as relay,
        seated(relay, room="a") as (one, _),
        seated(relay, room="a") as (two, _),
        seated(relay, room="b") as (other, _),
    ):
        for sequence in range(20):
            await one.send(voice(sequence))
            await other.send(voice(100 + sequence))
            assert (await heard(two))[6] == sequence
        await two.send(voice(50))
        assert (await heard(one))[6] == 50
        await one.close()
        await two.close()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await heard(other)


async def test_the_relay_writes_the_senders_number_whatever_the_sender_wrote() -> None:
    async with running() as relay, seated(relay, "publish") as (mouth, welcome), seated(relay) as (ear, _):
        await mouth.send(voice(1, sender=999))
        packet = parse_packet(await heard(ear))
        assert packet.sender == welcome.sender
        assert packet == parse_packet(voice(1, sender=welcome.sender))


async def test_a_listener_gets_as_many_codebooks_as_it_asked_for() -> None:
    async with (
        running() as relay,
        seated(relay, "subscribe", max_codebooks=2) as (narrow, _),
        seated(relay, "subscribe") as (wide, _),
        seated(relay, "publish") as (mouth, _),
    ):
        await mouth.send(voice(1, codebooks=8, frames=3))
        full, cut = parse_packet(await heard(wide)), parse_packet(await heard(narrow))
        assert full.codes is not None
        assert cut.codes is not None
        assert np.array_equal(cut.codes, full.codes[:2])
        await narrow.send('{"type":"layers","max_codebooks":5}')
        await until(lambda: any(s.max_codebooks == 5 for s in relay._rooms.rooms["r"].listeners), "new layers")
        await mouth.send(voice(2, codebooks=8))
        assert parse_packet(await heard(narrow)).num_codebooks == 5


async def test_comings_goings_and_reports_are_told() -> None:
    async with running() as relay, seated(relay) as (one, here):
        async with seated(relay) as (two, there):
            assert there.speakers == (here.sender,)
            assert await told(one) == Joined(there.sender)
            await one.send(serialize_control(Report(there.sender, 0.25, 0.1, 2.0, 5.0, 40.0)))
            assert await told(two) == Report(there.sender, 0.25, 0.1, 2.0, 5.0, 40.0, listener=here.sender)
        assert await told(one) == Left(there.sender)


def narrow(relay: Relay) -> dict[str, Any]:
    """A connection whose kernel holds little, so that a test need not fill megabytes."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", relay.port))
    sock.setblocking(False)
    return {"sock": sock}


@pytest.mark.parametrize("secure", [False, True])
async def test_a_stalled_listener_costs_no_memory_and_nobody_elses_packets(secure: bool, tmp_path: Path) -> None:
    limits = RelayLimits(stall_s=1.0)
    options = {"tls": server_tls(*certificate(tmp_path))} if secure else {}
    secured = {"ssl": client_tls(tmp_path / "cert.pem")} if secure else {}
    clock = FakeClock()
    async with (
        running(limits=limits, clock=clock, **options) as relay,
        seated(relay, "subscribe", connection=narrow(relay) | secured) as (stuck, _),
        seated(relay, "subscribe", connection=secured) as (ear, _),
        seated(relay, "publish", connection=secured) as (mouth, _),
    ):
        stuck.transport.pause_reading()
        connection = next(iter(relay._rooms.rooms["r"].participants.values())).peer
        assert connection is not None
        most = 0
        for sequence in range(60_000):
            clock.now_s += 6 / 75
            await mouth.send(voice(0x8000 + sequence, codebooks=32, frames=6))
            await heard(ear)
            most = max(most, connection.transport.get_write_buffer_size() + 300 * connection.outbox.frames)
            if relay.metrics.closed[CloseCode.STALLED]:
                break
        assert relay.metrics.closed[CloseCode.STALLED] == 1
        assert relay.metrics.counts["evictions"] == 1
        assert relay.metrics.counts["packets_dropped"] > 0
        # 20 frames of 40 bytes and heads in the queue, and what the transport took before it said stop.
        assert most < 20_000
        await until(lambda: len(relay._admission.connections) == 2, "it was put out")
        stuck.transport.resume_reading()


@pytest.mark.parametrize("secure", [False, True])
async def test_pings_whose_answers_are_not_read_cost_no_memory(secure: bool, tmp_path: Path) -> None:
    options = {"tls": server_tls(*certificate(tmp_path))} if secure else {}
    secured = {"ssl": client_tls(tmp_path / "cert.pem")} if secure else {}
    pings = Frame(Opcode.PING, bytes(125)).serialize(mask=True) * 100
    most = 0
    async with (
        running(**options) as relay,
        seated(relay, "subscribe", connection=narrow(relay) | secured) as (stuck, _),
    ):
        stuck.transport.pause_reading()
        (connection,) = relay._admission.connections
        for _ in range(1000):  # 13 MB
            stuck.transport.write(pings)
            await asyncio.sleep(0.001)
            most = max(most, connection.transport.get_write_buffer_size())
            if connection.transport.is_closing():
                break
        await until(lambda: not relay._admission.connections, "it was cut off")
        stuck.transport.abort()
    assert most < 300_000  # the limit, and answers to what comes in one piece of at most 256 KiB


async def test_reports_that_a_speaker_does_not_read_do_not_put_him_out() -> None:
    """In a room of hundreds there are as many a second, and a network stands still for longer than that."""
    limits = RelayLimits(controls_per_s=1e6, stall_s=60.0)
    async with (
        running(limits=limits) as relay,
        seated(relay, "both", connection=narrow(relay)) as (mouth, welcome),
        seated(relay, "subscribe") as (ear, _),
    ):
        connection = relay._rooms.rooms["r"].participants[welcome.sender].peer
        assert connection is not None
        mouth.transport.pause_reading()
        report = serialize_control(Report(welcome.sender, 0.1, 0.1, 1.0, 5.0, 40.0))
        for _ in range(10_000):
            await ear.send(report)
            if connection.outbox:
                break
        for _ in range(200):
            await ear.send(report)
        async with seated(relay, "publish") as (_, other):  # who comes must be told all the same
            pass
        assert not relay.metrics.closed
        mouth.transport.resume_reading()
        while (message := await told(mouth)) != Joined(other.sender):
            assert isinstance(message, Report)
        await mouth.send(voice(1))
        assert (await heard(ear))[6] == 1


async def test_a_slow_listener_that_recovers_hears_the_newest() -> None:
    clock = FakeClock()
    async with (
        running(clock=clock) as relay,
        seated(relay, "subscribe", connection=narrow(relay)) as (slow, _),
        seated(relay, "subscribe") as (ear, _),
        seated(relay, "publish") as (mouth, _),
    ):
        slow.transport.pause_reading()
        sequence = 0
        while counted(relay, "packets_dropped") < 20:
            clock.now_s += 6 / 75
            await mouth.send(voice(sequence, codebooks=32, frames=6))
            await heard(ear)
            sequence += 1
        slow.transport.resume_reading()
        last = -1
        while last != sequence - 1:
            number = parse_packet(await heard(slow)).sequence
            assert number > last
            last = number


async def test_a_lost_connection_keeps_its_number_and_its_token_is_not_asked_again() -> None:
    async with running(clock=FakeClock(), token_key=KEY) as relay:
        async with (
            seated(relay, "subscribe", token=KEY.sign("r", now_s=1000)) as (ear, _),
            seated(relay, "publish", token=KEY.sign("r", now_s=1000)) as (mouth, welcome),
        ):
            assert await told(ear) == Joined(welcome.sender)
            await mouth.send(voice(7))
            await heard(ear)
            mouth.transport.abort()
            await until(lambda: len(relay._rooms.rooms["r"].listeners) == 1, "loss noticed")
            async with seated(relay, "publish", resume=welcome.resume) as (again, resumed):
                assert resumed == Welcome(welcome.sender, resumed.resume, resumed=True)
                assert resumed.resume != welcome.resume
                assert (
                    relay._rooms._resumption_tokens.holder(welcome.resume or "") is not None
                )  # the answer may be lost
                await again.send(voice(8))
                assert (await heard(ear))[6] == 8
                assert relay._rooms._resumption_tokens.holder(welcome.resume or "") is None
                await again.send(serialize_control(Bye("done")))
            assert await told(ear) == Left(welcome.sender)
        async with guest(relay) as socket:
            with pytest.raises(ConnectionClosed):
                await enter(socket, "publish", resume=resumed.resume)
            assert socket.close_code == CloseCode.NOT_ALLOWED


async def test_a_seat_taken_again_closes_the_connection_that_still_stood() -> None:
    async with (
        running() as relay,
        seated(relay) as (old, welcome),
        seated(relay, resume=welcome.resume) as (_, again),
    ):
        assert again.sender == welcome.sender
        assert await closed_with(old) == CloseCode.REPLACED
        assert relay._rooms.participants == 1


async def test_draining_lets_calls_end_and_nobody_in() -> None:
    async with running(drain_s=5.0) as relay:
        async with seated(relay) as (one, _), seated(relay, "subscribe") as (ear, _):
            relay.drain()
            assert (await fetch(relay, "/healthz"))[0] == 503
            with pytest.raises(InvalidStatus):
                async with guest(relay):
                    pass
            await one.send(voice(1))
            assert (await heard(ear))[6] == 1
        await asyncio.wait_for(relay.drained(), 4)


async def test_stopping_says_goodbye_and_come_back() -> None:
    async with running() as relay, guest(relay) as waiting, seated(relay) as (one, _):
        stopping = asyncio.create_task(relay.stop())
        goodbye = await told(one)
        assert isinstance(goodbye, Bye)
        assert goodbye.retry_s is not None
        assert await closed_with(one) == CloseCode.RESTARTING
        assert await closed_with(waiting) == CloseCode.RESTARTING
        await stopping


async def test_stopping_does_not_wait_for_who_does_not_read() -> None:
    async with running() as relay:
        stuck = await BareListener.join(relay.port, "r", _format(), stalled=True)
        await asyncio.wait_for(relay.stop(), 5)
        stuck.close()


async def test_a_port_that_is_taken() -> None:
    async with running() as relay:
        with pytest.raises(CallError, match="cannot listen") as told:
            await Relay(RelayConfig(port=relay.port)).start()
        assert told.value.reason is CallErrorReason.CANNOT_LISTEN


async def test_connections_that_come_and_go_leave_nothing_behind() -> None:
    async with running(limits=RelayLimits(max_connections_per_address=500, resume_s=0.5)) as relay:

        async def round_() -> tuple[int, int]:
            for at in range(0, 100, 25):
                rooms = [f"room {i % 7}" for i in range(at, at + 25)]
                await asyncio.gather(
                    *(churn_once(relay.port, room, _format(), clean=i % 2 == 0) for i, room in enumerate(rooms))
                )
            await until(lambda: not relay._admission.connections and not relay._rooms.participants, "all gone")
            await asyncio.sleep(0.1)
            gc.collect()
            descriptors = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
            return len(asyncio.all_tasks()), descriptors

        first = await round_()
        for _ in range(3):
            assert await round_() == first
        assert not relay._rooms.rooms
        assert not relay._admission._addresses
        assert not relay._calls._tasks


async def test_tls(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    async with running(tls=server_tls(cert, key)) as relay:
        assert relay.url.startswith("wss://")
        async with (
            seated(relay, connection={"ssl": client_tls(cert)}) as (one, _),
            seated(relay, "subscribe", connection={"ssl": client_tls(cert)}) as (ear, _),
        ):
            await one.send(voice(9))
            assert (await heard(ear))[6] == 9
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
    for bad in ((key, cert), (tmp_path / "none", key)):
        with pytest.raises(ConfigError, match="TLS certificate"):
            server_tls(*bad)
    with pytest.raises(ConfigError, match="certificate"):
        client_tls(key)


def test_the_relay_needs_no_torch() -> None:
    code = (
        "import sys, streaming_encodec.relay.relay, streaming_encodec.client.link, streaming_encodec.call.mixer, "
        "streaming_encodec.cli.commands.serve, streaming_encodec.cli.commands.token; "
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def _format() -> object:
    from relay_kit import FORMAT

    return FORMAT
