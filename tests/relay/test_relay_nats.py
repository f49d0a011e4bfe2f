"""Relays that share rooms over NATS: what is heard, who is there, what is decided once."""

from __future__ import annotations

import asyncio
import contextlib
import time
from functools import partial
from pathlib import Path

import pytest
from nats_kit import JETSTREAM, bus, bus_of, cluster, nats_servers, nothing_there
from relay_kit import FORMAT, KEY, OTHER, closed_with, counted, fetch, guest, heard, running, seated, told, until, voice

from streaming_encodec.errors import CallError, CallErrorReason, ConfigError
from streaming_encodec.relay.bus.base import NUMBERS_PER_NODE
from streaming_encodec.relay.bus.nats import NatsBus, room_key
from streaming_encodec.relay.bus.nats_servers import NatsServers
from streaming_encodec.relay.config import RelayConfig
from streaming_encodec.relay.limits import RelayLimits
from streaming_encodec.relay.relay import Relay
from streaming_encodec.transport.close_codes import CloseCode
from streaming_encodec.wire.control import Joined, Left, Report, parse_control, serialize_control
from streaming_encodec.wire.header import read_header
from streaming_encodec.wire.hello import Hello, Welcome

HOSTILE = ["a.b", "*", ">", "a b", "$SYS", "a\u00a0b", "'; --", "se1.v.x", "ä🎤", "x" * 64]


async def test_a_room_is_one_on_two_relays_at_two_servers(tmp_path: Path) -> None:
    async with (
        nats_servers(tmp_path, 2) as servers,
        cluster(servers) as (one, two),
        seated(one, name="Anna") as (anna, annas),
        seated(two, name="Bert 🎤") as (bert, berts),
    ):
        assert (annas.sender, berts.sender) == (1, NUMBERS_PER_NODE + 1)
        assert berts.speakers == (annas.sender,)
        assert berts.names == {annas.sender: "Anna"}
        assert await told(anna) == Joined(berts.sender, "Bert 🎤")
        for speaker, listener, number in ((anna, bert, annas.sender), (bert, anna, berts.sender)):
            for sequence in range(5):
                await speaker.send(voice(sequence))
                head = read_header(await heard(listener))
                assert (head.sender, head.sequence) == (number, sequence)
        await bert.send(serialize_control(Report(annas.sender, 0.1, 0.1, 1.0, 5.0, 40.0)))
        report = await told(anna)
        assert isinstance(report, Report)
        assert (report.sender, report.listener) == (annas.sender, berts.sender)
        status, _, text = await fetch(one, "/metrics")
        assert status == 200
        for line in ("cluster_connected 1.0", "cluster_nodes 1.0", "cluster_rooms 1.0", "cluster_packets_in_total 5.0"):
            assert f"streaming_encodec_relay_{line}" in text
        await bert.close()
        assert await told(anna) == Left(berts.sender)
        await until(lambda: not bus_of(two)._entered, "nobody on the second relay listens any more")


async def test_a_relay_alone_tells_nothing_of_a_cluster() -> None:
    async with running() as relay:
        assert "cluster" not in (await fetch(relay, "/metrics"))[2]


async def test_the_welcome_names_the_speakers_of_all_relays(tmp_path: Path) -> None:
    async with (
        nats_servers(tmp_path, 2) as servers,
        cluster(servers, 4) as relays,
        contextlib.AsyncExitStack() as stack,
    ):
        numbers: set[int] = set()
        for turn in range(8):
            _, welcome = await stack.enter_async_context(seated(relays[turn % 4]))
            assert set(welcome.speakers) == numbers
            numbers.add(welcome.sender)
            if turn >= 3:  # all have entered: what comes then is told, not asked for
                for relay in relays:
                    await until(partial(_knows, relay, numbers), "it knows")
        assert len(numbers) == 8
        _, welcome = await stack.enter_async_context(seated(relays[0], "subscribe"))
        assert set(welcome.speakers) == numbers


