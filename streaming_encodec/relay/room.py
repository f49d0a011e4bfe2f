"""One room, what a change in it makes a relay do, and the tokens with which participants come back. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Generic

from streaming_encodec.errors import PacketError
from streaming_encodec.relay.bus.base import Elsewhere
from streaming_encodec.relay.participants import Participant, Peer, VoiceAge
from streaming_encodec.transport.base import PacketSession
from streaming_encodec.transport.close_codes import Refused
from streaming_encodec.wire.control import ControlMessage, Report
from streaming_encodec.wire.header import FLAG_END, read_header
from streaming_encodec.wire.packet import StreamFormat


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

    def from_elsewhere(self, packet: bytes, now_s: float) -> tuple[int, int] | None:
        """Check a packet of a speaker on another relay; returns its number and the number of frames.

        None if it is not to be passed on: the speaker is unknown, or its voice is too old.
        """
        try:
            head = read_header(packet)
        except PacketError:
            return None
        age = self.elsewhere.get(head.sender)
        # The end of a talk spurt is news at any age, as in `Participant.packet`.
        if age is None or (age.is_late(head.timestamp, now_s) and not head.flags & FLAG_END):
            return None
        return head.sender, head.num_frames


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


class ResumptionTokens(Generic[Peer]):
    """Secrets that restore a participant (holder) whose connection was lost; each is replaced when it is used.

    The welcome with the new token may be lost together with the connection. So the token that was used stays valid
    until the holder has sent something (`confirm`).
    """

    def __init__(self, new_token: Callable[[], str]) -> None:
        self._new_token = new_token
        self._holders: dict[str, Participant[Peer]] = {}
        self._held: dict[Participant[Peer], tuple[str, ...]] = {}  # the newest, and the one used to get it

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Participant[Peer]]:
        return iter(self._held)

    def holder(self, token: str) -> Participant[Peer] | None:
        """Whose token this is; None if it is unknown or no longer valid."""
        return self._holders.get(token)

    def issue(self, holder: Participant[Peer], *used: str) -> str:
        """A new token, in place of the used one if there is one."""
        self.revoke(holder)
        token = self._new_token()
        self._keep(holder, (token, *used))
        return token

    def confirm(self, holder: Participant[Peer]) -> None:
        """The newest token has arrived: the one before it is no longer valid."""
        held = self._held.get(holder, ())
        if len(held) > 1:
            self.revoke(holder)
            self._keep(holder, held[:1])

    def revoke(self, holder: Participant[Peer]) -> bool:
        """Forget a holder; False if it is unknown."""
        held = self._held.pop(holder, ())
        for token in held:
            del self._holders[token]
        return bool(held)

    def _keep(self, holder: Participant[Peer], tokens: tuple[str, ...]) -> None:
        self._held[holder] = tokens
        self._holders.update(dict.fromkeys(tokens, holder))
