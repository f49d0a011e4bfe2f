"""No connection stays for ever: whatever a client leaves undone, the relay ends the connection after a moment."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from raw_kit import RawClient, hello, raw, text
from relay_kit import FORMAT, FakeClock, certificate, closed_with, counted, guest, running, seated, until, voice
from websockets.frames import Frame, Opcode

from streaming_encodec.relay.limits import RelayLimits
from streaming_encodec.relay.relay import Relay
from streaming_encodec.transport.close_codes import CloseCode
from streaming_encodec.transport.tls import server_tls
from streaming_encodec.wire.control import Bye, Left, parse_control, serialize_control
from streaming_encodec.wire.hello import Hello

BYE = serialize_control(Bye("done"))
CLOSE = Frame(Opcode.CLOSE, struct.pack("!H", 1000)).serialize(mask=True)


async def all_ended(relay: Relay) -> None:
    await until(lambda: not relay._admission.connections and not relay._caps.open, "the relay ended all connections")


@pytest.mark.parametrize("role", ["publish", "subscribe", "both"])
async def test_a_goodbye_is_answered_with_1000(role: str) -> None:
    async with running() as relay, seated(relay, role) as (socket, _):
        await socket.send(BYE)
        assert await closed_with(socket) == CloseCode.NORMAL
        await all_ended(relay)
        assert relay._rooms.participants == 0
        assert relay.metrics.closed == {CloseCode.NORMAL: 1}


async def test_a_goodbye_frees_the_seat_before_its_connection_ends() -> None:
    async with running() as relay, seated(relay, "subscribe") as (ear, _), raw(relay) as client:
        await client.upgrade()
        await client.take_seat("publish")
        client.write(text(BYE))
        messages = [parse_control(str(await asyncio.wait_for(ear.recv(), 10))) for _ in range(2)]
        assert isinstance(messages[1], Left)


async def test_a_page_that_is_loaded_again_finds_its_seat_and_one_that_was_closed_leaves_soon() -> None:
    clock = FakeClock()
    async with running(clock=clock) as relay, seated(relay, "subscribe"):

        def lost() -> bool:
            return any(one.peer is None for one in relay._rooms.rooms["r"].participants.values())

        async with seated(relay) as (page, first):
            await page.close(1001)
        await until(lost, "the relay saw it")
        clock.now_s += 9
        async with seated(relay, resume=first.resume) as (page, again):
            assert (again.resumed, again.sender) == (True, first.sender)
            await page.close(1001)
        await until(lost, "the relay saw it")
        clock.now_s += 11
        await until(lambda: relay._rooms.participants == 1, "the seat is free")


async def test_goodbyes_do_not_lock_an_address_out() -> None:
    limits = RelayLimits(max_connections_per_address=2)
    async with running(limits=limits, clock=FakeClock()) as relay:
        for _ in range(8):
            async with raw(relay) as client:
                await client.upgrade()
                await client.take_seat()
                client.write(text(BYE))
                assert (await client.until_closed())[0] == CloseCode.NORMAL
                client.write(CLOSE)
                assert await client.until_end() == b""


async def nothing(client: RawClient) -> None:
    """Not a byte."""


async def half_a_request(client: RawClient) -> None:
    client.write(b"GET / HTTP/1.1\r\nHost: x\r\n")


async def a_page_kept_alive(client: RawClient) -> None:
    client.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n")
    assert b"ok" in await client.reader.readuntil(b"ok\n")


async def no_hello(client: RawClient) -> None:
    await client.upgrade()


async def half_a_hello(client: RawClient) -> None:
    await client.upgrade()
    client.write(hello()[:-5])


async def a_bad_hello(client: RawClient) -> None:
    await client.upgrade()
    client.write(text("hello"))


async def a_goodbye(client: RawClient) -> None:
    await client.upgrade()
    await client.take_seat()
    client.write(text(BYE))


async def a_broken_frame(client: RawClient) -> None:
    await client.upgrade()
    await client.take_seat()
    client.write(b"\xff\xff")


async def a_close_frame(client: RawClient) -> None:
    await client.upgrade()
    await client.take_seat()
    client.write(CLOSE)


async def a_seat_and_half_a_message(client: RawClient) -> None:
    await client.upgrade()
    await client.take_seat("publish")
    client.write(b"\x02\xe4\0\0\0\0abc")


@pytest.mark.parametrize(
    "leave_off",
    [
        nothing,
        half_a_request,
        a_page_kept_alive,
        no_hello,
        half_a_hello,
        a_bad_hello,
        a_goodbye,
        a_broken_frame,
        a_close_frame,
        a_seat_and_half_a_message,
    ],
)
async def test_a_client_that_goes_no_further(leave_off: Callable[[RawClient], Awaitable[None]]) -> None:
    """It neither reads nor answers a close frame nor closes its end."""
    limits = RelayLimits(hello_s=0.5, idle_s=0.5, heartbeat_s=1000.0)
    async with running(limits=limits) as relay, raw(relay) as client:
        await leave_off(client)
        await until(lambda: counted(relay, "connections"), "it arrived")
        await all_ended(relay)
        assert not client.writer.is_closing()


async def test_tls_that_is_never_begun(tmp_path: Path) -> None:
    tls = server_tls(*certificate(tmp_path))
    async with running(limits=RelayLimits(hello_s=0.5), tls=tls) as relay, raw(relay):
        await until(lambda: relay._caps.open == 1, "it arrived")
        await all_ended(relay)


async def test_a_client_that_leaves_and_does_not_read_the_rest() -> None:
    """A few bytes wait for it, too few to call it stalled; asyncio would wait for ever until they are read."""
    narrow = socket.socket()
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    async with running(
        clock=FakeClock(), limits=RelayLimits(burst_s=1e5, bytes_per_s=1e9, stall_s=1000.0, heartbeat_s=1000.0)
    ) as relay:
        narrow.connect(("127.0.0.1", relay.port))
        narrow.setblocking(False)
        async with guest(relay, sock=narrow) as stuck:
            await stuck.send(serialize_control(Hello("r", "subscribe", FORMAT)))
            await stuck.recv()
            (connection,) = relay._admission.connections
            stuck.transport.pause_reading()
            async with seated(relay, "publish") as (mouth, _):
                sequence = 0
                while connection.transport.get_write_buffer_size() == 0:
                    await mouth.send(voice(sequence, codebooks=32, frames=6))
                    sequence += 1
            stuck.transport.write(CLOSE)
            await all_ended(relay)


async def test_a_replaced_connection_that_stays() -> None:
    async with running(limits=RelayLimits(heartbeat_s=1000.0)) as relay, raw(relay) as old:
        await old.upgrade()
        old.write(hello("publish"))
        _, welcome = await old.frame()
        ticket = parse_control(welcome.decode()).resume  # type: ignore[union-attr]
        async with seated(relay, "publish", resume=ticket):
            await until(lambda: len(relay._admission.connections) == 1, "the old one is ended")
