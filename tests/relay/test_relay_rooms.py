"""The protocol logic without a socket: rooms, seats, queues, buckets, tokens, delays."""

from __future__ import annotations

import base64
import hmac
import itertools
import os
from collections import Counter, defaultdict
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from relay_kit import FORMAT, KEY, OTHER, FakeClock, voice

from streaming_encodec.client.entering import reconnect_delay_s
from streaming_encodec.errors import ConfigError
from streaming_encodec.relay.bus.local import LocalBus
from streaming_encodec.relay.limits import RelayLimits
from streaming_encodec.relay.login import read_hello
from streaming_encodec.relay.participants import Participant
from streaming_encodec.relay.rooms import RoomTable
from streaming_encodec.relay.tokens import TokenChecker, TokenKey, new_key_file
from streaming_encodec.transport.addresses import address_group
from streaming_encodec.transport.close_codes import CloseCode, Refused
from streaming_encodec.transport.limits import Bucket, Outbox
from streaming_encodec.wire.control import Bye, Joined, Layers, Left, Report, serialize_control
from streaming_encodec.wire.hello import Hello

LIMITS = RelayLimits(max_rooms=3, max_peers=4, max_speakers=2, resume_s=10.0)


def table(limits: RelayLimits = LIMITS) -> RoomTable[str]:
    numbers = itertools.count()
    return RoomTable(limits, new_resumption_token=lambda: f"ticket {next(numbers)}")


def sit(rooms: RoomTable[str], peer: str, room: str = "r", role: str = "both", now_s: float = 0.0) -> Participant[str]:
    hello = Hello(room, role, FORMAT)
    rooms.admit(hello)
    return rooms.join(hello, peer, now_s)[0]


def refusal(call: object, *arguments: object) -> CloseCode:
    with pytest.raises(Refused) as refused:
        call(*arguments)  # type: ignore[operator]
    return refused.value.code


def outcome(call: Any, *arguments: Any) -> Any:
    """What a call gives, or the code it refuses with."""
    try:
        return call(*arguments)
    except Refused as refused:
        return refused.code


class RoomsMachine(RuleBasedStateMachine):
    """Clients come, speak, vanish, resume and go in any order; the rules of the house hold throughout."""

    @initialize()
    def begin(self) -> None:
        self.rooms = table()
        self.now_s = 0.0
        self.names = (f"peer {i}" for i in itertools.count())
        self.sequence = itertools.count()
        self.participants: dict[str, Participant[str]] = {}  # by connected peer
        self.lost: list[tuple[str, Hello, Participant[str]]] = []  # ticket, and how to come back with it

    @rule(
        room=st.sampled_from("abcd"),
        role=st.sampled_from(["publish", "subscribe", "both"]),
        other=st.booleans(),
    )
    def join(self, room: str, role: str, other: bool) -> None:
        hello = Hello(room, role, OTHER if other else FORMAT)
        peer = next(self.names)
        if outcome(self.rooms.admit, hello) in (CloseCode.TRY_LATER, CloseCode.WRONG_MODEL):
            return
        seat, welcome, effects = self.rooms.join(hello, peer, self.now_s)
        assert (welcome.sender == 0) == (role == "subscribe")
        for closed, refused in effects.closes:
            assert refused.code == CloseCode.WRONG_MODEL
            self.rooms.leave(self.participants.pop(closed))
        self.participants[peer] = seat

    @precondition(lambda self: self.participants)
    @rule(data=st.data(), known=st.booleans())
    def go(self, data: st.DataObject, known: bool) -> None:
        peer = data.draw(st.sampled_from(sorted(self.participants)))
        seat = self.participants.pop(peer)
        if known:
            effects = self.rooms.leave(seat)
            assert all(message == Left(seat.number) for _, message in effects.notices)
            assert bool(effects.notices) == bool(seat.speaks and seat.room.listeners)
        else:
            self.rooms.lose(seat, self.now_s)
            self.lost.append((seat.resumption_token, Hello(seat.room.name, seat.role, seat.format), seat))

    @precondition(lambda self: self.lost)
    @rule(data=st.data())
    def come_back(self, data: st.DataObject) -> None:
        ticket, hello, seat = self.lost.pop(data.draw(st.integers(0, len(self.lost) - 1)))
        found = self.rooms.resume(replace(hello, resume=ticket), next(self.names), self.now_s)
        if found is not None:
            assert found[0] is seat
            assert found[1].resumed
            assert found[1].resume != ticket
            assert seat.peer is not None
            self.participants[seat.peer] = seat

    @precondition(lambda self: self.participants)
    @rule(data=st.data())
    def speak(self, data: st.DataObject) -> None:
        peer = data.draw(st.sampled_from(sorted(self.participants)))
        seat = self.participants[peer]
        number = next(self.sequence)
        if not seat.speaks:
            assert refusal(seat.packet, voice(number), self.now_s) == CloseCode.NOT_ALLOWED
            return
        result = outcome(seat.packet, voice(number), self.now_s)
        if result in (CloseCode.TOO_FAST, CloseCode.BAD_MESSAGE):
            return
        if isinstance(result, str):
            assert result == "packets_late"  # after a pause, as its timestamps take no notice of it
            return
        frames, packet = result
        assert frames == 1
        assert int.from_bytes(packet[4:6], "little") == seat.number
        assert all(listener.room is seat.room for listener in seat.room.listeners)

    @rule(seconds=st.sampled_from([0.1, 6.0, 20.0]))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds
        for peer, refused in self.rooms.tick(self.now_s).closes:
            assert refused.code == CloseCode.TIMEOUT
            self.rooms.lose(self.participants[peer], self.now_s)
            self.lost.append(
                (self.participants[peer].resumption_token, Hello("x", "both", FORMAT), self.participants.pop(peer))
            )

    @invariant()
    def caps_hold_and_rooms_are_apart(self) -> None:
        rooms = self.rooms.rooms
        assert len(rooms) <= LIMITS.max_rooms
        assert self.rooms.participants == sum(len(room.participants) for room in rooms.values())
        seen = defaultdict(set)
        for name, room in rooms.items():
            assert room.participants, "an empty room stays"
            assert len(room.participants) <= LIMITS.max_peers
            assert len(room.speakers()) <= LIMITS.max_speakers
            assert len({s.format for s in room.speakers()}) <= 1
            for listener in room.listeners:
                assert listener.room is room
                assert listener.peer is not None
                seen[name].add(listener.peer)
        assert all(not a & b for a, b in itertools.combinations(seen.values(), 2))


