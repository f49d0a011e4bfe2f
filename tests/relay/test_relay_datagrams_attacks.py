"""What strangers and bad clients can try at the relay's UDP port. After each, the relay still serves sessions."""

from __future__ import annotations

import asyncio
import os
import socket as sockets
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import QuicProtocolVersion
from relay.test_relay_datagrams import Heard, offer_of, opened
from relay_kit import closed_with, counted, running, seated, until, voice

from streaming_encodec.errors import CallError
from streaming_encodec.relay.limits import RelayLimits
from streaming_encodec.relay.relay import Relay
from streaming_encodec.transport.close_codes import CloseCode
from streaming_encodec.transport.webtransport import server
from streaming_encodec.transport.webtransport.client import open_session
from streaming_encodec.transport.webtransport.server import WebTransportListener


@pytest.fixture
async def relay() -> AsyncIterator[Relay]:
    """A relay that must still carry voice over a session after whatever a test did to it."""
    async with running(datagrams=True) as relay:
        yield relay
        await still_serves(relay)


async def still_serves(relay: Relay) -> None:
    listener = door(relay)
    listener._strangers = server.Bucket(1000, 1000, listener._loop.time())  # as after a while
    came = Heard()
    async with (
        seated(relay, "publish", "after") as (_, mouth),
        seated(relay, "subscribe", "after") as (_, ear),
        opened(offer_of(mouth)) as speaks,
        opened(offer_of(ear), came),
    ):
        speaks.send_packet(0, 1, voice(7))
        await until(lambda: came == [7], "it is heard")


def door(relay: Relay) -> WebTransportListener:
    return relay._session_listeners[0]


def first_packet(**options: Any) -> bytes:
    """What a client sends first: 1200 bytes and more."""
    quic = QuicConnection(
        configuration=QuicConfiguration(is_client=True, alpn_protocols=["h3"], server_name="127.0.0.1", **options)
    )
    quic.connect(("127.0.0.1", 1), now=0.0)
    return quic.datagrams_to_send(now=0.0)[0][0]


class Stranger:
    """A UDP socket that sends what it likes and counts what comes back."""

    def __init__(self, relay: Relay, host: str = "127.0.0.1") -> None:
        self._socket = sockets.socket(sockets.AF_INET, sockets.SOCK_DGRAM)
        self._socket.bind((host, 0))
        self._socket.setblocking(False)
        self._relay = ("127.0.0.1", relay.port)
        self.sent = self.got = 0
        self.answers: list[bytes] = []

    def send(self, data: bytes) -> None:
        try:
            self._socket.sendto(data, self._relay)
            self.sent += len(data)
        except BlockingIOError:
            pass

    def collect(self) -> None:
        while True:
            try:
                self.answers.append(self._socket.recv(65_536))
            except BlockingIOError:
                return
            self.got += len(self.answers[-1])

    def close(self) -> None:
        self._socket.close()


async def settle(relay: Relay) -> None:
    """Until the relay has read all that was sent to it: it answers in order."""
    probe = Stranger(relay)
    probe.send(b"\xc0" + b"\x1a\x2a\x3a\x4a" + b"\x08" + os.urandom(8) + b"\x08" + os.urandom(8) + bytes(1200))
    listener = door(relay)
    listener._strangers = server.Bucket(1000, 1000, listener._loop.time())

    def answered() -> bool:
        probe.collect()
        return bool(probe.answers)

    await until(answered, "the relay has read everything")
    probe.close()


async def test_an_address_that_was_not_proven_gets_less_than_it_sent(relay: Relay) -> None:
    """Whose source address is forged, an attacker's victim gets the answers: RFC 9000 allows three times as much."""
    stranger = Stranger(relay)
    for _ in range(100):
        stranger.send(first_packet())  # a victim answers nothing
    await settle(relay)
    await asyncio.sleep(0.3)  # longer than a server waits before it sends again
    stranger.collect()
    assert 0 < stranger.got < stranger.sent / 8
    assert not door(relay)._all  # nothing is remembered of it
    stranger.close()


