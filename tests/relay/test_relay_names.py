"""Display names: what a client says it is called reaches the others, bounded and without invisible characters."""

from __future__ import annotations

import asyncio
import json

import pytest
from relay_kit import FORMAT, closed_with, guest, running, seated, told

from streaming_encodec.call.presence import Presence
from streaming_encodec.errors import ConfigError
from streaming_encodec.relay.bus.base import Elsewhere
from streaming_encodec.relay.limits import RelayLimits
from streaming_encodec.relay.rooms import RoomTable
from streaming_encodec.wire.control import Joined, Left, parse_control, serialize_control
from streaming_encodec.wire.hello import Hello, Welcome, check_display_name


async def test_the_others_learn_a_name_whether_they_were_there_before_or_come_after() -> None:
    async with running() as relay, seated(relay, name="Ann") as (ann, _), seated(relay) as (_, nobody):
        assert nobody.names == {1: "Ann"}
        assert await told(ann) == Joined(2)
        async with seated(relay, name="Bob") as (_, bob):
            assert bob.names == {1: "Ann"}
            assert await told(ann) == Joined(3, "Bob")


async def test_a_name_may_change_with_a_resumed_seat() -> None:
    async with running() as relay, seated(relay) as (ear, _):
        async with seated(relay, name="Bob") as (_, first):
            assert await told(ear) == Joined(2, "Bob")
            async with seated(relay, name="Rob", resume=first.resume) as (_, again):
                assert again.resumed
                assert await told(ear) == Joined(2, "Rob")
        async with seated(relay) as (_, late):
            assert late.sender not in late.names


async def test_a_full_room_of_long_names_is_told_in_full() -> None:
    """The welcome has at most 2048 bytes; what does not fit follows it."""
    limits = RelayLimits(max_connections_per_address=100, max_speakers=64, max_peers=100)
    async with running(limits=limits) as relay, asyncio.TaskGroup() as group:
        leave = asyncio.Event()
        inside = asyncio.Semaphore(0)

        async def sit() -> None:
            async with seated(relay, "publish", name="\U0001f600" * 32):
                inside.release()
                await leave.wait()

        for _ in range(63):
            group.create_task(sit())
        for _ in range(63):
            await inside.acquire()
        async with seated(relay, "subscribe") as (late, welcome):
            presence = Presence()
            presence.update(welcome, 0.0)
            while len(presence.names) < 63:
                message = await told(late)
                assert isinstance(message, Joined)
                presence.update(message, 0.0)
            assert len(welcome.speakers) == 63
            assert set(presence.names.values()) == {"\U0001f600" * 32}
        leave.set()


@pytest.mark.parametrize("name", ["n" * 33, "", "a\u202eb", "a\nb", 7])
async def test_a_name_that_breaks_the_rules_is_refused(name: object) -> None:
    text = serialize_control(Hello("r", "both", FORMAT)).replace('"room"', f'"name":{json.dumps(name)},"room"')
    async with running() as relay, guest(relay) as socket:
        await socket.send(text)
        assert await closed_with(socket) == 4400


def test_names_of_speakers_on_other_relays() -> None:
    rooms: RoomTable[str] = RoomTable(RelayLimits())
    elsewhere = Elsewhere(frozenset({1025}), FORMAT, {1025: "Far"})
    participant, welcome, _ = rooms.join(Hello("r", "both", FORMAT), "peer", 0.0, elsewhere)
    assert welcome.names == {1025: "Far"}
    effects = rooms.settle(participant.room, Elsewhere(frozenset({1025, 1026}), FORMAT, {1025: "Off", 1026: "New"}))
    assert [message for _, message in effects.notices] == [Joined(1025, "Off"), Joined(1026, "New")]
    back = rooms.settle(participant.room, elsewhere)
    assert [message for _, message in back.notices] == [Left(1026), Joined(1025, "Far")]


def test_presence_forgets_the_names_of_those_who_left() -> None:
    presence = Presence()
    presence.update(Welcome(1, speakers=(2, 3), names={2: "B"}), 0.0)
    presence.update(Joined(3, "C"), 0.0)
    assert presence.names == {2: "B", 3: "C"}
    presence.update(Left(2), 0.0)
    presence.update(Joined(2), 0.0)
    assert presence.names == {3: "C"}
    presence.update(Welcome(1, resumed=True, speakers=(3,)), 0.0)
    assert presence.names == {3: "C"}
    presence.update(Welcome(1, speakers=(3,)), 0.0)
    assert presence.names == {}


def test_what_a_person_typed_is_cleaned() -> None:
    assert check_display_name("  Zo\u202e\u00eb \n  K ") == "Zo \u00eb K"
    for name in ("", " \u200b", "n" * 33):
        with pytest.raises(ConfigError, match="1 to 32 visible"):
            check_display_name(name)
    assert parse_control(serialize_control(Joined(1, "Zo\u00eb"))) == Joined(1, "Zo\u00eb")
