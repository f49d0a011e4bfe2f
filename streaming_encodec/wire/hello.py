"""The first message each way: the participant, the room, and the model that made the codes.

The model is agreed on here once, by fingerprint, so that a packet needs only twelve bytes of header.
A relay refuses a publisher whose `StreamFormat` is not the room's: the codes of another model are valid numbers
but decode to noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from streaming_encodec.errors import ConfigError, PacketError
from streaming_encodec.wire.fields import Fields, clean_text, is_visible
from streaming_encodec.wire.header import MAX_CODEBOOKS, PROTOCOL_VERSION
from streaming_encodec.wire.packet import StreamFormat

ROLES = ("publish", "subscribe", "both")
MAX_ROOM_CHARACTERS = 64
MAX_NAME_CHARACTERS = 32
MAX_TOKEN_CHARACTERS = 1400
MAX_SPEAKERS = 64
"""Most speakers in one room: a welcome lists all of them, and every listener decodes each."""


def check_room_name(name: object) -> str:
    """The name. Raises ConfigError for one that no relay takes."""
    if not isinstance(name, str) or not 1 <= len(name) <= MAX_ROOM_CHARACTERS or not is_visible(name):
        raise ConfigError(f"a room's name has 1 to {MAX_ROOM_CHARACTERS} visible characters", setting="room")
    return name


def check_display_name(name: str) -> str:
    """A name as others may see it, without what is invisible. Raises ConfigError where nothing or too much is left."""
    clean = clean_text(name, MAX_NAME_CHARACTERS + 1)
    if not 1 <= len(clean) <= MAX_NAME_CHARACTERS:
        raise ConfigError(f"a display name has 1 to {MAX_NAME_CHARACTERS} visible characters", setting="name")
    return clean


@dataclass(frozen=True, slots=True)
class Hello:
    """A client's first message.

    max_codebooks: the relay cuts what this client receives to this many. resume: the ticket of an earlier welcome.
    name: what the others see.
    """

    room: str
    role: str
    format: StreamFormat
    token: str | None = None
    max_codebooks: int | None = None
    resume: str | None = None
    name: str | None = None
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
            "name": self.name,
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
            name=read_name(fields),
            protocol=fields.whole("protocol", PROTOCOL_VERSION, PROTOCOL_VERSION),
        )


@dataclass(frozen=True, slots=True)
class DatagramOffer:
    """Where a client may open a datagram session beside its connection (see `docs/protocol.md`).

    port: UDP, at the relay's host. key: good once, for this seat, for a short time. certificate_sha256: of the relay's
    certificate there, in 64 hex digits.
    """

    port: int
    key: str
    certificate_sha256: str

    TYPE: ClassVar[str] = "offer"

    def to_dict(self) -> dict[str, Any]:
        """The message as a JSON object."""
        return {"port": self.port, "key": self.key, "certificate_sha256": self.certificate_sha256}

    @classmethod
    def from_fields(cls, fields: Fields) -> DatagramOffer:
        """Read the message from a JSON object. Raises PacketError."""
        return cls(
            port=fields.whole("port", 1, 0xFFFF),
            key=fields.matching("key", "[A-Za-z0-9_-]{1,64}"),
            certificate_sha256=fields.matching("certificate_sha256", "[0-9a-f]{64}"),
        )


@dataclass(frozen=True, slots=True)
class Welcome:
    """The relay's answer: this client's number (0 if it may not speak), and what the relay expects of it.

    resume: ticket to present after a lost connection, to keep the number. speakers: numbers of the other
    speakers in the room. resumed: the ticket was accepted. names: what some of them are called. datagrams: how to open
    a datagram session beside this connection; None where the relay has none.
    """

    sender: int
    resume: str | None = None
    resumed: bool = False
    heartbeat_s: float = 5.0
    speakers: tuple[int, ...] = ()
    names: Mapping[int, str] = field(default_factory=dict)
    protocol: int = PROTOCOL_VERSION
    datagrams: DatagramOffer | None = None

    TYPE: ClassVar[str] = "welcome"

    def to_dict(self) -> dict[str, Any]:
        """The message as a JSON object."""
        return {
            "protocol": self.protocol,
            "sender": self.sender,
            "resume": self.resume,
            "resumed": self.resumed,
            "heartbeat_s": self.heartbeat_s,
            "speakers": [
                {"sender": s, "name": self.names[s]} if s in self.names else {"sender": s} for s in self.speakers
            ],
            "datagrams": None if self.datagrams is None else self.datagrams.to_dict(),
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> Welcome:
        """Read the message from a JSON object. Raises PacketError."""
        others = [(s.whole("sender", 1, 0xFFFF), read_name(s)) for s in fields.objects("speakers", MAX_SPEAKERS)]
        return cls(
            sender=fields.whole("sender", 0, 0xFFFF),
            resume=fields.text("resume", 64) if fields.has("resume") else None,
            resumed=fields.flag("resumed"),
            heartbeat_s=fields.number("heartbeat_s", 0.01, 3600.0) if fields.has("heartbeat_s") else 5.0,
            speakers=tuple(sender for sender, _ in others),
            names={sender: name for sender, name in others if name is not None},
            datagrams=(DatagramOffer.from_fields(fields.object("datagrams")) if fields.has("datagrams") else None),
            protocol=fields.whole("protocol", PROTOCOL_VERSION, PROTOCOL_VERSION),
        )


def read_name(fields: Fields) -> str | None:
    """The display name in a message, if there is one. Raises PacketError."""
    return fields.text("name", MAX_NAME_CHARACTERS) if fields.has("name") else None