def _knows(relay: Relay, numbers: set[int]) -> bool:
    elsewhere = bus_of(relay)._presence.elsewhere(room_key("r")).speakers
    return elsewhere == numbers - set(bus_of(relay).numbers)


@pytest.mark.parametrize("room", HOSTILE)
def test_a_rooms_name_in_the_cluster_is_harmless(room: str) -> None:
    key = room_key(room)
    assert len(key) == 26
    assert key.isascii()
    assert key.isalnum()
    assert key == key.lower()


async def test_rooms_of_any_name_are_heard_and_kept_apart(tmp_path: Path) -> None:
    async with nats_servers(tmp_path) as servers, cluster(servers) as (one, two), contextlib.AsyncExitStack() as stack:
        ears = [(await stack.enter_async_context(seated(two, "subscribe", room)))[0] for room in HOSTILE]
        mouths = [(await stack.enter_async_context(seated(one, "publish", room)))[0] for room in HOSTILE]
        for number, mouth in enumerate(mouths):
            await mouth.send(voice(100 * number))
        for number, ear in enumerate(ears):
            assert read_header(await heard(ear)).sequence == 100 * number
        await until(lambda: counted(two, "packets_out") == len(HOSTILE), "each was heard once")
        assert counted(two, "packets_unheard") == 0


async def test_two_models_race_for_a_room_and_one_stays(tmp_path: Path) -> None:
    """200 times: on both relays somebody settles another model at the same moment."""
    async with nats_servers(tmp_path) as servers, cluster(servers) as (one, two):
        for turn in range(200):
            room = f"race {turn}"

            async def enter(relay: Relay, form: object, room: str = room) -> tuple[object, object]:
                socket = await stack.enter_async_context(guest(relay))
                await socket.send(serialize_control(Hello(room, "both", form)))  # type: ignore[arg-type]
                return socket, form

            async with contextlib.AsyncExitStack() as stack:
                both = await asyncio.gather(enter(one, FORMAT), enter(two, OTHER))
                sockets = [socket for socket, _ in both]
                await until(partial(_one_is_out, sockets), f"one goes, turn {turn}")
                (stays,) = (form for socket, form in both if not _is_out(socket))
                for relay in (one, two):
                    here = relay._rooms.rooms.get(room)
                    assert here is None or here.format == stays


def _one_is_out(sockets: list[object]) -> bool:
    return sum(map(_is_out, sockets)) == 1


def _is_out(socket: object) -> bool:
    code = socket.close_code  # type: ignore[attr-defined]
    assert code in (None, CloseCode.WRONG_MODEL)
    return code is not None


async def _seats(relays: list[Relay], turns: int) -> int:
    """Bring each of so many tokens to all relays at once; how many seats that gave."""
    seats = 0
    for turn in range(turns):
        token = KEY.sign(f"r{turn % 20}", now_s=time.time(), subscribe=False)

        async def enter(relay: Relay, token: str = token, room: str = f"r{turn % 20}") -> int:
            async with guest(relay) as socket:
                await socket.send(serialize_control(Hello(room, "publish", FORMAT, token=token)))
                with contextlib.suppress(Exception):
                    return isinstance(parse_control(await asyncio.wait_for(socket.recv(), 30)), Welcome)
                assert socket.close_code == CloseCode.NOT_ALLOWED
                return 0

        got = await asyncio.gather(*(enter(relay) for relay in relays))
        assert sum(got) <= 1
        seats += sum(got)
    return seats


async def test_a_token_is_good_once_in_the_cluster(tmp_path: Path) -> None:
    async with nats_servers(tmp_path, more=JETSTREAM) as servers, cluster(servers, token_key=KEY) as relays:
        assert await _seats(relays, 50) == 50


