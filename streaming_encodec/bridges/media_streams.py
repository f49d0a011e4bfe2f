"""Media streams of Twilio, and of providers whose messages differ in names: JSON in text messages of a WebSocket.

Twilio: https://www.twilio.com/docs/voice/media-streams/websocket-messages. The provider connects, says `connected` and
`start`, then `media` each 20 ms; it plays `media` that it is sent, one after the other, answers a `mark` when all
before it was played, and forgets what waits on `clear`.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from streaming_encodec.bridges.protocol import (
    MOST_NAME_CHARACTERS,
    Encoding,
    Ended,
    Event,
    Message,
    Queued,
    Sound,
    Started,
    check_digit,
    check_name,
    parse_event,
)
from streaming_encodec.errors import BridgeError
from streaming_encodec.types import Pcm

_HERE = "-"
"""Is not in base64."""
_MOST_MARKS = 64
_MOST_PARAMETERS = 64
_ENCODINGS = {"audio/x-mulaw": "ulaw", "PCMU": "ulaw", "PCMA": "alaw"}


@dataclass(frozen=True, slots=True)
class Dialect:
    """The names of one provider.

    stream: field with the stream's name, at the top of each message or in `start`. call: in `start`.
    format, rate: in `start`, the sound's format and its rate. encoding: of all calls, where `format` does not tell.
    media, mark, played, clear: events. timestamps: `media.timestamp` counts the caller's milliseconds.
    advice: what to set at the provider where the format is wrong.
    """

    stream: str
    call: str
    format: str
    rate: str
    advice: str
    encoding: str | None = None
    parameters: str | None = None
    media: str = "media"
    mark: str = "mark"
    played: str = "mark"
    clear: str = "clear"
    timestamps: bool = False
    frame_ms: int = 20


DIALECTS: Mapping[str, Dialect] = {
    "twilio": Dialect(
        "streamSid",
        "callSid",
        "mediaFormat",
        "sampleRate",
        "Twilio sends audio/x-mulaw at 8000 Hz",
        parameters="customParameters",
        timestamps=True,
    ),
    "telnyx": Dialect(
        "stream_id",
        "call_control_id",
        "media_format",
        "sample_rate",
        'set stream_codec="PCMU" and stream_bidirectional_codec="PCMU"',
        parameters="custom_parameters",
    ),
    "plivo": Dialect(
        "streamId",
        "callId",
        "mediaFormat",
        "sampleRate",
        'set contentType="audio/x-mulaw;rate=8000"',
        media="playAudio",
        mark="checkpoint",
        played="playedStream",
        clear="clearAudio",
        timestamps=True,
    ),
    # Exotel takes no less than 3200 bytes at once.
    "exotel": Dialect(
        "stream_sid",
        "call_sid",
        "media_format",
        "sample_rate",
        "Exotel sends 16-bit samples at 8000, 16000 or 24000 Hz",
        encoding="slin",
        parameters="custom_parameters",
        timestamps=True,
        frame_ms=200,
    ),
}


class MediaStream:
    """One call of a provider: a `PhoneProtocol`."""

    lead_ms = 40

    def __init__(self, dialect: str = "twilio") -> None:
        self._names = DIALECTS[dialect]
        self._dialect = dialect
        self.frame_ms = self._names.frame_ms
        self._stream: str | None = None
        self._encoding = Encoding("ulaw", 8000)
        self._ended = False
        self._sent_s = 0.0
        self._marks: dict[str, float] = {}  # those that were not answered, and what had been sent before them
        self._number = 0
        self._around: tuple[str, str] | None = None  # a message with sound, but for the sound

    # -- from the provider ----------------------------------------------------------------------------------

    def receive(self, data: Message) -> list[Event]:
        """See `PhoneProtocol`."""
        if not isinstance(data, str):
            raise BridgeError("a binary message: media streams are JSON in text messages")
        message = parse_event(data)
        name = message["event"]
        if self._ended:
            raise BridgeError(f"{_quoted(name)} after 'stop'")
        if name == "start":
            return [self._start(message)]
        if name not in ("media", "stop", "dtmf", self._names.played):
            return []  # `connected`, and what is new there
        if self._stream is None:
            raise BridgeError(f"{_quoted(name)} before 'start'")
        named = message.get(self._names.stream)
        if named is not None and named != self._stream:
            raise BridgeError("a message of another stream: each stream has a connection of its own")
        if name == "media":
            return self._media(_object(message, "media"))
        if name == "dtmf":
            return [check_digit(_object(message, "dtmf").get("digit"))]
        if name == "stop":
            self._ended = True
            return [Ended("the caller hung up")]
        return self._played(message)

    def _start(self, message: dict[str, Any]) -> Started:
        if self._stream is not None:
            raise BridgeError("'start' a second time")
        names, start = self._names, _object(message, "start")
        sound = _object(start, names.format)
        said, rate = sound.get("encoding"), _whole(sound.get(names.rate, 8000))
        encoding = names.encoding or _ENCODINGS.get(said if isinstance(said, str) else "")
        rates = (8000, 16_000, 24_000) if encoding == "slin" else (8000,)
        if encoding is None or rate not in rates or sound.get("channels", 1) not in (1, "1"):
            raise BridgeError(f"sound of another format than this bridge takes: {names.advice}")
        stream = check_name(message.get(names.stream, start.get(names.stream)), f"'start': {names.stream}")
        call = check_name(start.get(names.call, stream), f"'start': {names.call}")
        self._stream, self._encoding = stream, Encoding(encoding, rate)
        return Started(call, rate, _parameters(start.get(names.parameters or "")))

    def _media(self, media: dict[str, Any]) -> list[Event]:
        if media.get("track", "inbound") not in ("inbound", "inbound_track"):
            return []  # what was sent there
        payload = media.get("payload")
        if not isinstance(payload, str):
            raise BridgeError("'media' without a payload")
        try:
            data = base64.b64decode(payload, validate=True)
        except (binascii.Error, ValueError) as error:
            raise BridgeError("a payload is not base64") from error
        samples = self._encoding.decode(data)
        if not len(samples):
            return []
        if not self._names.timestamps or "timestamp" not in media:
            return [Sound(samples)]
        begin_ms = _whole(media["timestamp"])
        if begin_ms < 0:
            raise BridgeError("a timestamp is a number of milliseconds")
        return [Sound(samples, begin_ms / 1000 + len(samples) / self._encoding.rate)]

    def _played(self, message: dict[str, Any]) -> list[Event]:
        named = message.get("name") if self._dialect == "plivo" else _object(message, "mark").get("name")
        sent_s = self._marks.pop(named, None) if isinstance(named, str) else None
        return [] if sent_s is None else [Queued(self._sent_s - sent_s, exact=False)]

    # -- to the provider ------------------------------------------------------------------------------------

    def sound(self, samples: Pcm) -> str:
        """See `PhoneProtocol`."""
        self._sent_s += len(samples) / self._encoding.rate
        # All but the payload is the same each time: a call sends fifty of these in a second.
        if self._around is None:
            media: dict[str, Any] = {"payload": _HERE}
            if self._dialect == "plivo":
                media = {"contentType": "audio/x-mulaw", "sampleRate": self._encoding.rate} | media
            before, _, after = self._text(self._names.media, media=media).rpartition(_HERE)
            self._around = before, after
        return base64.b64encode(self._encoding.encode(samples)).decode("ascii").join(self._around)

    def probe(self) -> str:
        """A mark, which comes back when all before it was played."""
        self._number += 1
        name = f"streaming-encodec-{self._number}"
        self._marks[name] = self._sent_s
        if len(self._marks) > _MOST_MARKS:
            del self._marks[next(iter(self._marks))]
        if self._dialect == "plivo":
            return self._text(self._names.mark, name=name)
        return self._text(self._names.mark, mark={"name": name})

    def clear(self) -> str:
        """See `PhoneProtocol`."""
        self._marks.clear()  # they come back at once, and say nothing of what is played
        return self._text(self._names.clear)

    def hang_up(self) -> None:
        """The provider goes on with its next instruction when the connection is closed."""

    def _text(self, event: str, /, **fields: Any) -> str:
        assert self._stream is not None, "nothing is sent before 'start'"
        return json.dumps({"event": event, self._names.stream: self._stream, **fields}, separators=(",", ":"))


def _object(message: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = message.get(name)
    if not isinstance(value, dict):
        raise BridgeError(f"a message without the object '{name}'")
    return value


def _whole(value: object) -> int:
    """A whole number, or its digits: providers write either. -1 for anything else."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 15:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**15 else -1


def _parameters(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        return {}
    short = {name: text for name, text in value.items() if isinstance(text, str) and len(text) <= MOST_NAME_CHARACTERS}
    return dict(list(short.items())[:_MOST_PARAMETERS])


def _quoted(name: str) -> str:
    return repr(name[:32])