TestRooms = RoomsMachine.TestCase
TestRooms.settings = settings(max_examples=60, stateful_step_count=40)


def test_a_lost_seat_gives_way_when_the_room_is_full() -> None:
    rooms = table()
    lost, stays = sit(rooms, "a"), sit(rooms, "b")
    assert refusal(rooms.admit, Hello("r", "publish", FORMAT)) == CloseCode.TRY_LATER
    rooms.lose(lost, 1.0)
    effects = rooms.admit(Hello("r", "publish", FORMAT))
    assert effects.notices == [(stays, Left(lost.number))]
    assert rooms.resume(Hello("r", "both", FORMAT, resume=lost.resumption_token), "again", 2.0) is None


def test_a_seat_resumed_over_a_connection_that_still_stands_replaces_it() -> None:
    rooms = table()
    seat = sit(rooms, "old")
    found = rooms.resume(Hello("r", "both", FORMAT, resume=seat.resumption_token), "new", 1.0)
    assert found is not None
    assert [(peer, refused.code) for peer, refused in found[2].closes] == [("old", CloseCode.REPLACED)]
    assert seat.peer == "new"


def test_a_ticket_whose_successor_was_lost_on_the_way_opens_the_seat_again() -> None:
    rooms = table()
    seat = sit(rooms, "a", role="publish")

    def resume(ticket: str, now_s: float) -> str:
        """The next ticket, or nothing."""
        rooms.lose(seat, now_s)
        found = rooms.resume(Hello("r", "publish", FORMAT, resume=ticket), f"at {now_s}", now_s)
        return "" if found is None else found[1].resume or ""

    first = seat.resumption_token
    second, third = resume(first, 1.0), resume(first, 2.0)
    assert len({first, second, third, ""}) == 4
    assert not resume(second, 3.0)  # given up for the third
    rooms.confirm(seat)
    assert not resume(first, 5.0)  # the client was heard from, so it has the third
    fourth = resume(third, 6.0)
    rooms.confirm(seat)
    assert not resume(third, 8.0)
    assert resume(fourth, 9.0)
    rooms.leave(seat)
    assert not resume(fourth, 10.0)
    assert rooms.participants == len(rooms._resumption_tokens._holders) == 0