@pytest.mark.slow
async def test_a_thousand_tokens_at_two_relays_at_once_give_a_thousand_seats(tmp_path: Path) -> None:
    limits = RelayLimits(max_connections_per_address=1000)
    async with (
        nats_servers(tmp_path, more=JETSTREAM) as servers,
        cluster(servers, limits=limits, token_key=KEY) as relays,
    ):
        assert await _seats(relays, 1000) == 1000


async def test_where_used_tokens_cant_be_asked_nobody_comes_in(tmp_path: Path) -> None:
    async with nats_servers(tmp_path, more=JETSTREAM) as servers, cluster(servers, token_key=KEY) as (one, _):
        servers[0].kill()
        async with guest(one) as socket:
            await socket.send(serialize_control(Hello("r", "both", FORMAT, token=KEY.sign("r", now_s=time.time()))))
            assert await closed_with(socket) == CloseCode.TRY_LATER
        servers[0].restart()
        await servers[0].up()
        await until(lambda: bus_of(one)._connection.is_up, "it is connected again")
        async with seated(one, token=KEY.sign("r", now_s=time.time())):
            pass


async def test_tokens_without_jetstream_are_refused_at_the_start(tmp_path: Path) -> None:
    async with nats_servers(tmp_path) as servers:
        relay = Relay(RelayConfig(port=0, token_key=KEY), bus=bus(servers, 0, tokens=True))
        with pytest.raises(CallError, match="nats-server with -js"):
            await relay.start()


async def test_a_seat_moves_to_another_relay_without_a_second_token(tmp_path: Path) -> None:
    async with (
        nats_servers(tmp_path, more=JETSTREAM) as servers,
        cluster(servers, token_key=KEY) as (one, two),
        seated(one, "subscribe", token=KEY.sign("r", now_s=time.time())) as (ear, _),
        guest(one) as first,
    ):
        token = KEY.sign("r", now_s=time.time())
        hello = Hello("r", "publish", FORMAT, token=token)
        await first.send(serialize_control(hello))
        welcome = await told(first)
        assert isinstance(welcome, Welcome)
        assert await told(ear) == Joined(welcome.sender)
        first.transport.abort()
        # A wrong ticket, another role, another room: the token counts, and that was used.
        for ticket, role, room in (
            (f"{welcome.resume}x", "publish", "r"),
            (welcome.resume, "both", "r"),
            (welcome.resume, "publish", "s"),
            ("0.", "publish", "r"),
            ("7.x", "publish", "r"),
            ("0.*", "publish", "r"),
        ):
            async with guest(two) as socket:
                await socket.send(serialize_control(Hello(room, role, FORMAT, token=token, resume=ticket)))
                assert await closed_with(socket) == CloseCode.NOT_ALLOWED
        async with seated(two, "publish", token=token, resume=welcome.resume) as (_, again):
            assert not again.resumed
            assert again.sender == NUMBERS_PER_NODE + 1
            assert {type(await told(ear)), type(await told(ear))} == {Left, Joined}
            # Good once.
            async with guest(two) as socket:
                await socket.send(serialize_control(Hello("r", "publish", FORMAT, token=token, resume=welcome.resume)))
                assert await closed_with(socket) == CloseCode.NOT_ALLOWED


async def test_clients_of_a_relay_that_stops_move_with_their_tickets(tmp_path: Path) -> None:
    async with (
        nats_servers(tmp_path, more=JETSTREAM) as servers,
        cluster(servers, token_key=KEY) as (one, two),
        guest(one) as first,
    ):
        token = KEY.sign("r", now_s=time.time())
        await first.send(serialize_control(Hello("r", "both", FORMAT, token=token)))
        welcome = await told(first)
        assert isinstance(welcome, Welcome)
        one.drain()
        assert (await fetch(one, "/healthz"))[0] == 503
        stopping = asyncio.create_task(one.stop())
        assert await closed_with(first) == CloseCode.RESTARTING
        async with seated(two, token=token, resume=welcome.resume) as (_, again):
            assert again.speakers == ()
        await stopping
        await until(lambda: not bus_of(two)._presence.nodes, "it has left the cluster")


