"""Datagram sessions of a relay's participants: offers, the keys in them, and what comes over sessions."""

from __future__ import annotations

import logging
import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol

from streaming_encodec.relay.metrics import Metrics
from streaming_encodec.relay.participants import Participant, Peer
from streaming_encodec.relay.room import Room
from streaming_encodec.transport.base import ServerConnection, ServerSession
from streaming_encodec.transport.close_codes import CloseCode, Refused
from streaming_encodec.transport.logs import event
from streaming_encodec.wire.control import Left, serialize_control
from streaming_encodec.wire.hello import DatagramOffer

_FAREWELLS = 3
"""How often a departure is reported: datagrams can be lost."""
_MOST_FAREWELLS = 1024
KEY_S = 30.0
"""A key is good for so long: a client uses it at once."""

Member = Participant[ServerConnection]


class SessionListener(Protocol):
    """Where sessions come in."""

    @property
    def certificate_sha256(self) -> str:
        """The hash of the certificate that new sessions are shown."""
        ...


@dataclass(slots=True)
class _Key:
    participant: Member
    until_s: float


class Farewells(Generic[Peer]):
    """Tells listeners over their sessions that a speaker has left.

    They are told over their connections too, where that may wait behind segments that are sent again, for seconds.
    """

    def __init__(self) -> None:
        self._again: deque[tuple[Room[Peer], Left, int]] = deque(maxlen=_MOST_FAREWELLS)

    def say(self, room: Room[Peer], message: Left, times: int = _FAREWELLS) -> None:
        """Tell a room now, and when `say_again` is called next."""
        data = serialize_control(message).encode()
        sessions = [each.session for each in room.listeners if each.session is not None]
        for session in sessions:
            session.send_packet(message.sender, 1, data)
        if times > 1 and sessions:
            self._again.append((room, message, times - 1))

    def say_again(self) -> None:
        """Tell once more what may not have arrived."""
        waiting, self._again = self._again, deque(maxlen=_MOST_FAREWELLS)
        for room, message, times in waiting:
            self.say(room, message, times)


class DatagramSeats:
    """Binds sessions to participants, by keys that are good once; a `transport.base.SessionHost`.

    packet: takes a packet of a participant. refuse: ends what a participant has of connections.
    """

    def __init__(
        self,
        metrics: Metrics,
        clock: Callable[[], float],
        *,
        packet: Callable[[Member, bytes, bool], None],
        refuse: Callable[[Member, Refused], None],
    ) -> None:
        self._metrics, self._clock = metrics, clock
        self._packet, self._refuse = packet, refuse
        self._keys: dict[str, _Key] = {}
        self._key_of: dict[Member, str] = {}
        self._participants: dict[ServerSession, Member] = {}
        self._offered: tuple[SessionListener, int] | None = None

    def __len__(self) -> int:
        return len(self._participants)

    def begin(self, listener: SessionListener, port: int) -> None:
        """From now on offer sessions there."""
        self._offered = (listener, port)

    def end(self) -> None:
        """No more."""
        self._offered = None

    def offer(self, participant: Member) -> DatagramOffer | None:
        """An offer with a fresh key; those before it are void. None where there are no sessions."""
        if self._offered is None:
            return None
        listener, port = self._offered
        self._revoke(participant)
        key = secrets.token_urlsafe(16)
        self._keys[key] = _Key(participant, self._clock() + KEY_S)
        self._key_of[participant] = key
        return DatagramOffer(port, key, listener.certificate_sha256)

    def tick(self) -> None:
        """Forget the keys that were not used in time."""
        now_s = self._clock()
        for known in [known for known in self._keys.values() if known.until_s <= now_s]:
            self._revoke(known.participant)

    def _revoke(self, participant: Member) -> None:
        key = self._key_of.pop(participant, None)
        if key is not None:
            del self._keys[key]

    # -- SessionHost ------------------------------------------------------------------------------------------

    def opened(self, session: ServerSession, key: str) -> bool:
        """Bind a session to the participant whose key this is."""
        known = self._keys.get(key)
        if known is None or known.until_s <= self._clock() or not known.participant.is_seated:
            self._metrics.counts["sessions_refused"] += 1
            event("session_refused", logging.WARNING, cause="key", address=session.address)
            return False
        participant = known.participant
        self._revoke(participant)
        if participant.session is not None:
            participant.session.close(CloseCode.REPLACED, "another session")
        participant.session = session
        participant.room.changed()
        self._participants[session] = participant
        self._metrics.counts["sessions"] += 1
        event("session", room=participant.room.name, seat=participant.number, address=session.address)
        return True

    def arrived(self, session: ServerSession, packet: bytes) -> None:
        """A packet came: it is its participant's."""
        participant = self._participants.get(session)
        if participant is None or participant.session is not session:
            return
        try:
            self._packet(participant, packet, session.ordered)
        except Refused as refused:
            self._refuse(participant, refused)

    def flooded(self, session: ServerSession) -> None:
        """More comes than a stream has."""
        participant = self._participants.get(session)
        if participant is not None:
            self._refuse(participant, Refused(CloseCode.TOO_FAST, "more bytes or packets than allowed"))
        session.close(CloseCode.TOO_FAST, "more bytes or packets than allowed")

    def ended(self, session: ServerSession) -> None:
        """The session is over; the participant goes on without."""
        participant = self._participants.pop(session, None)
        self._metrics.counts["packets_dropped"] += session.take_dropped()
        if participant is not None and participant.session is session:
            participant.session = None
            participant.room.changed()
