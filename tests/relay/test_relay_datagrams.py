"""Datagram sessions beside connections: who may open one, what comes through it, and what ends it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import pytest
from relay_kit import FORMAT, FakeClock, closed_with, counted, heard, running, seated, told, until, voice
from websockets.asyncio.client import ClientConnection

from streaming_encodec.client.link import Link
from streaming_encodec.errors import CallError
from streaming_encodec.relay.datagrams import KEY_S
from streaming_encodec.relay.relay import Relay
from streaming_encodec.transport.close_codes import CloseCode
from streaming_encodec.transport.websocket.client import WebSocketDialer
from streaming_encodec.transport.webtransport.client import ClientDatagramSession, open_session
from streaming_encodec.wire.control import AskDatagrams, Bye, Joined, Layers, Left, parse_control, serialize_control
from streaming_encodec.wire.header import read_header
from streaming_encodec.wire.hello import DatagramOffer, Hello, Welcome

GARBAGE = b"\xe1" + bytes(40)


class Heard(list[int]):
    """Sequence numbers of packets that came over a session."""

    def __call__(self, packet: bytes) -> None:
        self.append(read_header(packet).sequence)


def offer_of(welcome: Welcome) -> DatagramOffer:
    assert welcome.datagrams is not None
    return welcome.datagrams


@asynccontextmanager
async def opened(offer: DatagramOffer, came: Heard | None = None) -> AsyncIterator[ClientDatagramSession]:
    """A session that is kept alive."""
    session = await open_session("127.0.0.1", offer, came if came is not None else Heard())
    keeping = asyncio.create_task(session.keep())
    try:
        yield session
    finally:
        keeping.cancel()
        with suppress(asyncio.CancelledError):
            await keeping


@asynccontextmanager
async def linked(relay: Relay, role: str, came: Heard | None = None) -> AsyncIterator[Link]:
    """A client that tries datagrams."""
    hello = Hello("r", role, FORMAT)
    dialer = WebSocketDialer(relay.url)
    heard_by = came if came is not None else Heard()
    link = Link(dialer, hello, None, on_packet=heard_by, on_control=lambda message: None, datagrams=True)
    await link.open()
    try:
        yield link
    finally:
        await link.close()


def has_session(link: Link) -> bool:
    assert link._datagrams is not None
    return link._datagrams.session is not None


async def ask_again(socket: ClientConnection) -> DatagramOffer:
    await socket.send(serialize_control(AskDatagrams()))
    answer = await told(socket)
    assert isinstance(answer, DatagramOffer)
    return answer


async def test_voice_goes_over_the_websocket_first_and_then_as_datagrams() -> None:
    came = Heard()
    async with (
        running(datagrams=True) as relay,
        linked(relay, "subscribe", came) as ear,
        linked(relay, "both") as mouth,
    ):
        mouth.send_packet(voice(0))
        await until(lambda: came == [0], "it came")
        assert (mouth.counts.packets_sent, mouth.counts.datagrams_sent) == (1, 0)
        await until(lambda: has_session(ear) and has_session(mouth), "sessions were opened")
        for sequence in range(1, 101):
            mouth.send_packet(voice(sequence))
            await asyncio.sleep(0.002)
        await until(lambda: len(set(came)) == 101, "all of it came")
        assert mouth.counts.datagrams_sent > 50
        assert mouth.round_trip_s > 0
        await until(lambda: not mouth.sends_ordered, "it is certain")
        mouth.send_packet(voice(101))
        await until(lambda: 101 in came, "it came")
        assert not ear.hears_ordered
    assert not relay.metrics.closed.keys() - {CloseCode.NORMAL, CloseCode.RESTARTING}


async def test_a_relay_without_datagrams_offers_none_and_a_client_may_want_none() -> None:
    async with running() as relay, seated(relay) as (_, welcome):
        assert welcome.datagrams is None
    async with running(datagrams=True) as relay:
        link = Link(
            WebSocketDialer(relay.url), Hello("r", "both", FORMAT), None, on_packet=Heard(), on_control=lambda m: None
        )
        await link.open()
        link.send_packet(voice(0))
        await link.close()
        assert counted(relay, "sessions") == 0


async def test_a_key_is_good_once_for_a_short_time_and_until_the_next_one() -> None:
    clock = FakeClock()
    async with running(datagrams=True, clock=clock) as relay, seated(relay, "subscribe") as (socket, welcome):
        first = offer_of(welcome)
        second = await ask_again(socket)
        refused = [
            first,  # void since the second
            replace(second, key=second.key[::-1]),  # guessed
            replace(second, key="A" * 22),
        ]
        for offer in refused:
            with pytest.raises(CallError):
                await open_session("127.0.0.1", offer, Heard())
        assert counted(relay, "sessions_refused") == len(refused)
        async with opened(second):
            with pytest.raises(CallError):  # stolen, after it was used
                await open_session("127.0.0.1", second, Heard())
        third = await ask_again(socket)
        clock.now_s += KEY_S
        with pytest.raises(CallError):
            await open_session("127.0.0.1", third, Heard())
        fourth = await ask_again(socket)
        await socket.send(serialize_control(Bye()))
        await closed_with(socket)
        with pytest.raises(CallError):  # of a seat that is empty
            await open_session("127.0.0.1", fourth, Heard())
        assert counted(relay, "sessions") == 1


async def test_a_client_gives_its_key_to_the_relay_alone() -> None:
    async with running(datagrams=True) as relay, seated(relay) as (_, welcome):
        with pytest.raises(CallError):
            await open_session("127.0.0.1", replace(offer_of(welcome), certificate_sha256="0" * 64), Heard())
        assert counted(relay, "sessions_refused") == 0  # it did not even ask
        async with opened(offer_of(welcome)):
            assert counted(relay, "sessions") == 1


@pytest.mark.parametrize(
    ("role", "packet", "code"),
    [
        ("both", GARBAGE, CloseCode.BAD_MESSAGE),
        ("both", b"", CloseCode.BAD_MESSAGE),
        ("both", voice(1)[:-1], CloseCode.BAD_MESSAGE),
        ("both", b"\xe2" + voice(1)[1:], CloseCode.WRONG_VERSION),
        ("both", voice(1, bits_per_code=11), CloseCode.BAD_MESSAGE),
        ("both", voice(1) + bytes(1000), CloseCode.BAD_MESSAGE),
        ("subscribe", voice(1), CloseCode.NOT_ALLOWED),
    ],
)
async def test_what_a_seat_may_not_send_it_may_not_send_this_way_either(
    role: str, packet: bytes, code: CloseCode
) -> None:
    async with (
        running(datagrams=True) as relay,
        seated(relay, role) as (socket, welcome),
        opened(offer_of(welcome)) as session,
    ):
        session.send_packet(0, 1, packet)
        assert await closed_with(socket) == code
        await until(lambda: not session.is_open, "the session ended too")
        assert not relay._rooms.rooms


async def test_there_is_one_limit_for_a_seat_whatever_the_way() -> None:
    clock = FakeClock()
    async with (
        running(datagrams=True, clock=clock) as relay,
        seated(relay) as (socket, welcome),
        opened(offer_of(welcome)) as session,
    ):
        for begin in range(0, 150, 30):  # one way may be ahead by as much, and 0.4 s would be late
            for sequence in range(begin, begin + 30, 2):
                await socket.send(voice(sequence))
                session.send_packet(0, 1, voice(sequence + 1))
            await until(lambda passed=begin + 30: counted(relay, "frames_in") == passed, "all are passed on")
        session.send_packet(0, 1, voice(150))
        assert await closed_with(socket) == CloseCode.TOO_FAST
        await until(lambda: not session.is_open, "the session ended too")


async def test_a_packet_may_come_both_ways_and_is_heard_once() -> None:
    async with (
        running(datagrams=True) as relay,
        seated(relay, "subscribe") as (ear, _),
        seated(relay, "publish") as (socket, welcome),
        opened(offer_of(welcome)) as session,
    ):
        for sequence in range(100):
            session.send_packet(0, 1, voice(sequence))
            await socket.send(voice(sequence))
        await until(lambda: counted(relay, "packets_in") == 200, "all came")
        assert counted(relay, "packets_replayed") == 100
        assert sorted([read_header(await heard(ear)).sequence for _ in range(100)]) == list(range(100))


async def test_a_listener_whose_connection_is_lost_still_hears_over_its_session() -> None:
    came = Heard()
    async with (
        running(datagrams=True) as relay,
        seated(relay, "publish") as (mouth, _),
        seated(relay, "subscribe") as (socket, welcome),
        opened(offer_of(welcome), came) as session,
    ):
        socket.transport.abort()
        await until(lambda: counted(relay, "connections") == 2 and len(relay._admission.connections) == 1, "it is lost")
        await mouth.send(voice(1))
        await until(lambda: came == [1], "it is heard")
        assert welcome.resume is not None
        async with seated(relay, "subscribe", resume=welcome.resume) as (_, again):
            assert again.resumed
            await mouth.send(voice(2))
            await until(lambda: came == [1, 2], "it is heard")
            assert session.is_open
        await until(lambda: not session.is_open, "it ends with its seat")


async def test_packets_of_a_session_do_not_use_up_the_ticket_of_a_welcome_that_may_be_lost() -> None:
    async with (
        running(datagrams=True) as relay,
        seated(relay) as (first, welcome),
        opened(offer_of(welcome)) as session,
    ):
        await first.send(serialize_control(Layers(8)))
        assert welcome.resume is not None
        async with seated(relay, resume=welcome.resume) as (second, _):
            second.transport.abort()  # as if its welcome were lost with it
        session.send_packet(0, 1, voice(1))
        await until(lambda: counted(relay, "packets_in") == 1, "it came")
        async with seated(relay, resume=welcome.resume) as (_, again):
            assert again.resumed


class Told(list[bytes]):
    """Control messages that came over a session."""

    def __call__(self, packet: bytes) -> None:
        if packet.startswith(b"{"):
            self.append(packet)


async def test_who_leaves_is_told_by_both_ways_and_more_than_once_where_datagrams_may_be_lost() -> None:
    came, stranger = Told(), Told()
    async with (
        running(datagrams=True) as relay,
        seated(relay, "subscribe") as (ear, welcome),
        opened(offer_of(welcome), came),
        seated(relay, "subscribe", room="other") as (_, elsewhere),
        opened(offer_of(elsewhere), stranger),
    ):
        async with seated(relay, "publish") as (mouth, spoken):
            assert await told(ear) == Joined(spoken.sender)
            await mouth.send(serialize_control(Bye("")))
            assert await told(ear) == Left(spoken.sender)
            await until(lambda: len(came) == 3, "it was said three times")
        assert {parse_control(data.decode()) for data in came} == {Left(spoken.sender)}
        assert stranger == []


async def test_a_listener_whose_connection_is_lost_hears_over_its_session_who_left() -> None:
    came = Told()
    async with (
        running(datagrams=True) as relay,
        seated(relay, "publish") as (mouth, spoken),
        seated(relay, "subscribe") as (socket, welcome),
        opened(offer_of(welcome), came),
    ):
        socket.transport.abort()
        await until(lambda: len(relay._admission.connections) == 1, "it is lost")
        await mouth.send(serialize_control(Bye("")))
        await until(lambda: bool(came), "it was told")
        assert parse_control(came[0].decode()) == Left(spoken.sender)


async def test_the_end_of_what_is_said_goes_by_both_ways() -> None:
    came: list[bytes] = []
    async with (
        running(datagrams=True) as relay,
        seated(relay, "subscribe") as (ear, welcome),
        opened(offer_of(welcome), came.append) as session,  # type: ignore[arg-type]
        linked(relay, "publish") as mouth,
    ):
        await until(lambda: has_session(mouth), "a session is open")
        for sequence in range(20):  # until answers have come
            mouth.send_packet(voice(sequence))
            await asyncio.sleep(0.01)
        await until(lambda: not mouth.sends_ordered and len(came) >= 20, "the session is certain")
        await until(lambda: session.is_certain, "so is the other")
        replayed = counted(relay, "packets_replayed")
        mouth.send_packet(voice(20))
        mouth.send_packet(voice(21, end=True))
        await until(lambda: counted(relay, "packets_replayed") == replayed + 1, "the end came twice to the relay")
        await until(lambda: came[-1:] != [] and read_header(came[-1]).sequence == 21, "it is heard as a datagram")
        while (sequence := read_header(await heard(ear)).sequence) != 21:
            assert sequence < 20, "the one before came as a datagram alone"
        assert mouth.counts.datagrams_sent >= 2


async def test_a_client_believes_a_session_who_left_and_nothing_else() -> None:
    heard_of: list[object] = []
    hello = Hello("r", "subscribe", FORMAT)
    async with running(datagrams=True) as relay:
        link = Link(
            WebSocketDialer(relay.url), hello, None, on_packet=Heard(), on_control=heard_of.append, datagrams=True
        )
        await link.open()
        heard_of.clear()
        await until(lambda: has_session(link), "a session is open")
        (session,) = relay._calls.datagrams._participants
        for text in ("{", "{\udcff", '{"type":"joined","sender":3}', '{"type":"bye"}', "{}"):
            session.send_packet(3, 1, text.encode(errors="surrogateescape"))
        session.send_packet(3, 1, serialize_control(Left(3)).encode())
        await until(lambda: heard_of == [Left(3)], "it was told that alone")
        await link.close()


async def test_a_second_session_takes_the_place_of_the_first() -> None:
    came, later = Heard(), Heard()
    async with (
        running(datagrams=True) as relay,
        seated(relay, "publish") as (mouth, _),
        seated(relay, "subscribe") as (socket, welcome),
        opened(offer_of(welcome), came) as first,
        opened(await ask_again(socket), later),
    ):
        await until(lambda: not first.is_open, "it was replaced")
        await mouth.send(voice(1))
        await until(lambda: later == [1], "it is heard once")
        assert came == []
        assert len(relay._calls.datagrams) == 1


async def test_a_client_comes_back_with_a_session_after_a_restart_of_the_relay() -> None:
    came = Heard()
    async with running(datagrams=True) as relay, linked(relay, "both", came) as link:
        await until(lambda: has_session(link), "a session was opened")
        relay._close_sessions()
        await until(lambda: not has_session(link), "it is over")
        assert link.connected
        link.send_packet(voice(1))  # over the connection, at once
        assert counted(relay, "sessions") == 1
        await relay._listen_for_sessions(list(relay._listeners[0]._server.sockets))
        await until(lambda: has_session(link), "it is there again")
        assert counted(relay, "packets_in") == 1