async def test_a_token_is_of_no_use_to_another_address(relay: Relay) -> None:
    """A Retry token that was seen elsewhere opens nothing, so proofs cannot be collected and spent by many."""
    here, there = Stranger(relay), Stranger(relay)
    quic = QuicConnection(
        configuration=QuicConfiguration(is_client=True, alpn_protocols=["h3"], server_name="127.0.0.1")
    )
    quic.connect(("127.0.0.1", relay.port), now=0.0)
    here.send(quic.datagrams_to_send(now=0.0)[0][0])
    await settle(relay)
    here.collect()
    (retry,) = here.answers
    quic.receive_datagram(retry, ("127.0.0.1", relay.port), now=0.1)
    with_token = quic.datagrams_to_send(now=0.1)[0][0]
    there.send(with_token)
    await settle(relay)
    there.collect()
    assert not there.answers
    assert not door(relay)._all
    here.send(with_token)
    await settle(relay)
    assert len(door(relay)._all) == 1
    here.close()
    there.close()


async def test_other_versions_get_a_short_answer_and_answers_get_none(relay: Relay) -> None:
    stranger = Stranger(relay)
    data = first_packet()
    stranger.send(data[:1] + b"\x1a\x2a\x3a\x4a" + data[5:])
    await settle(relay)
    stranger.collect()
    (answer,) = stranger.answers
    assert len(answer) < 100
    assert answer[1:5] == bytes(4)  # version negotiation
    assert int(QuicProtocolVersion.VERSION_1).to_bytes(4, "big") in answer
    for spoofed in (answer, answer + bytes(1200)):  # two relays that answer each other would never end
        stranger.send(spoofed)
    await settle(relay)
    stranger.collect()
    assert len(stranger.answers) == 1
    stranger.close()


@pytest.mark.parametrize("size", [0, 1, 6, 7, 20, 1199, 1200, 1472, 9000])
async def test_random_bytes_are_dropped(relay: Relay, size: int) -> None:
    stranger = Stranger(relay)
    for first in (0x00, 0x40, 0x80, 0xC0, 0xD0, 0xE0, 0xF0, 0xFF):
        for version in (b"\x00\x00\x00\x01", os.urandom(4)):
            stranger.send((bytes([first]) + version + os.urandom(size))[:size])
    await settle(relay)
    stranger.collect()
    assert stranger.got <= 3 * stranger.sent
    assert not door(relay)._all
    stranger.close()


async def test_a_flood_of_first_packets_has_a_budget(relay: Relay) -> None:
    stranger = Stranger(relay)
    data = first_packet()
    listener = door(relay)
    for _ in range(30):
        for _ in range(50):
            stranger.send(data)
        await asyncio.sleep(0)
    await until(lambda: listener.dropped > 0, "some are dropped unread")
    stranger.collect()
    assert len(stranger.answers) <= 2 * server._STRANGERS_PER_S
    stranger.close()


async def test_handshakes_that_are_never_finished_are_bounded_and_forgotten() -> None:
    limits = RelayLimits(hello_s=0.3, max_connections_per_address=5)
    async with running(datagrams=True, limits=limits) as relay:
        strangers = [Stranger(relay) for _ in range(12)]
        for stranger in strangers:
            quic = QuicConnection(
                configuration=QuicConfiguration(is_client=True, alpn_protocols=["h3"], server_name="127.0.0.1")
            )
            quic.connect(("127.0.0.1", relay.port), now=0.0)
            stranger.send(quic.datagrams_to_send(now=0.0)[0][0])
            await settle(relay)
            stranger.collect()
            quic.receive_datagram(stranger.answers[0], ("127.0.0.1", relay.port), now=0.1)
            stranger.send(quic.datagrams_to_send(now=0.1)[0][0])
            assert len(door(relay)._all) <= 5
            stranger.close()
        await settle(relay)
        await until(lambda: not door(relay)._all, "they are forgotten")
        assert not door(relay)._sessions
        assert not door(relay)._of_address
        await still_serves(relay)


async def test_a_client_that_guesses_keys_holds_nothing(relay: Relay) -> None:
    async with seated(relay) as (_, welcome):
        for number in range(8):
            guess = offer_of(welcome).__class__(relay.port, f"{number:022}", offer_of(welcome).certificate_sha256)
            with pytest.raises(CallError):
                await open_session("127.0.0.1", guess, Heard())
        assert counted(relay, "sessions_refused") == 8
        await until(lambda: not door(relay)._all, "nothing is left of them")
        async with opened(offer_of(welcome)):
            pass


async def test_a_session_that_floods_is_closed_and_its_seat_too(relay: Relay) -> None:
    async with seated(relay) as (socket, welcome), opened(offer_of(welcome)) as session:
        while session.is_open:
            for _ in range(100):
                session._voice_quic.send_datagram_frame(b"\x04" + bytes(1000))  # of a session that is not there
            session.transmit()
            await asyncio.sleep(0.001)
        assert await closed_with(socket) == CloseCode.TOO_FAST


