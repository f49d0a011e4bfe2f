"""The first message each way: the participant, the room, and the model that made the codes.

The model is agreed on here once, by fingerprint, so that a packet needs only twelve bytes of header.
A relay refuses a publisher whose `StreamFormat` is not the room's: the codes of another model are valid numbers
but decode to noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from streaming_encodec.errors import ConfigError, PacketError, StreamError
from streaming_encodec.wire.bits import MAX_BITS
from streaming_encodec.wire.fields import Fields, is_visible
from streaming_encodec.wire.header import MAX_CODEBOOKS, PROTOCOL_VERSION, PacketHeader
from streaming_encodec.wire.packet import Packet

ROLES = ("publish", "subscribe", "both")
FINGERPRINT_HEX = 32
MAX_ROOM_CHARACTERS = 64
MAX_TOKEN_CHARACTERS = 1400
MAX_SPEAKERS = 64
"""Most speakers in one room: a welcome lists all of them, and every listener decodes each."""


def check_room_name(name: object) -> str:
    """The name. Raises ConfigError for one that no relay takes."""
    if not isinstance(name, str) or not 1 <= len(name) <= MAX_ROOM_CHARACTERS or not is_visible(name):
        raise ConfigError(f"a room's name has 1 to {MAX_ROOM_CHARACTERS} visible characters", setting="room")
    return name


@dataclass(frozen=True, slots=True)
class StreamFormat:
    """What the codes of a stream mean; both ends of a call must have the same.

    model: fingerprint (32 hex digits, see `docs/protocol.md`). frame_samples: the hop, in samples of each
    channel.
    """

    model: str
    sample_rate: int = 24_000
    channels: int = 1
    frame_samples: int = 320
    max_codebooks: int = 32
    codebook_size: int = 1024

    def __post_init__(self) -> None:
        if len(self.model) != FINGERPRINT_HEX or set(self.model) - set("0123456789abcdef"):
            raise StreamError(f"a model's fingerprint is {FINGERPRINT_HEX} lower-case hex digits")
        for name, (low, high) in _FORMAT_RANGES.items():
            if not low <= getattr(self, name) <= high:
                raise StreamError(f"{name} lies in {low}..{high}, not {getattr(self, name)}")

    @property
    def bits_per_code(self) -> int:
        """Bits of a code on the wire."""
        return max(1, (self.codebook_size - 1).bit_length())

    @property
    def frame_seconds(self) -> float:
        """Length of one frame: 1/75 s for the 24 kHz model."""
        return self.frame_samples / self.sample_rate

    def check_header(self, head: PacketHeader) -> None:
        """Raise PacketError if a packet with this header can't belong to the stream. Cheap: for a relay."""
        if head.bits_per_code != self.bits_per_code or head.num_codebooks > self.max_codebooks:
            raise PacketError(
                f"the stream has up to {self.max_codebooks} codebooks of {self.bits_per_code} bits, "
                f"this packet {head.num_codebooks} of {head.bits_per_code}"
            )
        if head.redundant_codebooks > self.max_codebooks:
            raise PacketError("more redundant codebooks than the model has")

    def check_packet(self, packet: Packet) -> None:
        """Raise PacketError if the packet, code values included, can't belong to the stream."""
        redundant = 0 if packet.redundancy is None else packet.redundancy.shape[0]
        if packet.bits_per_code != self.bits_per_code or max(packet.num_codebooks, redundant) > self.max_codebooks:
            raise PacketError(f"the stream has up to {self.max_codebooks} codebooks of {self.bits_per_code} bits")
        if self.codebook_size == 1 << self.bits_per_code:
            return  # no code that fits its bits lies past it
        for codes in (packet.codes, packet.redundancy):
            if codes is not None and int(codes.max()) >= self.codebook_size:
                raise PacketError(f"a code lies past the codebook's {self.codebook_size} entries")

    def to_dict(self) -> dict[str, Any]:
        """The message as a JSON object."""
        return {"model": self.model} | {name: getattr(self, name) for name in _FORMAT_RANGES}

    @classmethod
    def from_fields(cls, fields: Fields) -> StreamFormat:
        """Read the message from a JSON object. Raises PacketError."""
        numbers = {name: fields.whole(name, *limits) for name, limits in _FORMAT_RANGES.items()}
        try:
            return cls(fields.text("model", FINGERPRINT_HEX), **numbers)
        except StreamError as error:
            raise PacketError(str(error)) from error