def test_a_lost_listener_with_another_model_is_told_so_when_it_comes_back() -> None:
    rooms = table()
    ear = sit(rooms, "ear", role="subscribe")
    hello = Hello("r", "subscribe", FORMAT, resume=ear.resumption_token)
    rooms.lose(ear, 1.0)
    other = Hello("r", "publish", OTHER)
    rooms.admit(other)
    mouth, _, _ = rooms.join(other, "mouth", 2.0)
    assert refusal(rooms.resume, hello, "again", 3.0) == CloseCode.WRONG_MODEL
    rooms.leave(mouth)
    assert rooms.resume(hello, "again", 4.0) is not None


def test_a_room_in_which_nobody_is_left_gives_way_when_there_are_too_many() -> None:
    rooms = table(RelayLimits(max_rooms=2))
    first, second, kept = sit(rooms, "a", "a"), sit(rooms, "b", "b"), sit(rooms, "c", "b")
    rooms.lose(second, 1.0)
    rooms.lose(first, 2.0)
    sit(rooms, "d", "d")
    assert sorted(rooms.rooms) == ["b", "d"]
    assert kept.room.participants.keys() == {second.number, kept.number}
    assert refusal(rooms.admit, Hello("e", "both", FORMAT)) == CloseCode.TRY_LATER
    assert rooms.participants == 3


def test_a_seat_is_kept_for_so_long() -> None:
    rooms = table()
    seat, ear = sit(rooms, "a", role="publish"), sit(rooms, "b", role="subscribe")
    rooms.lose(seat, 5.0)
    assert rooms.tick(14.9).notices == []
    assert rooms.tick(15.0).notices == [(ear, Left(seat.number))]
    assert rooms.participants == 1


def test_notices_and_reports_go_where_they_should() -> None:
    rooms = table()
    speaker, ear = sit(rooms, "a", role="publish"), sit(rooms, "b", role="subscribe")
    hello = Hello("r", "both", FORMAT)
    rooms.admit(hello)
    both, welcome, effects = rooms.join(hello, "c", 0.0)
    assert effects.notices == [(ear, Joined(both.number))]
    assert welcome.speakers == (speaker.number,)
    report = Report(speaker.number, 0.1, 0.0, 1.0, 2.0, 40.0, listener=9)
    assert rooms.control(ear, report, 0.0).notices == [(speaker, replace(report, listener=ear.number))]
    for nobody in (ear.number, 99):
        assert rooms.control(both, replace(report, sender=nobody), 0.0).notices == []
    assert rooms.control(speaker, replace(report, sender=both.number), 0.0).notices == []
    rooms.control(ear, Layers(2), 0.0)
    assert ear.max_codebooks == 2
    assert rooms.control(both, Bye("bye"), 0.0).notices == [(ear, Left(both.number))]
    assert both.number not in rooms.rooms["r"].participants


def test_numbers_do_not_come_again_soon() -> None:
    rooms = table()
    keeper = sit(rooms, "keeper")
    keeper.room.last_number = 0xFFFE
    numbers = []
    for _ in range(3):
        seat = sit(rooms, "x")
        numbers.append(seat.number)
        rooms.leave(seat)
    assert numbers == [0xFFFF, 2, 3]  # the keeper has 1


@given(
    st.lists(st.tuples(st.integers(1, 3), st.integers(1, 6)), max_size=200),
    st.integers(6, 30),
    st.randoms(use_true_random=False),
)
def test_an_outbox_keeps_the_newest_frames_of_each_speaker(
    puts: list[tuple[int, int]], most: int, random: object
) -> None:
    outbox = Outbox(most)
    sent = defaultdict(list)
    for number, (sender, frames) in enumerate(puts):
        data = f"{sender} {frames} {number}".encode()
        sent[sender].append((frames, data))
        outbox.put(sender, frames, data, 0.01 * number)
        assert outbox.frames <= most * len(sent)
    left = defaultdict(list)
    while (data := outbox.pop(0.01 * len(puts) - 2.0)) is not None:
        left[int(data.split()[0])].append(data)
    assert not outbox
    assert outbox.dropped + sum(map(len, left.values())) == len(puts)
    for sender, packets in sent.items():
        kept = packets[len(packets) - len(left[sender]) :]
        assert left[sender] == [data for _, data in kept]
        assert sum(frames for frames, _ in kept) <= most
        rest = packets[: len(packets) - len(kept)]
        assert not rest or sum(frames for frames, _ in kept) + rest[-1][0] > most, "dropped without need"


