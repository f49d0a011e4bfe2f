"""Rooms and seats: roles, delivery, and return after a lost connection. Pure: no sockets, no clock.

A driver hands in what arrives and the time, and does what it gets back: deliver a packet to these listeners,
send these notices, close these peers. Anything a peer may not do raises `Refused` with the close code.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Generic, Literal, TypeVar

from streaming_encodec.errors import ConfigError, PacketError
from streaming_encodec.relay.arrivals import SequenceWindow, VoiceAge
from streaming_encodec.relay.bus.base import NOBODY, Elsewhere
from streaming_encodec.relay.limits import MAX_FRAME_RATE_HZ, RelayLimits
from streaming_encodec.relay.tickets import Tickets
from streaming_encodec.transport.close_codes import CloseCode, Refused, not_allowed
from streaming_encodec.transport.limits import Bucket
from streaming_encodec.wire.control import Bye, ControlMessage, Joined, Layers, Left, Report
from streaming_encodec.wire.header import PROTOCOL_VERSION, read_header, with_sender
from streaming_encodec.wire.hello import Hello, StreamFormat, Welcome

Peer = TypeVar("Peer")


@dataclass(slots=True, eq=False)
class Seat(Generic[Peer]):
    """One participant of one room. `peer` is the driver's connection, None while that is lost."""

    room: Room[Peer]
    number: int
    role: str
    format: StreamFormat
    max_codebooks: int | None
    peer: Peer | None
    frames: Bucket
    controls: Bucket
    heard_s: float
    ticket: str = ""
    lost_s: float = 0.0
    sequences: SequenceWindow = field(default_factory=SequenceWindow)
    age: VoiceAge = field(init=False)

    def __post_init__(self) -> None:
        self.age = VoiceAge(self.format.frame_seconds)

    @property
    def speaks(self) -> bool:
        """Whether this seat may send voice."""
        return self.role != "subscribe"

    @property
    def hears(self) -> bool:
        """Whether this seat is sent voice."""
        return self.role != "publish"


@dataclass(slots=True, eq=False)
class Room(Generic[Peer]):
    """A room: all speakers in it use the same format."""

    name: str
    format: StreamFormat
    numbers: range
    """What this relay may give to participants."""
    seats: dict[int, Seat[Peer]] = field(default_factory=dict)
    listeners: tuple[Seat[Peer], ...] = ()
    """Seats that listen and are connected; computed at every change, so that packets need no search."""
    last_number: int = 0
    elsewhere: dict[int, VoiceAge] = field(default_factory=dict)
    """Speakers on other relays."""

    def changed(self) -> None:
        """Note that a seat came, went, or lost its connection."""
        self.listeners = tuple(s for s in self.seats.values() if s.hears and s.peer is not None)

    def speakers(self) -> list[Seat[Peer]]:
        """Seats that may speak."""
        return [seat for seat in self.seats.values() if seat.speaks]

    def free_number(self) -> int:
        """The next free number; a number is used again only after all others were given."""
        number = self.last_number
        while True:
            number = number + 1 if number + 1 in self.numbers else self.numbers.start
            if number not in self.seats:
                self.last_number = number
                return number

    def settle(self, elsewhere: Elsewhere) -> None:
        """Note the speakers on other relays."""
        age_of, frame_s = self.elsewhere, (elsewhere.format or self.format).frame_seconds
        self.elsewhere = {number: age_of.get(number) or VoiceAge(frame_s) for number in sorted(elsewhere.speakers)}


@dataclass(slots=True)
class Effects(Generic[Peer]):
    """What a driver has to do: control messages to seats, peers to close, and what other relays must know."""

    notices: list[tuple[Seat[Peer], ControlMessage]] = field(default_factory=list)
    closes: list[tuple[Peer, Refused]] = field(default_factory=list)
    announcements: list[Room[Peer]] = field(default_factory=list)
    """Rooms whose speakers on this relay have changed, or that have no participant here any more."""
    reports: list[tuple[Room[Peer], Report]] = field(default_factory=list)
    """For speakers on other relays."""

    def tell(self, room: Room[Peer], about: Seat[Peer] | None, message: ControlMessage) -> None:
        """A notice to every listener of a room but the seat that it is about."""
        self.notices += [(seat, message) for seat in room.listeners if seat is not about]

    def add(self, others: Effects[Peer]) -> None:
        """What follows from another change."""
        self.notices += others.notices
        self.closes += others.closes
        self.announcements += others.announcements