async def test_two_relays_cant_have_one_number(tmp_path: Path) -> None:
    async with nats_servers(tmp_path, 2) as servers, cluster(servers, 1):
        with pytest.raises(ConfigError, match="has the number 0") as told:
            await Relay(RelayConfig(port=0), bus=bus(servers, 0)).start()
        assert told.value.setting == "node"


async def test_of_two_relays_with_one_number_the_later_one_leaves_the_cluster(tmp_path: Path) -> None:
    """They started while no server was between them."""
    async with nats_servers(tmp_path / "a") as one, nats_servers(tmp_path / "b") as other:
        early, late = bus(one, 3), bus(other, 3)
        async with Relay(RelayConfig(port=0), bus=early) as first, Relay(RelayConfig(port=0), bus=late) as second:
            late._connection._urls.appendleft(f"nats://127.0.0.1:{one[0].port}")
            late._connection._lost.set()
            await until(lambda: late._twin is not None, "the later one has learnt of it")
            assert early._twin is None
            async with seated(first), guest(second) as socket:
                await socket.send(serialize_control(Hello("r", "both", FORMAT)))
                assert await closed_with(socket) == CloseCode.TRY_LATER


@pytest.mark.parametrize("number", [-1, 64])
def test_numbers_of_relays_are_bounded(number: int) -> None:
    with pytest.raises(ConfigError, match=r"0\.\.63"):
        NatsBus(NatsServers(("nats://h",)), number)


@pytest.mark.parametrize(
    "url", ["", "h:4222", "http://h", "nats://", "nats://h:x", "nats://h/path", "ws://h", "nats://h?x"]
)
def test_what_is_no_server(url: str) -> None:
    with pytest.raises(ConfigError, match="nats://HOST:PORT") as told:
        NatsServers((url,))
    assert told.value.setting == "cluster"


def test_an_error_shows_no_password() -> None:
    with pytest.raises(ConfigError) as told:
        NatsServers(("nats://user:secret@h/path",))
    assert "secret" not in str(told.value)


async def _refused_at_start(servers: NatsServers) -> CallError:
    with pytest.raises(CallError) as told:
        await Relay(RelayConfig(port=0), bus=NatsBus(servers, 0)).start()
    return told.value


async def test_no_server_at_the_start() -> None:
    with nothing_there() as port:
        error = await _refused_at_start(NatsServers((f"nats://u:secret@127.0.0.1:{port}",)))
    assert error.reason is CallErrorReason.CLUSTER
    assert f"no NATS server at nats://127.0.0.1:{port} (nothing listens there)" in str(error)


@pytest.mark.parametrize("login", ["", "relay:wrong@", "token@"])
async def test_wrong_credentials(tmp_path: Path, login: str) -> None:
    more = 'authorization { user: relay, password: "right" }'
    async with nats_servers(tmp_path, more=more) as (server,):
        error = await _refused_at_start(NatsServers((f"nats://{login}127.0.0.1:{server.port}",)))
        assert error.reason is CallErrorReason.NOT_ALLOWED
        assert "credentials" in str(error)
        relay = Relay(
            RelayConfig(port=0), bus=NatsBus(NatsServers((f"nats://relay:right@127.0.0.1:{server.port}",)), 0)
        )
        async with relay:
            pass


async def test_a_user_without_permissions(tmp_path: Path) -> None:
    more = (
        'authorization { users: [{user: relay, password: right, permissions: {subscribe: "other", publish: "other"}}] }'
    )
    async with nats_servers(tmp_path, more=more) as (server,):
        error = await _refused_at_start(NatsServers((f"nats://relay:right@127.0.0.1:{server.port}",)))
    assert error.reason is CallErrorReason.NOT_ALLOWED
    assert "se1.>" in str(error)