def test_an_outbox_gives_controls_first_and_each_speaker_its_turn() -> None:
    outbox = Outbox(20, max_controls=2)
    for number in range(4):
        outbox.put(1 + number % 2, 1, b"%d" % number, 0.0)
    assert outbox.put_control(b"a", spare=True)
    assert not outbox.put_control(b"one may be dropped, if it is a spare one", spare=True)
    assert outbox.put_control(b"b")
    assert not outbox.put_control(b"c")
    assert [outbox.pop(0.1) for _ in range(7)] == [b"a", b"b", b"0", b"1", b"2", b"3", None]


def test_an_outbox_gives_out_no_voice_that_nobody_can_use() -> None:
    outbox = Outbox(20)
    outbox.put(1, 1, b"old", 0.0)
    outbox.put(2, 1, b"older than it seems", 0.0)
    outbox.put(1, 1, b"new", 1.0)
    outbox.put_control(b"a control message is good at any age")
    assert outbox.packets == 3
    assert [outbox.pop(1.4) for _ in range(3)] == [b"a control message is good at any age", b"new", None]
    assert outbox.dropped == 2
    assert not outbox


@given(st.lists(st.floats(0, 0.5), max_size=300), st.floats(1, 100), st.floats(1, 200))
def test_a_bucket_never_gives_more_than_its_rate(steps: list[float], rate: float, burst: float) -> None:
    now_s, given_out = 5.0, 0
    bucket = Bucket(rate, burst, now_s)
    for step in steps:
        now_s += step
        given_out += bucket.take(1.0, now_s)
    assert given_out <= burst + rate * (now_s - 5.0) + 1e-6
    assert given_out >= min(len(steps), int(burst))