class RoomTable(Generic[Peer]):
    """All rooms of one relay.

    allowed_rooms: names that exist; None lets a room come to be with its first guest.
    new_ticket: makes the secrets by which a lost client takes its seat again.
    numbers: what participants of a room get. Raises ConfigError where there may be more participants.
    """

    def __init__(
        self,
        limits: RelayLimits,
        allowed_rooms: frozenset[str] | None = None,
        new_ticket: Callable[[], str] = lambda: secrets.token_urlsafe(18),
        numbers: range = range(1, 0x1_0000),
    ) -> None:
        if limits.max_peers > len(numbers):
            raise ConfigError(
                f"this relay has numbers for {len(numbers)} participants of a room, not for {limits.max_peers}",
                setting="max_peers",
            )
        self._numbers = numbers
        self._limits = limits
        self._allowed = allowed_rooms
        self._tickets: Tickets[Seat[Peer]] = Tickets(new_ticket)
        self.rooms: dict[str, Room[Peer]] = {}

    @property
    def seats(self) -> int:
        """Seats taken, the lost ones that are kept included."""
        return len(self._tickets)

    # -- coming and going -----------------------------------------------------------------------------------

    def resume(self, hello: Hello, peer: Peer, now_s: float) -> tuple[Seat[Peer], Welcome, Effects[Peer]] | None:
        """Give a client its seat back for its ticket; None where the ticket is unknown or another's.

        Raises Refused if a speaker with another model has come meanwhile.
        """
        ticket = hello.resume or ""
        seat = self._tickets.holder(ticket)
        if seat is None or (seat.room.name, seat.role, seat.format) != (hello.room, hello.role, hello.format):
            return None
        _check_model(seat.room, hello)
        effects = Effects[Peer]()
        if seat.peer is not None:
            gone = Refused(CloseCode.REPLACED, "this seat was taken again by its owner")
            effects.closes.append((seat.peer, gone))
        seat.peer, seat.heard_s, seat.max_codebooks = peer, now_s, hello.max_codebooks
        seat.room.changed()
        seat.ticket = self._tickets.issue(seat, ticket)
        return seat, self._welcome(seat, resumed=True), effects

    def admit(self, hello: Hello, elsewhere: Elsewhere = NOBODY) -> Effects[Peer]:
        """Raise Refused if there is no place for this hello; makes room by giving up lost seats.

        elsewhere: the room on other relays.
        """
        if self._allowed is not None and hello.room not in self._allowed:
            raise not_allowed()
        if 1 / hello.format.frame_seconds > MAX_FRAME_RATE_HZ:
            raise Refused(CloseCode.BAD_MESSAGE, f"at most {MAX_FRAME_RATE_HZ:g} frames a second")
        effects = Effects[Peer]()
        if elsewhere.speakers and elsewhere.format != hello.format:
            raise _wrong_model()
        speaks = hello.role != "subscribe"
        room = self.rooms.get(hello.room)
        speakers = len(elsewhere.speakers) + (0 if room is None else len(room.speakers()))
        if room is None:
            if speaks and speakers >= self._limits.max_speakers:
                raise _too_many()
            if len(self.rooms) >= self._limits.max_rooms:
                effects.add(self._give_up_room())
            return effects
        _check_model(room, hello)
        if speaks and speakers >= self._limits.max_speakers:
            self._give_up(room, effects, speaking=True)
        if hello.room in self.rooms and len(room.seats) >= self._limits.max_peers:
            self._give_up(room, effects, speaking=False)
        return effects

    def join(
        self, hello: Hello, peer: Peer, now_s: float, elsewhere: Elsewhere = NOBODY
    ) -> tuple[Seat[Peer], Welcome, Effects[Peer]]:
        """Seat a client that `admit` let in."""
        effects = Effects[Peer]()
        room = self.rooms.get(hello.room)
        if room is None:
            room = self.rooms[hello.room] = Room(hello.room, hello.format, self._numbers)
            room.settle(elsewhere)
        rate = 1 / hello.format.frame_seconds
        limits = self._limits
        seat = Seat(
            room=room,
            number=room.free_number(),
            role=hello.role,
            format=hello.format,
            max_codebooks=hello.max_codebooks,
            peer=peer,
            frames=Bucket(limits.speed * rate, limits.burst_s * rate, now_s, forgiven=limits.outage_s * rate),
            controls=Bucket(
                limits.controls_per_s,
                2 * limits.controls_per_s,
                now_s,
                forgiven=limits.outage_s * limits.controls_per_s,
            ),
            heard_s=now_s,
        )
        if seat.speaks:
            # The speaker decides; listeners with another model would hear noise.
            room.format = hello.format
            effects.closes += _others(room, hello.format)
        room.seats[seat.number] = seat
        seat.ticket = self._tickets.issue(seat)
        room.changed()
        if seat.speaks:
            effects.tell(room, seat, Joined(seat.number))
            effects.announcements.append(room)
        return seat, self._welcome(seat, resumed=False), effects

    def leave(self, seat: Seat[Peer]) -> Effects[Peer]:
        """Free a seat for good."""
        effects = Effects[Peer]()
        room = seat.room
        if not self._tickets.revoke(seat):
            return effects
        del room.seats[seat.number]
        seat.peer = None
        room.changed()
        if seat.speaks:
            effects.tell(room, seat, Left(seat.number))
            effects.announcements.append(room)
        if not room.seats:
            del self.rooms[room.name]
            effects.announcements.append(room)
        return effects

    def lose(self, seat: Seat[Peer], now_s: float) -> None:
        """The connection broke: keep the seat for a while. `tick` frees it."""
        seat.peer, seat.lost_s = None, now_s
        seat.room.changed()

    def tick(self, now_s: float) -> Effects[Peer]:
        """Free lost seats whose time is over, and close speakers that have gone idle."""
        effects = Effects[Peer]()
        for seat in list(self._tickets):
            if seat.peer is None:
                if now_s - seat.lost_s >= self._limits.resume_s:
                    effects.add(self.leave(seat))
            elif seat.speaks and now_s - seat.heard_s >= self._limits.idle_s:
                idle = Refused(CloseCode.TIMEOUT, f"nothing heard for {self._limits.idle_s:g} s")
                effects.closes.append((seat.peer, idle))
        return effects

    def stood_still(self, seconds: float, now_s: float) -> None:
        """The relay itself did not run for this long: no client could send or return in that time."""
        for seat in self._tickets:
            seat.heard_s = min(now_s, seat.heard_s + seconds)
            seat.lost_s = min(now_s, seat.lost_s + seconds)

    # -- what seats send ------------------------------------------------------------------------------------

    def packet(
        self, seat: Seat[Peer], data: bytes, now_s: float, *, ordered: bool = True
    ) -> tuple[int, bytes] | Literal["packets_replayed", "packets_late"]:
        """Check a packet; returns its number of frames, and the packet with the sender's number in it.

        It goes to `seat.room.listeners` except the seat itself. A packet that is not passed on gives the name of its
        counter. ordered: whether it came over a transport that keeps order; there an old number is no accident.
        """
        if not seat.speaks:
            raise Refused(CloseCode.NOT_ALLOWED, "this seat may only listen")
        try:
            head = read_header(data)
            seat.format.check_header(head)
        except PacketError as error:
            if data and data[0] >> 4 == 0xE and data[0] & 15 != PROTOCOL_VERSION:
                raise Refused(CloseCode.WRONG_VERSION, "packet of another version") from error
            raise Refused(CloseCode.BAD_MESSAGE, "not a packet of this stream") from error
        is_new = seat.sequences.take(head.sequence, ordered=ordered)
        if ordered and not is_new:
            raise Refused(CloseCode.BAD_MESSAGE, "a sequence number that was there before")
        if not seat.frames.take(head.num_frames, now_s):
            raise Refused(CloseCode.TOO_FAST, "more frames than time")
        if not is_new:
            return "packets_replayed"
        self._heard(seat, now_s)
        if seat.age.is_late(head.timestamp, now_s):
            return "packets_late"
        return head.num_frames, with_sender(data, seat.number)

    def control(self, seat: Seat[Peer], message: ControlMessage, now_s: float) -> Effects[Peer]:
        """Take a control message of a seated client."""
        if not seat.controls.take(1, now_s):
            raise Refused(CloseCode.TOO_FAST, "too many control messages")
        self._heard(seat, now_s)
        effects = Effects[Peer]()
        match message:
            case Layers(max_codebooks):
                seat.max_codebooks = max_codebooks
            case Report():
                if seat.hears and message.sender in seat.room.elsewhere:
                    effects.reports.append((seat.room, replace(message, listener=seat.number)))
                elif seat.hears:
                    effects.add(self.report(seat.room, replace(message, listener=seat.number)))
            case Bye():
                peer = seat.peer
                effects = self.leave(seat)
                if peer is not None:
                    effects.closes.append((peer, Refused(CloseCode.NORMAL, "goodbye")))
            case _:
                raise Refused(CloseCode.BAD_MESSAGE, f"a client does not send {message.TYPE!r} here")
        return effects

    # -- what other relays send -----------------------------------------------------------------------------

    def from_elsewhere(self, room: Room[Peer], packet: bytes, now_s: float) -> tuple[int, int] | None:
        """Check a packet of a speaker on another relay; returns its number and the number of frames.

        None if it is not to be passed on: the speaker is unknown, or its voice is too old.
        """
        try:
            head = read_header(packet)
        except PacketError:
            return None
        age = room.elsewhere.get(head.sender)
        if age is None or age.is_late(head.timestamp, now_s):
            return None
        return head.sender, head.num_frames

    def settle(self, room: Room[Peer], elsewhere: Elsewhere) -> Effects[Peer]:
        """Note the present speakers on other relays, and their model."""
        effects = Effects[Peer]()
        before = set(room.elsewhere)
        room.settle(elsewhere)
        for number in sorted(before - elsewhere.speakers):
            effects.tell(room, None, Left(number))
        for number in sorted(elsewhere.speakers - before):
            effects.tell(room, None, Joined(number))
        if elsewhere.speakers and elsewhere.format is not None and elsewhere.format != room.format:
            room.format = elsewhere.format
            effects.closes += _others(room, elsewhere.format)
        return effects

    def report(self, room: Room[Peer], report: Report) -> Effects[Peer]:
        """A listener's report, here or elsewhere, on a speaker of this relay."""
        effects = Effects[Peer]()
        speaker = room.seats.get(report.sender)
        if speaker is not None and speaker.speaks and speaker.peer is not None:
            effects.notices.append((speaker, report))
        return effects

    # -- inside ---------------------------------------------------------------------------------------------

    def _heard(self, seat: Seat[Peer], now_s: float) -> None:
        """A sign of life, which says too that the welcome with the ticket has arrived."""
        seat.heard_s = now_s
        self._tickets.confirm(seat)

    def _give_up_room(self) -> Effects[Peer]:
        """Free the room that has been empty for longest, or refuse."""
        deserted = [room for room in self.rooms.values() if all(s.peer is None for s in room.seats.values())]
        if not deserted:
            raise Refused(CloseCode.TRY_LATER, "too many rooms; try later")
        room = min(deserted, key=lambda room: max(s.lost_s for s in room.seats.values()))
        effects = Effects[Peer]()
        for seat in list(room.seats.values()):
            effects.add(self.leave(seat))
        return effects

    def _give_up(self, room: Room[Peer], effects: Effects[Peer], *, speaking: bool) -> None:
        """Free the seat that was lost first, or refuse."""
        lost = [s for s in room.seats.values() if s.peer is None and (s.speaks or not speaking)]
        if not lost:
            raise _too_many()
        effects.add(self.leave(min(lost, key=lambda s: s.lost_s)))

    def _welcome(self, seat: Seat[Peer], *, resumed: bool) -> Welcome:
        return Welcome(
            sender=seat.number if seat.speaks else 0,
            resume=seat.ticket,
            resumed=resumed,
            heartbeat_s=self._limits.heartbeat_s,
            speakers=(*(s.number for s in seat.room.speakers() if s is not seat), *seat.room.elsewhere),
        )


def _check_model(room: Room[Peer], hello: Hello) -> None:
    if (room.elsewhere or room.speakers()) and room.format != hello.format:
        raise _wrong_model()


def _wrong_model() -> Refused:
    return Refused(CloseCode.WRONG_MODEL, "the others in this room use another model")


def _too_many() -> Refused:
    return Refused(CloseCode.TRY_LATER, "too many in this room; try later")


def _others(room: Room[Peer], stream_format: StreamFormat) -> list[tuple[Peer, Refused]]:
    """Peers to close because their model differs from a speaker's."""
    wrong = Refused(CloseCode.WRONG_MODEL, "the speaker in this room uses another model")
    return [(s.peer, wrong) for s in room.seats.values() if s.peer is not None and s.format != stream_format]
