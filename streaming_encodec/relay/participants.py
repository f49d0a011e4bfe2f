"""A room and its participants, and what a change in a room makes a relay do. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from streaming_encodec.relay.arrivals import SequenceWindow, VoiceAge
from streaming_encodec.relay.bus.base import Elsewhere
from streaming_encodec.transport.base import PacketSession
from streaming_encodec.transport.close_codes import Refused
from streaming_encodec.transport.limits import Bucket
from streaming_encodec.wire.control import ControlMessage, Report
from streaming_encodec.wire.hello import StreamFormat

Peer = TypeVar("Peer")


@dataclass(slots=True, eq=False)
class Participant(Generic[Peer]):
    """One participant of one room.

    peer: its connection, None while that is lost. session: its datagram session, None without one.
    ordered: its packets have all come over one connection that keeps order.
    """

    room: Room[Peer]
    number: int
    role: str
    format: StreamFormat
    max_codebooks: int | None
    peer: Peer | None
    frames: Bucket
    late: Bucket
    repeats: Bucket
    controls: Bucket
    heard_s: float
    name: str | None = None
    resumption_token: str = ""
    lost_s: float = 0.0
    session: PacketSession | None = None
    ordered: bool = True
    sequences: SequenceWindow = field(default_factory=SequenceWindow)
    age: VoiceAge = field(init=False)

    def __post_init__(self) -> None:
        self.age = VoiceAge(self.format.frame_seconds)

    @property
    def is_seated(self) -> bool:
        """Whether it has not left its room."""
        return self.room.participants.get(self.number) is self

    @property
    def speaks(self) -> bool:
        """Whether this participant may send voice."""
        return self.role != "subscribe"

    @property
    def hears(self) -> bool:
        """Whether voice is sent to this participant."""
        return self.role != "publish"


@dataclass(slots=True, eq=False)
class Room(Generic[Peer]):
    """A room: all speakers in it use the same format."""

    name: str
    format: StreamFormat
    numbers: range
    """What this relay may give to participants."""
    participants: dict[int, Participant[Peer]] = field(default_factory=dict)
    listeners: tuple[Participant[Peer], ...] = ()
    """Participants that hear and are connected in some way. Computed on every change, not for every packet."""
    last_number: int = 0
    elsewhere: dict[int, VoiceAge] = field(default_factory=dict)
    """Speakers on other relays."""
    names_elsewhere: Mapping[int, str] = field(default_factory=dict)

    def changed(self) -> None:
        """Call this when a participant joined, left, or got or lost a connection or session."""
        self.listeners = tuple(
            s for s in self.participants.values() if s.hears and (s.peer is not None or s.session is not None)
        )

    def speakers(self) -> list[Participant[Peer]]:
        """Participants that may speak."""
        return [participant for participant in self.participants.values() if participant.speaks]

    def names(self) -> dict[int, str]:
        """What speakers are called, here and on other relays, as far as they said."""
        here = {s.number: s.name for s in self.speakers() if s.name is not None}
        return {**self.names_elsewhere, **here}

    def free_number(self) -> int:
        """The next free number. A number is used again only after all others were given."""
        number = self.last_number
        while True:
            number = number + 1 if number + 1 in self.numbers else self.numbers.start
            if number not in self.participants:
                self.last_number = number
                return number

    def settle(self, elsewhere: Elsewhere) -> None:
        """Set the speakers on other relays."""
        age_of, frame_s = self.elsewhere, (elsewhere.format or self.format).frame_seconds
        self.names_elsewhere = elsewhere.names
        self.elsewhere = {number: age_of.get(number) or VoiceAge(frame_s) for number in sorted(elsewhere.speakers)}


@dataclass(slots=True)
class Effects(Generic[Peer]):
    """What the relay has to do after a change: messages to send, peers to close, other relays to tell."""

    notices: list[tuple[Participant[Peer], ControlMessage]] = field(default_factory=list)
    closes: list[tuple[Peer, Refused]] = field(default_factory=list)
    announcements: list[Room[Peer]] = field(default_factory=list)
    """Rooms whose speakers on this relay have changed, or that have no participant here any more."""
    reports: list[tuple[Room[Peer], Report]] = field(default_factory=list)
    """For speakers on other relays."""
    sessions: list[PacketSession] = field(default_factory=list)
    """Datagram sessions to close: their participants have left."""

    def tell(self, room: Room[Peer], about: Participant[Peer] | None, message: ControlMessage) -> None:
        """A notice to every listener of a room but the participant that it is about."""
        self.notices += [(participant, message) for participant in room.listeners if participant is not about]

    def add(self, others: Effects[Peer]) -> None:
        """Add what follows from another change."""
        self.notices += others.notices
        self.closes += others.closes
        self.announcements += others.announcements
        self.reports += others.reports
        self.sessions += others.sessions
