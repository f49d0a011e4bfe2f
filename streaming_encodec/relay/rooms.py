"""The rules of rooms: who may join, speak, hear and return. Pure: no sockets, no clock.

The caller passes what arrives and the time, and does what is returned: deliver a packet to these listeners, send these
notices, close these peers. What a peer may not do raises `Refused` with the close code.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from dataclasses import replace
from typing import Generic

from streaming_encodec.errors import ConfigError
from streaming_encodec.relay.bus.base import NOBODY, Elsewhere
from streaming_encodec.relay.limits import MAX_FRAME_RATE_HZ, RelayLimits
from streaming_encodec.relay.participants import Participant, Peer
from streaming_encodec.relay.room import Effects, ResumptionTokens, Room
from streaming_encodec.transport.close_codes import CloseCode, Refused, not_allowed
from streaming_encodec.transport.limits import Bucket
from streaming_encodec.wire.control import AskDatagrams, Bye, ControlMessage, Joined, Layers, Left, Report
from streaming_encodec.wire.hello import MAX_SPEAKERS, Hello, Welcome
from streaming_encodec.wire.packet import StreamFormat

_NAMES_BYTES = 600
"""For names in a welcome: with 64 speakers' numbers, an offer of datagrams and all else it stays within
`MAX_CONTROL_BYTES`."""


class RoomTable(Generic[Peer]):
    """All rooms of one relay.

    allowed_rooms: names that exist; None creates a room with its first participant.
    new_resumption_token: makes a secret.
    numbers: for the participants of a room. Raises ConfigError if the limits allow more participants than numbers.
    """

    def __init__(
        self,
        limits: RelayLimits,
        allowed_rooms: frozenset[str] | None = None,
        new_resumption_token: Callable[[], str] = lambda: secrets.token_urlsafe(18),
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
        self._resumption_tokens: ResumptionTokens[Peer] = ResumptionTokens(new_resumption_token)
        self.rooms: dict[str, Room[Peer]] = {}

    @property
    def participants(self) -> int:
        """Their number, those kept after a lost connection included."""
        return len(self._resumption_tokens)

    # -- coming and going -----------------------------------------------------------------------------------

    def resume(self, hello: Hello, peer: Peer, now_s: float) -> tuple[Participant[Peer], Welcome, Effects[Peer]] | None:
        """Restore the participant that the hello's resumption token belongs to; None if there is none like it.

        Raises Refused if a speaker with another model has joined in the meantime.
        """
        participant = self._holder(hello)
        if participant is None:
            return None
        _check_model(participant.room, hello)
        effects = Effects[Peer]()
        if participant.peer is not None:
            gone = Refused(CloseCode.REPLACED, "the participant returned over another connection")
            effects.closes.append((participant.peer, gone))
        participant.peer, participant.heard_s, participant.max_codebooks = peer, now_s, hello.max_codebooks
        participant.room.changed()
        participant.resumption_token = self._resumption_tokens.issue(participant, hello.resume or "")
        participant.unconfirmed = True
        if participant.speaks and participant.name != hello.name and hello.name is not None:
            participant.name = hello.name
            effects.tell(participant.room, participant, Joined(participant.number, hello.name))
            effects.announcements.append(participant.room)
        return participant, self._welcome(participant, effects, resumed=True), effects

    def confirm(self, participant: Participant[Peer]) -> None:
        """A message came after the welcome, so the participant has its new token: the one it used is no longer good."""
        participant.unconfirmed = False
        self._resumption_tokens.confirm(participant)

    def give_up(self, hello: Hello) -> Effects[Peer] | None:
        """Remove the participant that the hello's resumption token belongs to: it is at another relay now.

        None if there is none like it.
        """
        participant = self._holder(hello)
        if participant is None:
            return None
        effects, peer = Effects[Peer](), participant.peer
        if peer is not None:
            gone = Refused(CloseCode.REPLACED, "the participant returned over another connection")
            effects.closes.append((peer, gone))
        effects.add(self.leave(participant))
        return effects

    def admit(self, hello: Hello, elsewhere: Elsewhere = NOBODY) -> Effects[Peer]:
        """Raise Refused if there is no place for this hello. Removes participants without a connection to make place.

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
        if hello.room in self.rooms and len(room.participants) >= self._limits.max_peers:
            self._give_up(room, effects, speaking=False)
        return effects

    def join(
        self, hello: Hello, peer: Peer, now_s: float, elsewhere: Elsewhere = NOBODY
    ) -> tuple[Participant[Peer], Welcome, Effects[Peer]]:
        """Add a participant that `admit` let in."""
        effects = Effects[Peer]()
        room = self.rooms.get(hello.room)
        if room is None:
            room = self.rooms[hello.room] = Room(hello.room, hello.format, self._numbers)
            room.settle(elsewhere)
        rate = 1 / hello.format.frame_seconds
        limits = self._limits
        participant = Participant(
            room=room,
            number=room.free_number(),
            role=hello.role,
            format=hello.format,
            max_codebooks=hello.max_codebooks,
            peer=peer,
            frames=Bucket(limits.speed * rate, limits.burst_s * rate, now_s, forgiven=limits.outage_s * rate),
            late=Bucket(limits.speed * rate, limits.outage_s * rate, now_s),
            repeats=Bucket(limits.speed * rate, limits.burst_s * rate, now_s, forgiven=limits.outage_s * rate),
            controls=Bucket(
                limits.controls_per_s,
                2 * limits.controls_per_s,
                now_s,
                forgiven=limits.outage_s * limits.controls_per_s,
            ),
            heard_s=now_s,
            name=hello.name,
        )
        if participant.speaks:
            # A speaker decides; listeners with another model would hear noise.
            room.format = hello.format
            effects.closes += _others(room, hello.format)
        room.participants[participant.number] = participant
        participant.resumption_token = self._resumption_tokens.issue(participant)
        room.changed()
        if participant.speaks:
            effects.tell(room, participant, Joined(participant.number, participant.name))
            effects.announcements.append(room)
        return participant, self._welcome(participant, effects, resumed=False), effects

    def leave(self, participant: Participant[Peer]) -> Effects[Peer]:
        """Remove a participant."""
        effects = Effects[Peer]()
        room = participant.room
        if not self._resumption_tokens.revoke(participant):
            return effects
        del room.participants[participant.number]
        participant.peer = None
        if participant.session is not None:
            effects.sessions.append(participant.session)
            participant.session = None
        room.changed()
        if participant.speaks:
            effects.tell(room, participant, Left(participant.number))
            effects.announcements.append(room)
        if not room.participants:
            del self.rooms[room.name]
            effects.announcements.append(room)
        return effects

    def lose(self, participant: Participant[Peer], now_s: float) -> None:
        """The connection broke: keep the participant for some time. `tick` removes it."""
        participant.peer, participant.lost_s = None, now_s
        participant.room.changed()

    def tick(self, now_s: float) -> Effects[Peer]:
        """Remove participants that did not return in time, and close speakers that are idle."""
        effects = Effects[Peer]()
        for participant in list(self._resumption_tokens):
            if participant.peer is None:
                if now_s - participant.lost_s >= self._limits.resume_s:
                    effects.add(self.leave(participant))
            elif participant.speaks and now_s - participant.heard_s >= self._limits.idle_s:
                idle = Refused(CloseCode.TIMEOUT, f"nothing heard for {self._limits.idle_s:g} s")
                effects.closes.append((participant.peer, idle))
        return effects

    def stood_still(self, seconds: float, now_s: float) -> None:
        """The relay itself did not run for so long: that time counts for nobody as idle or lost."""
        for participant in self._resumption_tokens:
            participant.heard_s = min(now_s, participant.heard_s + seconds)
            participant.lost_s = min(now_s, participant.lost_s + seconds)

    # -- what participants send ------------------------------------------------------------------------------------

    def control(self, participant: Participant[Peer], message: ControlMessage, now_s: float) -> Effects[Peer]:
        """Take a control message of a participant."""
        if not participant.controls.take(1, now_s):
            raise Refused(CloseCode.TOO_FAST, "too many control messages")
        participant.heard_s = now_s
        effects = Effects[Peer]()
        match message:
            case Layers(max_codebooks):
                participant.max_codebooks = max_codebooks
            case Report():
                if participant.hears and message.sender in participant.room.elsewhere:
                    effects.reports.append((participant.room, replace(message, listener=participant.number)))
                elif participant.hears:
                    effects.add(self.report(participant.room, replace(message, listener=participant.number)))
            case AskDatagrams():
                pass  # answered where sessions are offered
            case Bye():
                peer = participant.peer
                effects = self.leave(participant)
                if peer is not None:
                    effects.closes.append((peer, Refused(CloseCode.NORMAL, "goodbye")))
            case _:
                raise Refused(CloseCode.BAD_MESSAGE, f"a client does not send {message.TYPE!r} here")
        return effects

    # -- what other relays send -----------------------------------------------------------------------------

    def settle(self, room: Room[Peer], elsewhere: Elsewhere) -> Effects[Peer]:
        """Note the present speakers on other relays, and their model."""
        effects = Effects[Peer]()
        before, names = set(room.elsewhere), room.names_elsewhere
        room.settle(elsewhere)
        for number in sorted(before - elsewhere.speakers):
            effects.tell(room, None, Left(number))
        for number in sorted(elsewhere.speakers):
            name = elsewhere.names.get(number)
            if number not in before or (name is not None and name != names.get(number)):
                effects.tell(room, None, Joined(number, name))
        if elsewhere.speakers and elsewhere.format is not None and elsewhere.format != room.format:
            room.format = elsewhere.format
            effects.closes += _others(room, elsewhere.format)
        return effects

    def report(self, room: Room[Peer], report: Report) -> Effects[Peer]:
        """A listener's report, here or elsewhere, on a speaker of this relay."""
        effects = Effects[Peer]()
        speaker = room.participants.get(report.sender)
        if speaker is not None and speaker.speaks and speaker.peer is not None:
            effects.notices.append((speaker, report))
        return effects

    # -- inside ---------------------------------------------------------------------------------------------

    def _holder(self, hello: Hello) -> Participant[Peer] | None:
        """The participant that the hello's resumption token belongs to, if it asks for the same as then."""
        participant = self._resumption_tokens.holder(hello.resume or "")
        wanted = (hello.room, hello.role, hello.format)
        if participant is None or (participant.room.name, participant.role, participant.format) != wanted:
            return None
        return participant

    def _give_up_room(self) -> Effects[Peer]:
        """Remove the room that has been without a connection for longest, or refuse."""
        deserted = [room for room in self.rooms.values() if all(s.peer is None for s in room.participants.values())]
        if not deserted:
            raise Refused(CloseCode.TRY_LATER, "too many rooms; try later")
        room = min(deserted, key=lambda room: max(s.lost_s for s in room.participants.values()))
        effects = Effects[Peer]()
        for participant in list(room.participants.values()):
            effects.add(self.leave(participant))
        return effects

    def _give_up(self, room: Room[Peer], effects: Effects[Peer], *, speaking: bool) -> None:
        """Remove the participant whose connection was lost first, or refuse."""
        lost = [s for s in room.participants.values() if s.peer is None and (s.speaks or not speaking)]
        if not lost:
            raise _too_many()
        effects.add(self.leave(min(lost, key=lambda s: s.lost_s)))

    def _welcome(self, participant: Participant[Peer], effects: Effects[Peer], *, resumed: bool) -> Welcome:
        """The welcome. Names that do not fit into it are left for notices, which are sent after it."""
        others = (s.number for s in participant.room.speakers() if s is not participant)
        speakers = (*others, *participant.room.elsewhere)[:MAX_SPEAKERS]
        names, room_bytes = participant.room.names(), _NAMES_BYTES
        fitting: dict[int, str] = {}
        for number in speakers:
            name = names.get(number)
            if name is None:
                continue
            room_bytes -= len(json.dumps({"name": name}, ensure_ascii=False).encode())
            if room_bytes >= 0:
                fitting[number] = name
            else:
                effects.notices.append((participant, Joined(number, name)))
        return Welcome(
            sender=participant.number if participant.speaks else 0,
            resume=participant.resumption_token,
            resumed=resumed,
            heartbeat_s=self._limits.heartbeat_s,
            speakers=speakers,
            names=fitting,
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
    return [(s.peer, wrong) for s in room.participants.values() if s.peer is not None and s.format != stream_format]