_FORMAT_RANGES = {
    "sample_rate": (1_000, 192_000),
    "channels": (1, 2),
    "frame_samples": (1, 48_000),
    "max_codebooks": (1, MAX_CODEBOOKS),
    "codebook_size": (2, 1 << MAX_BITS),
}


@dataclass(frozen=True, slots=True)
class Hello:
    """A client's first message.

    max_codebooks: the relay cuts what this client receives to this many. resume: the ticket of an earlier welcome.
    """

    room: str
    role: str
    format: StreamFormat
    token: str | None = None
    max_codebooks: int | None = None
    resume: str | None = None
    protocol: int = PROTOCOL_VERSION

    TYPE: ClassVar[str] = "hello"

    def to_dict(self) -> dict[str, Any]:
        """The message as a JSON object."""
        return {
            "protocol": self.protocol,
            "room": self.room,
            "role": self.role,
            "format": self.format.to_dict(),
            "token": self.token,
            "max_codebooks": self.max_codebooks,
            "resume": self.resume,
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> Hello:
        """Read the message from a JSON object. Raises PacketError."""
        role = fields.text("role", 16)
        if role not in ROLES:
            raise PacketError(f"field 'role' is one of {', '.join(ROLES)}")
        return cls(
            room=fields.text("room", MAX_ROOM_CHARACTERS),
            role=role,
            format=StreamFormat.from_fields(fields.object("format")),
            token=fields.text("token", MAX_TOKEN_CHARACTERS) if fields.has("token") else None,
            max_codebooks=fields.whole("max_codebooks", 1, MAX_CODEBOOKS) if fields.has("max_codebooks") else None,
            resume=fields.text("resume", 64) if fields.has("resume") else None,
            protocol=fields.whole("protocol", PROTOCOL_VERSION, PROTOCOL_VERSION),
        )


@dataclass(frozen=True, slots=True)
class Welcome:
    """The relay's answer: this client's number (0 if it may not speak), and what the relay expects of it.

    resume: ticket to present after a lost connection, to keep the number. speakers: numbers of the other
    speakers in the room. resumed: the ticket was accepted.
    """

    sender: int
    resume: str | None = None
    resumed: bool = False
    heartbeat_s: float = 5.0
    speakers: tuple[int, ...] = ()
    protocol: int = PROTOCOL_VERSION

    TYPE: ClassVar[str] = "welcome"

    def to_dict(self) -> dict[str, Any]:
        """The message as a JSON object."""
        return {
            "protocol": self.protocol,
            "sender": self.sender,
            "resume": self.resume,
            "resumed": self.resumed,
            "heartbeat_s": self.heartbeat_s,
            "speakers": [{"sender": s} for s in self.speakers],
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> Welcome:
        """Read the message from a JSON object. Raises PacketError."""
        return cls(
            sender=fields.whole("sender", 0, 0xFFFF),
            resume=fields.text("resume", 64) if fields.has("resume") else None,
            resumed=fields.flag("resumed"),
            heartbeat_s=fields.number("heartbeat_s", 0.01, 3600.0) if fields.has("heartbeat_s") else 5.0,
            speakers=tuple(s.whole("sender", 1, 0xFFFF) for s in fields.objects("speakers", MAX_SPEAKERS)),
            protocol=fields.whole("protocol", PROTOCOL_VERSION, PROTOCOL_VERSION),
        )
