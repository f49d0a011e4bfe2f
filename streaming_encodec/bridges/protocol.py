"""What a telephone system sends and receives, whatever its message format: events, sound encodings, and the protocol
that each format's parser implements. Pure: no sockets, no clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from streaming_encodec.bridges.g711 import decode_g711, encode_g711
from streaming_encodec.call.pcm import give_pcm
from streaming_encodec.errors import BridgeError
from streaming_encodec.json_text import parse_json
from streaming_encodec.types import Pcm

Message = str | bytes

MOST_SOUND_S = 1.0
"""The longest piece of sound in one message: telephones send 20 ms, some 100. No buffer here could hold more."""
MOST_NAME_CHARACTERS = 128
"""Of a call's or a stream's name; theirs have 34 to 64."""
DIGITS = frozenset("0123456789*#ABCD")


@dataclass(frozen=True, slots=True)
class Encoding:
    """How sound is written: "ulaw", "alaw" or "slin" (int16, little-endian), mono, at `rate` Hz."""

    name: str
    rate: int

    @property
    def sample_bytes(self) -> int:
        """Bytes of a sample."""
        return 2 if self.name == "slin" else 1

    def decode(self, data: bytes) -> Pcm:
        """Bytes as samples [n]. Raises BridgeError for half a sample, or more than `MOST_SOUND_S` at once."""
        if len(data) % self.sample_bytes:
            raise BridgeError(f"{len(data)} bytes of sound hold half a sample: {self.name} has 2 bytes a sample")
        if len(data) > MOST_SOUND_S * self.rate * self.sample_bytes:
            raise BridgeError(f"a message with {len(data)} bytes of sound: at most {MOST_SOUND_S:g} s at once")
        if self.name == "slin":
            return np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32_768)
        return decode_g711(data, self.name)

    def encode(self, samples: Pcm) -> bytes:
        """Samples [n] as bytes, clipped at full scale."""
        if self.name == "slin":
            data = give_pcm(samples, "bytes")
            assert isinstance(data, bytes)
            return data
        return encode_g711(samples, self.name)


# -- what a telephone says --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Started:
    """The call has begun; sound goes both ways from here on. `call` names it for the log and the room."""

    call: str
    rate: int
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sound:
    """What the caller said, [n] at the call's rate. `end_s`: the caller's time at its end, where the message tells."""

    samples: Pcm
    end_s: float | None = None


@dataclass(frozen=True, slots=True)
class Digit:
    """A key was pressed: one of `DIGITS`."""

    digit: str


@dataclass(frozen=True, slots=True)
class Queued:
    """The telephone system holds so many seconds of what it was sent and has not played.

    exact: counted there. Otherwise the time that messages travel, to there and back, is in it.
    """

    seconds: float
    exact: bool


@dataclass(frozen=True, slots=True)
class Hold:
    """Send no sound until further notice (`on`), or go on."""

    on: bool


@dataclass(frozen=True, slots=True)
class Ended:
    """The caller or the telephone system hung up."""

    reason: str


Event = Started | Sound | Digit | Queued | Hold | Ended


# -- what is sent to it -----------------------------------------------------------------------------------------


class PhoneProtocol(Protocol):
    """One call's messages in one format.

    frame_ms: sound in each message sent. lead_ms: how far ahead of its playing sound is sent, a stock against jitter.
    """

    frame_ms: int
    lead_ms: int

    def receive(self, data: Message) -> list[Event]:
        """What a message, or a piece of a byte stream, says. Raises BridgeError for what breaks the protocol."""

    def sound(self, samples: Pcm) -> Message:
        """Say `frame_ms` of sound [n] at the call's rate, once the call has started."""

    def probe(self) -> Message | None:
        """Ask how much waits to be played: the answer is a `Queued`. None where the format has no such question."""

    def clear(self) -> Message | None:
        """Drop what waits to be played. None where the format cannot say so."""

    def hang_up(self) -> Message | None:
        """End the call. None where closing the connection says it."""


def parse_event(text: str) -> dict[str, Any]:
    """A message in JSON, whose `event` is text. Raises BridgeError."""
    try:
        message = parse_json(text)
    except ValueError as error:
        raise BridgeError("a message is not JSON") from error
    if not isinstance(message, dict) or not isinstance(message.get("event"), str):
        raise BridgeError("a message is a JSON object with an 'event'")
    return message


def check_name(text: object, what: str) -> str:
    """A name that comes from outside and goes into logs. Raises BridgeError for none, or one that is too long."""
    if isinstance(text, str) and 0 < len(text) <= MOST_NAME_CHARACTERS and text.isprintable():
        return text
    raise BridgeError(f"{what} is missing, or is no name of at most {MOST_NAME_CHARACTERS} characters")


def check_digit(text: object) -> Digit:
    """A key. Raises BridgeError for anything else."""
    if isinstance(text, str) and text.upper() in DIGITS:
        return Digit(text.upper())
    raise BridgeError("a pressed key is one of 0 to 9, *, #, A to D")