def test_tokens_of_both_kinds(tmp_path: object) -> None:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
    )

    folder = Path(str(tmp_path))
    private = Ed25519PrivateKey.generate()
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "private.pem").write_bytes(pem)
    public_pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / "public.pem").write_bytes(public_pem)
    new_key_file(folder / "shared")
    assert (folder / "shared").stat().st_mode & 0o777 == 0o600
    signer, reader = TokenKey.load(folder / "private.pem"), TokenKey.load(folder / "public.pem")
    shared = TokenKey.load(folder / "shared")
    for sign, check in ((signer, reader), (signer, signer), (shared, shared)):
        grant = TokenChecker(check).check(sign.sign("r", now_s=100.0, publish=False), 200.0)
        assert (grant.room, grant.publish, grant.subscribe) == ("r", False, True)
    # The public key is no shared secret: the classic confusion of algorithms.
    forged = _signed_with_a_public_key(signer.sign("r", now_s=100.0), public_pem)
    assert refusal(TokenChecker(reader).check, forged, 200.0) == CloseCode.NOT_ALLOWED
    with pytest.raises(ConfigError, match="private key"):
        reader.sign("r", now_s=0.0)
    (folder / "short").write_bytes(b"x" * 31)
    ec = generate_private_key(SECP256R1())
    (folder / "ec").write_bytes(ec.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (folder / "broken").write_bytes(b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
    ssh = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    (folder / "ssh").write_bytes(ssh + b" me@host\n")
    for name, match in (
        ("short", "32 bytes"),
        ("ec", "Ed25519"),
        ("broken", "PEM"),
        ("ssh", "no secret"),
        ("none", "cannot be read"),
    ):
        with pytest.raises(ConfigError, match=match):
            TokenKey.load(folder / name)
    with pytest.raises(ConfigError, match="cannot be made"):
        new_key_file(folder / "shared")
    for bad in ({"room": "x" * 65}, {"token_id": "x" * 65}, {"publish": False, "subscribe": False}, {"ttl_s": 0.0}):
        with pytest.raises(ConfigError):
            shared.sign(**({"room": "r", "now_s": 0.0} | bad))


def _signed_with_a_public_key(token: str, public_pem: bytes) -> str:
    head = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').rstrip(b"=")
    text = head + b"." + token.split(".")[1].encode()
    seal = base64.urlsafe_b64encode(hmac.digest(public_pem, text, "sha256")).rstrip(b"=")
    return (text + b"." + seal).decode()


async def test_used_ids_are_forgotten_when_their_tokens_expire_and_never_more_than_allowed() -> None:
    clock = FakeClock(1.0)
    bus = LocalBus(clock, max_used_tokens=3)

    async def use(token: str) -> CloseCode | None:
        grant = TokenChecker(KEY).check(token, clock())
        assert grant.token_id is not None
        try:
            await bus.use_token(grant.token_id, grant.expires_s)
        except Refused as refused:
            return refused.code
        return None

    for number in range(3):
        assert await use(KEY.sign("r", now_s=0.0, ttl_s=100.0 + number)) is None
    late = KEY.sign("r", now_s=50.0, ttl_s=1000.0)
    clock.now_s = 60.0
    assert await use(late) == CloseCode.TRY_LATER
    clock.now_s = 100.0
    assert await use(late) is None
    clock.now_s = 101.0
    assert await use(late) == CloseCode.NOT_ALLOWED


def test_reconnecting_never_waits_longer_than_two_seconds_allow() -> None:
    for chance in (0.0, 0.5, 1.0):
        delays = [reconnect_delay_s(attempt, chance) for attempt in range(50)]
        assert delays == sorted(delays)
        assert delays[0] <= 0.05
        assert delays[-1] <= 1.2


def test_one_customer_is_one_address() -> None:
    assert address_group("192.0.2.7") == "192.0.2.7"
    assert address_group("::ffff:192.0.2.7") == "192.0.2.7"
    assert address_group("2001:db8::1") == address_group("2001:db8::ffff:1%eth0") != address_group("2001:db8:0:1::1")
    assert address_group("local") == "local"


def test_no_bytes_bring_the_protocol_down() -> None:
    """A speaker and a newcomer who send anything at all are refused or understood; nothing else happens."""
    rng = Random(0)
    clean = [voice(n, codebooks=k, frames=f) for n in range(6) for k in (1, 8, 32) for f in (1, 6)]
    hello = serialize_control(Hello("r", "both", FORMAT, token="x" * 40, resume="y"))
    rooms = table()
    sit(rooms, "listener", role="subscribe")
    seat = sit(rooms, "peer", role="publish")
    outcomes = Counter[str]()
    for number in range(int(os.environ.get("NET_FUZZ_CASES", "40000"))):
        if number % 500 == 0:
            rooms.leave(seat)
            seat = sit(rooms, f"peer {number}", role="publish", now_s=float(number))
        data = mutated(clean[number % len(clean)], rng) if number % 3 else rng.randbytes(rng.randrange(1000))
        result = outcome(seat.packet, data, float(number))
        outcomes["refused" if isinstance(result, CloseCode) else "passed"] += 1
        text = mutated(hello.encode(), rng).decode("utf-8", "surrogateescape")
        result = outcome(read_hello, text)
        outcomes["no hello" if isinstance(result, CloseCode) else "hello"] += 1
    assert set(outcomes) == {"refused", "passed", "no hello", "hello"}


def mutated(data: bytes, rng: Random) -> bytes:
    """A few bits flipped, a piece cut out, doubled, or put elsewhere."""
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(changed) + 1)
        match rng.randrange(4):
            case 0 if at < len(changed):
                changed[at] ^= 1 << rng.randrange(8)
            case 1:
                del changed[at : at + rng.randrange(1, 9)]
            case 2:
                changed[at:at] = changed[: rng.randrange(9)]
            case _:
                changed[at : at + 1] = rng.randbytes(1)
    return bytes(changed)


async def test_what_an_outage_held_back_puts_nobody_out_and_has_a_bound() -> None:
    """Voice that trickles in late is dropped; only what is forwarded counts as voice."""
    rooms = RoomTable[str](RelayLimits(burst_s=0.5))
    mouth, _, _ = rooms.join(Hello("r", "publish", FORMAT), "mouth", 0.0)
    for number in range(20):
        assert mouth.packet(voice(number), number / 75) != "packets_late"
    # No line for 0.95 s, which is too short to be forgiven; then all of it. Half a second may come at once.
    outcomes = [mouth.packet(voice(20 + number), 20 / 75 + 0.95 + number / 1500) for number in range(71)]
    assert outcomes.count("packets_late") > 30
    assert not isinstance(outcomes[-1], str)
    # Who claims to be late all the time is put out.
    late = [outcome(mouth.packet, voice(200 + n, timestamp=90 + n // 8), 8.0 + n / 2000) for n in range(2000)]
    assert CloseCode.TOO_FAST in late
