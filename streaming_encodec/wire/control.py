"""Control messages: small JSON objects in text messages, beside the binary packets.

``parse_control(serialize_control(m)) == m``; any other bytes raise PacketError and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from streaming_encodec.errors import PacketError, StreamError
from streaming_encodec.wire.fields import MAX_CONTROL_BYTES, Fields, write_json
from streaming_encodec.wire.header import MAX_CODEBOOKS
from streaming_encodec.wire.hello import DatagramOffer, Hello, Welcome, read_name

MAX_REASON_CHARACTERS = 123
_FOREVER_MS = 86_400_000.0


@dataclass(frozen=True, slots=True)
class Joined:
    """Relay to listeners: a participant with this number may speak now, and is called so."""

    sender: int
    name: str | None = None
    TYPE: ClassVar[str] = "joined"

    def to_dict(self) -> dict[str, Any]:
        """The message as a JSON object."""
        return {"sender": self.sender, "name": self.name}

    @classmethod
    def from_fields(cls, fields: Fields) -> Joined:
        """Read the message from a JSON object. Raises PacketError."""
        return cls(fields.whole("sender", 1, 0xFFFF), read_name(fields))


@dataclass(frozen=True, slots=True)
class Left:
    """Relay to listeners: this speaker has left."""

    sender: int
    TYPE: ClassVar[str] = "left"

    def to_dict(self) -> dict[str, Any]:
        """The message as a JSON object."""
        return {"sender": self.sender}

    @classmethod
    def from_fields(cls, fields: Fields) -> Left:
        """Read the message from a JSON object. Raises PacketError."""
        return cls(fields.whole("sender", 1, 0xFFFF))


@dataclass(frozen=True, slots=True)
class Layers:
    """Listener to relay: from now on, cut packets for this listener to this many codebooks."""

    max_codebooks: int
    TYPE: ClassVar[str] = "layers"

    def to_dict(self) -> dict[str, Any]:
        """The message as a JSON object."""
        return {"max_codebooks": self.max_codebooks}

    @classmethod
    def from_fields(cls, fields: Fields) -> Layers:
        """Read the message from a JSON object. Raises PacketError."""
        return cls(fields.whole("max_codebooks", 1, MAX_CODEBOOKS))


@dataclass(frozen=True, slots=True)
class Report:
    """How one sender's packets arrived at one listener in the last interval; the relay passes it to that sender.

    fraction_lost: packets that never came or came too late to play, 0..1, before redundancy helped.
    fraction_concealed: frames that were concealed, 0..1. jitter_ms, playout_delay_ms: at present.
    burst_frames: mean length of a run of missing frames, 0 if none was missing.
    queue_ms: one-way delay of the interval's fastest packet above the fastest of the last half minute.
    ordered: packets reach the listener over a transport that keeps order, so none of them is lost on that way.
    listener: number of the reporter, filled in by the relay.
    """

    sender: int
    fraction_lost: float
    fraction_concealed: float
    burst_frames: float
    jitter_ms: float
    playout_delay_ms: float
    listener: int = 0
    queue_ms: float = 0.0
    ordered: bool = True
    TYPE: ClassVar[str] = "report"

    def to_dict(self) -> dict[str, Any]:
        """The message as a JSON object."""
        return {
            "sender": self.sender,
            "fraction_lost": self.fraction_lost,
            "fraction_concealed": self.fraction_concealed,
            "burst_frames": self.burst_frames,
            "jitter_ms": self.jitter_ms,
            "playout_delay_ms": self.playout_delay_ms,
            "queue_ms": self.queue_ms,
            "ordered": self.ordered,
            "listener": self.listener,
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> Report:
        """Read the message from a JSON object. Raises PacketError."""
        return cls(
            sender=fields.whole("sender", 1, 0xFFFF),
            fraction_lost=fields.number("fraction_lost", 0.0, 1.0),
            fraction_concealed=fields.number("fraction_concealed", 0.0, 1.0),
            burst_frames=fields.number("burst_frames", 0.0, _FOREVER_MS),
            jitter_ms=fields.number("jitter_ms", 0.0, _FOREVER_MS),
            playout_delay_ms=fields.number("playout_delay_ms", 0.0, _FOREVER_MS),
            queue_ms=fields.number("queue_ms", 0.0, _FOREVER_MS) if fields.has("queue_ms") else 0.0,
            ordered=fields.flag("ordered", default=True),
            listener=fields.whole("listener", 0, 0xFFFF) if fields.has("listener") else 0,
        )


@dataclass(frozen=True, slots=True)
class AskDatagrams:
    """Client to relay: offer me a datagram session again. The answer is a `DatagramOffer`, if the relay has any."""

    TYPE: ClassVar[str] = "datagrams"

    def to_dict(self) -> dict[str, Any]:
        """The message as a JSON object."""
        return {}

    @classmethod
    def from_fields(cls, fields: Fields) -> AskDatagrams:
        """Read the message from a JSON object."""
        return cls()


@dataclass(frozen=True, slots=True)
class Bye:
    """Either side leaves on purpose, for a reason or without one.

    retry_s: when the other side should reconnect, in seconds (a relay that restarts).
    """

    reason: str = ""
    retry_s: float | None = None
    TYPE: ClassVar[str] = "bye"

    def to_dict(self) -> dict[str, Any]:
        """The message as a JSON object."""
        return {"reason": self.reason or None, "retry_s": self.retry_s}

    @classmethod
    def from_fields(cls, fields: Fields) -> Bye:
        """Read the message from a JSON object. Raises PacketError."""
        return cls(
            fields.text("reason", MAX_REASON_CHARACTERS, shortest=0) if fields.has("reason") else "",
            fields.number("retry_s", 0.0, 3600.0) if fields.has("retry_s") else None,
        )


ControlMessage = Hello | Welcome | Joined | Left | Layers | Report | AskDatagrams | DatagramOffer | Bye
_BY_TYPE: dict[str, type[ControlMessage]] = {
    kind.TYPE: kind for kind in (Hello, Welcome, Joined, Left, Layers, Report, AskDatagrams, DatagramOffer, Bye)
}


def serialize_control(message: ControlMessage) -> str:
    """The message as JSON. Raises StreamError if it is longer than a message may be or holds what can't be
    sent."""
    try:
        text = write_json({"type": message.TYPE, **message.to_dict()})
        size = len(text.encode("utf-8"))
    except ValueError as error:
        what = "a number that is not finite or text that is not Unicode"
        raise StreamError(f"a {message.TYPE} message holds {what}") from error
    if size > MAX_CONTROL_BYTES:
        raise StreamError(f"a {message.TYPE} message of {size} bytes is too long; at most {MAX_CONTROL_BYTES}")
    return text


def parse_control(text: str | bytes) -> ControlMessage:
    """Read one control message. Raises PacketError for anything else, and nothing else."""
    fields = Fields.read(text)
    name = fields.text("type", 16)
    kind = _BY_TYPE.get(name)
    if kind is None:
        raise PacketError("a control message's type is one of " + ", ".join(_BY_TYPE))
    return kind.from_fields(fields)
