"""A client's voice over networks that let datagrams through, or do not, or change their mind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from relay.test_relay_datagrams import Heard, has_session, linked
from relay_kit import counted, running, until, voice
from udp_kit import udp_way

from streaming_encodec.client.link import Link
from streaming_encodec.client.settings import ConnectionSettings
from streaming_encodec.errors import ConfigError
from streaming_encodec.transport.webtransport.answers import DOUBT_S, GIVE_UP_S, LOST_S, PING_S, Answers


class Speech:
    """Somebody who speaks all the time: a packet every frame. `said`: sequence numbers."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self.said: list[int] = []

    async def run(self) -> None:
        while True:
            self._link.send_packet(voice(len(self.said)))
            self.said.append(len(self.said))
            await asyncio.sleep(1 / 75)


@asynccontextmanager
async def speaking(link: Link) -> AsyncIterator[Speech]:
    speech = Speech(link)
    task = asyncio.create_task(speech.run())
    try:
        yield speech
    finally:
        task.cancel()


async def more(came: list[int], packets: int = 40) -> None:
    """Wait until so many more have come."""
    wanted = len(came) + packets
    await until(lambda: len(came) >= wanted, f"{packets} more packets")


async def test_where_udp_is_blocked_joining_waits_for_nothing_and_voice_goes_over_the_websocket() -> None:
    came = Heard()
    async with running(datagrams=True) as relay, udp_way(relay) as way:
        way.blocked = True
        async with linked(relay, "subscribe", came), linked(relay, "publish") as mouth, speaking(mouth):
            await until(lambda: len(came) >= 100, "it is heard")
            assert came == sorted(set(came))  # a machine that stands still drops some, as old
            assert mouth.counts.datagrams_sent == 0
            assert mouth.sends_ordered
            way.blocked = False
            await until(lambda: mouth.counts.datagrams_sent > 20, "it goes as datagrams")