@pytest.mark.parametrize("kind", ["unidirectional", "bidirectional"])
async def test_a_session_that_opens_streams_is_closed(relay: Relay, kind: str) -> None:
    async with seated(relay) as (socket, welcome), opened(offer_of(welcome)) as session:
        assert session._http is not None
        stream_id = session._http.create_webtransport_stream(0, is_unidirectional=kind == "unidirectional")
        session._voice_quic.send_stream_data(stream_id, bytes(5000))
        session.transmit()
        await until(lambda: not session.is_open, "it was closed")
        await socket.send(voice(1))  # the seat goes on
        await until(lambda: counted(relay, "packets_in") == 1, "it came")


@pytest.mark.parametrize("unidirectional", [False, True])
async def test_a_flood_of_streams_ends_the_connection(relay: Relay, unidirectional: bool) -> None:
    async with seated(relay) as (_, welcome), opened(offer_of(welcome)) as session:
        quic = session._voice_quic
        quic._remote_max_streams_bidi = quic._remote_max_streams_uni = 10_000  # whatever the relay allows
        for _ in range(200):
            stream_id = quic.get_next_available_stream_id(is_unidirectional=unidirectional)
            quic.send_stream_data(stream_id, b"\x21")  # of a type that nobody knows
        session.transmit()
        await until(lambda: not session.is_open, "it was closed")
        await until(lambda: not door(relay)._all, "nothing is left of it")


async def test_datagrams_that_are_no_session_s_are_dropped(relay: Relay) -> None:
    async with seated(relay) as (_, welcome), opened(offer_of(welcome)) as session:
        for data in (b"", b"\x01" + voice(1), b"\x40", b"\xff" * 8 + voice(1)):
            session._voice_quic.send_datagram_frame(data)
        session.transmit()
        session.send_packet(0, 1, voice(2))
        await until(lambda: counted(relay, "packets_in") == 1, "the good one came")
        assert session.is_open


async def test_a_listener_that_acknowledges_nothing_gets_next_to_nothing(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be gone, or let others pay: what the relay sends there is thin, and the rest goes over the WebSocket."""
    async with (
        seated(relay, "publish") as (mouth, _),
        seated(relay, "subscribe") as (_, welcome),
        opened(offer_of(welcome)) as session,
    ):
        await until(lambda: len(door(relay)._all) == 1, "it is there")
        (theirs,) = door(relay)._all
        before = len(theirs._voice_quic._loss.spaces[-1].sent_packets)
        monkeypatch.setattr(session, "datagram_received", lambda data, address: None)
        for sequence in range(300):
            await mouth.send(voice(sequence))
            await asyncio.sleep(0.01)
        assert not theirs.is_certain
        assert len(theirs._voice_quic._loss.spaces[-1].sent_packets) - before < 200
        assert theirs._outbox.frames <= relay.config.limits.queue_frames


async def test_an_outbox_keeps_the_newest_while_quic_is_blocked(relay: Relay) -> None:
    async with seated(relay) as (_, welcome), opened(offer_of(welcome)) as session:
        quic = session._voice_quic
        quic._loss._cc.congestion_window = 0  # nothing may be sent
        for sequence in range(200):
            session.send_packet(0, 1, voice(sequence))
        assert len(quic._datagrams_pending) == 1
        assert session._outbox.frames <= 30
        assert session.take_dropped() == 200 - 1 - 30


async def test_an_error_in_one_session_closes_no_other(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        seated(relay) as (_, one),
        seated(relay) as (_, two),
        opened(offer_of(one)) as bad,
        opened(offer_of(two)) as good,
    ):
        port = bad._socket.get_extra_info("sockname")[1]  # type: ignore[union-attr]
        (theirs,) = [s for s in door(relay)._all if s._quic.get_peer_address()[1] == port]  # type: ignore[index]

        def fail(*arguments: object, **options: object) -> None:
            raise RuntimeError("a fault")

        monkeypatch.setattr(theirs._quic, "receive_datagram", fail)
        bad.send_packet(0, 1, voice(1))
        good.send_packet(0, 1, voice(2))
        await until(lambda: counted(relay, "packets_in") == 1, "the other one is heard")
        assert good.is_open
        assert len(door(relay)._all) == 1
