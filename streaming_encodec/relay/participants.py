"""A participant of a room, and which of a speaker's packets a relay passes on: each once, and none too old. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

from streaming_encodec.errors import PacketError
from streaming_encodec.transport.base import PacketSession
from streaming_encodec.transport.close_codes import CloseCode, Refused
from streaming_encodec.transport.limits import MAX_VOICE_AGE_S, Bucket
from streaming_encodec.wire.header import (
    FLAG_END,
    PROTOCOL_VERSION,
    SEQUENCE_BITS,
    TIMESTAMP_BITS,
    read_header,
    serial_difference,
    with_sender,
)
from streaming_encodec.wire.packet import StreamFormat

if TYPE_CHECKING:
    from streaming_encodec.relay.room import Room

Peer = TypeVar("Peer")

WINDOW_PACKETS = 128
"""How far back a sequence number is remembered: more than 0.4 s of packets of one frame, at up to 200 a second."""
_DRIFT = 0.001
"""Largest relative error of a sender's clock; real ones are within 0.0001."""
_HELD_UP_S = 0.2
"""An outage delays a packet by at least this; a sender slower than real time falls behind gradually."""
_WATCH_S = 0.02
_DRAIN = 0.2
"""A backlog grows shorter by at least this share of the time that passes; a stream that is merely late does not."""


class SequenceWindow:
    """Sequence numbers that were there before, as in RFC 4303, 3.4.3: the newest, and a bit for each one before it."""

    __slots__ = ("_newest", "_seen")

    def __init__(self) -> None:
        self._newest: int | None = None
        self._seen = 0

    def take(self, sequence: int, *, ordered: bool) -> bool:
        """Note a number; False for one that was there before, or is older than the window (if `ordered`: not newer)."""
        if self._newest is None:
            self._newest, self._seen = sequence, 1
            return True
        ahead = serial_difference(sequence, self._newest, SEQUENCE_BITS)
        if ahead > 0:
            self._newest = sequence
            self._seen = (self._seen << ahead | 1) & ((1 << WINDOW_PACKETS) - 1) if ahead < WINDOW_PACKETS else 1
            return True
        bit = 1 << -ahead
        if ordered or -ahead >= WINDOW_PACKETS or self._seen & bit:
            return False
        self._seen |= bit
        return True


class VoiceAge:
    """How old a speaker's packets are when they arrive, by their timestamps, against those that came fastest.

    After an outage the packets that it held back arrive at once: each is less late than the one before. If packets
    are late but arrive at the pace of real time, the speaker's timestamps paused, or the network path became
    longer, or the speaker's machine is slow: then that is accepted as normal.

    frame_s: what a timestamp counts.
    """

    __slots__ = ("_due_s", "_frame_s", "_last", "_late_s", "_since_s", "_then_s", "_timestamp")

    def __init__(self, frame_s: float) -> None:
        self._frame_s = frame_s
        self._timestamp: int | None = None  # of a packet that came fast, and when it was due
        self._due_s = 0.0
        self._last = 0  # timestamp of the last packet, and when it came
        self._then_s = 0.0
        self._since_s: float | None = None  # since when packets are late, and how late they were then
        self._late_s = 0.0

    def is_late(self, timestamp: int, now_s: float) -> bool:
        """Note a packet; whether it is older than `MAX_VOICE_AGE_S`."""
        if self._timestamp is None:
            self._begin(timestamp, now_s)
            return False
        gap_s = now_s - self._then_s
        held_up_s = gap_s - self._frame_s * serial_difference(timestamp, self._last, TIMESTAMP_BITS)
        self._last, self._then_s = timestamp, now_s
        self._due_s += _DRIFT * gap_s
        late_s = now_s - self._due_s - self._frame_s * serial_difference(timestamp, self._timestamp, TIMESTAMP_BITS)
        if late_s <= MAX_VOICE_AGE_S:
            self._since_s = None
            if late_s <= 0:
                self._begin(timestamp, now_s)
            return False
        if self._since_s is None:
            if held_up_s < _HELD_UP_S:
                self._begin(timestamp, now_s)
                return False
            self._since_s, self._late_s = now_s, late_s
        elif now_s - self._since_s >= _WATCH_S:
            if self._late_s - late_s < _DRAIN * (now_s - self._since_s):
                self._begin(timestamp, now_s)
                return False
            self._since_s, self._late_s = now_s, late_s
        return True

    def _begin(self, timestamp: int, now_s: float) -> None:
        self._timestamp = self._last = timestamp
        self._due_s = self._then_s = now_s
        self._since_s = None


@dataclass(slots=True, eq=False)
class Participant(Generic[Peer]):
    """One participant of one room.

    peer: its connection, None while that is lost. session: its datagram session, None without one.
    ordered: its packets have all come over one connection that keeps order. unconfirmed: it came back, and has sent
    nothing over its new connection yet.
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
    unconfirmed: bool = False
    sequences: SequenceWindow = field(default_factory=SequenceWindow)
    age: VoiceAge = field(init=False)

    def __post_init__(self) -> None:
        self.age = VoiceAge(self.format.frame_seconds)

    def packet(
        self, data: bytes, now_s: float, *, ordered: bool = True
    ) -> tuple[int, bytes] | Literal["packets_replayed", "packets_late"]:
        """Check a packet; returns its number of frames, and the packet with the sender's number in it.

        It goes to `room.listeners` except the participant itself. For a packet that is not forwarded the
        name of its counter is returned. ordered: it came over a transport that keeps order; there an old sequence
        number is a fault of the client, unless it has had a second way.

        Raises Refused with the close code for one that the participant may not send.
        """
        self.ordered = self.ordered and ordered
        if not self.speaks:
            raise Refused(CloseCode.NOT_ALLOWED, "this participant may only listen")
        try:
            head = read_header(data)
            self.format.check_header(head)
        except PacketError as error:
            if data and data[0] >> 4 == 0xE and data[0] & 15 != PROTOCOL_VERSION:
                raise Refused(CloseCode.WRONG_VERSION, "packet of another version") from error
            raise Refused(CloseCode.BAD_MESSAGE, "not a packet of this stream") from error
        is_new = self.sequences.take(head.sequence, ordered=self.ordered)
        if self.ordered and not is_new:
            raise Refused(CloseCode.BAD_MESSAGE, "a sequence number that was there before")
        # The end of a talk spurt is news at any age: without it listeners wait for more.
        is_late = is_new and self.age.is_late(head.timestamp, now_s) and not head.flags & FLAG_END
        # A client that has two ways may send a packet over both of them. What an outage held back was spoken in time.
        allowed = self.late if is_late else self.frames if is_new else self.repeats
        if not allowed.take(head.num_frames, now_s):
            raise Refused(CloseCode.TOO_FAST, "more frames than time")
        if not is_new:
            return "packets_replayed"
        self.heard_s = now_s
        if is_late:
            return "packets_late"
        return head.num_frames, with_sender(data, self.number)

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