async def test_joining_does_not_wait_for_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are in, and are heard, while their attempts to open one are still going on."""
    attempts = 0

    async def never(*arguments: object) -> None:
        nonlocal attempts
        attempts += 1
        await asyncio.Event().wait()

    monkeypatch.setattr("streaming_encodec.transport.webtransport.client.open_session", never)
    came = Heard()
    async with (
        running(datagrams=True) as relay,
        linked(relay, "subscribe", came) as ear,
        linked(relay, "publish") as mouth,
    ):
        mouth.send_packet(voice(0))
        await until(lambda: came == [0] and attempts == 2, "it is heard, and both try")
        mouth.send_packet(voice(1))
        await until(lambda: came == [0, 1], "it is heard")
        assert not has_session(ear)
        assert not has_session(mouth)


@pytest.mark.parametrize("who", ["speaker", "listener"])
async def test_when_datagrams_stop_the_websocket_takes_over_and_gives_back(who: str) -> None:
    """What is said while nobody knows yet is lost, as long as an answer may take; from then on nothing is."""
    came = Heard()
    async with running(datagrams=True) as relay, udp_way(relay) as way:
        if who == "speaker":
            relay._calls.datagrams.begin(relay._session_listeners[0], relay.port)
        async with linked(relay, "subscribe", came) as ear:
            await until(lambda: has_session(ear), "the listener has a session")
            relay._calls.datagrams.begin(relay._session_listeners[0], way.port if who == "speaker" else relay.port)
            async with linked(relay, "publish") as mouth, speaking(mouth) as speech:
                await until(lambda: mouth.counts.datagrams_sent > 40, "it goes as datagrams")
                for _ in range(2):
                    way.blocked = True
                    await until(
                        lambda: ear.hears_ordered if who == "listener" else mouth.sends_ordered,
                        "the WebSocket took over",
                    )
                    begin = speech.said[-1]
                    await more(came, 100)  # more than a second, in which datagrams are given up
                    heard = {sequence for sequence in came if sequence > begin}
                    assert set(range(begin + 1, begin + 80)) <= heard
                    way.blocked = False
                    await until(
                        lambda: not (ear.hears_ordered if who == "listener" else mouth.sends_ordered),
                        "datagrams are back",
                    )
                    await more(came)
            assert ear.counts.connects == mouth.counts.connects == 1


async def test_voice_goes_on_at_another_address_of_the_client() -> None:
    """A router that restarted, or another network: the relay follows the session to where it comes from."""
    came = Heard()
    async with (
        running(datagrams=True) as relay,
        udp_way(relay) as way,
        linked(relay, "subscribe", came) as ear,
        linked(relay, "publish") as mouth,
        speaking(mouth),
    ):
        await until(lambda: has_session(ear) and mouth.counts.datagrams_sent > 40, "sessions are open")
        for _ in range(2):
            way.change_addresses()
            await more(came)
            await until(lambda: not mouth.sends_ordered and not ear.hears_ordered, "datagrams go on")
            await more(came)
        assert counted(relay, "sessions") == 2  # the same ones
        assert mouth.counts.connects == 1


async def test_after_an_outage_of_the_line_a_client_moves_to_another_socket() -> None:
    came = Heard()
    async with running(datagrams=True) as relay, udp_way(relay) as way, linked(relay, "both", came) as link:
        await until(lambda: has_session(link), "a session is open")
        assert link._datagrams is not None
        session = link._datagrams.session
        before = session._socket.get_extra_info("sockname")  # type: ignore[union-attr]
        way.blocked = True
        await until(
            lambda: session._socket.get_extra_info("sockname") != before,  # type: ignore[union-attr]
            "it moved",
        )
        way.blocked = False
        async with linked(relay, "publish") as other, speaking(other):
            await until(lambda: not link.hears_ordered, "it hears datagrams")
        assert link._datagrams.session is session


async def test_with_loss_datagrams_are_not_given_up() -> None:
    came = Heard()
    async with (
        running(datagrams=True) as relay,
        udp_way(relay) as way,
        linked(relay, "subscribe", came) as ear,
        linked(relay, "publish") as mouth,
        speaking(mouth) as speech,
    ):
        await until(lambda: has_session(ear) and mouth.counts.datagrams_sent > 10, "sessions are open")
        way.loss = 0.1
        begin = len(speech.said)
        sent = mouth.counts.datagrams_sent
        await until(lambda: len(speech.said) >= begin + 300, "some seconds passed")
        assert mouth.counts.datagrams_sent - sent > 200
        assert relay.metrics.counts["sessions"] == 2


def test_a_transport_is_one_of_two() -> None:
    with pytest.raises(ConfigError):
        ConnectionSettings(transport="pigeon")


# -- whether the other end answers ------------------------------------------------------------------------------------


def test_an_end_that_answers_is_certain() -> None:
    answers, now_s = Answers(), 0.0
    for _ in range(100):
        number = answers.ask(now_s)
        now_s += 0.05
        assert answers.is_certain(now_s)
        answers.answered(number, now_s)
        assert answers.waited_s(now_s) == 0.0
        now_s += PING_S
    assert answers.round_trip_s == pytest.approx(0.05)


def test_doubt_begins_with_the_first_ping_that_is_not_answered() -> None:
    answers = Answers()
    for at in range(200):
        now_s = at * PING_S
        answers.ask(now_s)
        assert answers.is_certain(now_s) == (now_s <= DOUBT_S)
        assert answers.is_lost(now_s) == (now_s > LOST_S)
    assert answers.waited_s(now_s) == pytest.approx(now_s)
    assert now_s > GIVE_UP_S


def test_one_lost_ping_is_no_doubt_where_the_next_one_is_answered() -> None:
    answers = Answers()
    answers.ask(0.0)
    second = answers.ask(0.1)
    answers.answered(second, 0.15)
    assert answers.waited_s(10.0) == 0.0


def test_a_way_that_becomes_slower_and_slower_is_not_dead() -> None:
    answers, asked = Answers(), []
    for at in range(60):
        asked.append(answers.ask(at * PING_S))
    for at, number in enumerate(asked):
        now_s = at * PING_S * 1.8 + 0.1  # a queue grows
        answers.answered(number, now_s)
        assert answers.is_certain(now_s + DOUBT_S)


def test_a_slow_way_is_not_a_dead_one() -> None:
    answers = Answers()
    for at in range(200):
        now_s = at * PING_S
        answers.ask(now_s)
        if at >= 6:
            answers.answered(at - 5, now_s)  # 0.6 s later
    assert answers.is_certain(now_s)
