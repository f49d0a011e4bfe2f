"""Asterisk's chan_websocket (20.16, 21.11, 22.6, 23.0 and later): sound in binary messages, control in text messages.

https://docs.asterisk.org/Configuration/Channel-Drivers/WebSocket/. Asterisk connects, says `MEDIA_START` with format
and frame size, and plays whole frames that it is sent, one each 20 ms by its own timer. It holds up to 1000 of them:
`GET_STATUS` asks how many, so that there are always a few. Control is plain text, or JSON where it is configured so;
commands are of the same kind as `MEDIA_START`.
"""

from __future__ import annotations

import json
from typing import Any

from streaming_encodec.bridges.protocol import (
    MOST_NAME_CHARACTERS,
    Encoding,
    Ended,
    Event,
    Hold,
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

FORMATS = {
    "ulaw": Encoding("ulaw", 8000),
    "alaw": Encoding("alaw", 8000),
    "slin": Encoding("slin", 8000),
    "slin12": Encoding("slin", 12_000),
    "slin16": Encoding("slin", 16_000),
    "slin24": Encoding("slin", 24_000),
    "slin32": Encoding("slin", 32_000),
    "slin44": Encoding("slin", 44_100),
    "slin48": Encoding("slin", 48_000),
}
"""Formats by Asterisk's names, as in `Dial(WebSocket/…/c(slin24))`."""
_MOST_TEXT = 65_536
_MOST_QUEUE = 1_000_000


class AsteriskWebSocket:
    """One call: a `PhoneProtocol`."""

    frame_ms = 20
    lead_ms = 40

    def __init__(self) -> None:
        self._encoding: Encoding | None = None
        self._json = False

    # -- from Asterisk --------------------------------------------------------------------------------------

    def receive(self, data: Message) -> list[Event]:
        """See `PhoneProtocol`."""
        if isinstance(data, bytes):
            if self._encoding is None:
                raise BridgeError("sound before MEDIA_START")
            samples = self._encoding.decode(data)
            return [Sound(samples)] if len(samples) else []
        name, fields = _read(data)
        if name == "MEDIA_START":
            return [self._start(fields, is_json=data.lstrip().startswith("{"))]
        if name in ("DTMF_END", "MEDIA_XOFF", "MEDIA_XON", "STATUS", "HANGUP") and self._encoding is None:
            raise BridgeError(f"{name} before MEDIA_START")
        match name:
            case "DTMF_END":
                return [check_digit(fields.get("digit"))]
            case "MEDIA_XOFF" | "MEDIA_XON":
                return [Hold(name == "MEDIA_XOFF")]
            case "STATUS":
                frames = _whole(fields.get("queue_length"), "queue_length", 0, _MOST_QUEUE)
                return [Queued(frames * self.frame_ms / 1000, exact=True)]
            case "HANGUP":
                return [Ended("Asterisk hung up")]
        return []  # what is new there, and what was not asked for

    def _start(self, fields: dict[str, Any], *, is_json: bool) -> Started:
        if self._encoding is not None:
            raise BridgeError("MEDIA_START a second time")
        encoding = FORMATS.get(str(fields.get("format")))
        if encoding is None:
            raise BridgeError(
                f"MEDIA_START with the format {str(fields.get('format'))[:32]!r}: "
                "choose one in the dial string, for example c(slin24) or c(ulaw)"
            )
        ptime_ms = _whole(fields.get("ptime", 20), "ptime", 1, 1000)
        size = _whole(fields.get("optimal_frame_size"), "optimal_frame_size", 1, 65_500)
        if size != encoding.rate * encoding.sample_bytes * ptime_ms // 1000:
            raise BridgeError(f"an optimal_frame_size of {size} bytes is not {ptime_ms} ms of {fields['format']}")
        call = check_name(fields.get("channel_id", fields.get("connection_id")), "MEDIA_START: connection_id")
        self.frame_ms, self._encoding, self._json = ptime_ms, encoding, is_json
        variables = fields.get("channel_variables")
        return Started(call, encoding.rate, _texts(variables if isinstance(variables, dict) else fields))

    # -- to Asterisk ----------------------------------------------------------------------------------------

    def sound(self, samples: Pcm) -> bytes:
        """See `PhoneProtocol`."""
        assert self._encoding is not None, "nothing is sent before MEDIA_START"
        return self._encoding.encode(samples)

    def probe(self) -> str:
        """See `PhoneProtocol`."""
        return self._command("GET_STATUS")

    def clear(self) -> str:
        """See `PhoneProtocol`."""
        return self._command("FLUSH_MEDIA")

    def hang_up(self) -> str:
        """See `PhoneProtocol`."""
        return self._command("HANGUP")

    def _command(self, name: str) -> str:
        return json.dumps({"command": name}) if self._json else name


def _read(text: str) -> tuple[str, dict[str, Any]]:
    """A control message: its name, and its fields."""
    if len(text) > _MOST_TEXT:
        raise BridgeError(f"a control message of {len(text)} characters: at most {_MOST_TEXT}")
    if not text.lstrip().startswith("{"):
        name, *words = text.split()[:MOST_NAME_CHARACTERS] or [""]
        fields = {key: value for key, _, value in (word.partition(":") for word in words)}
        if not name.replace("_", "").isalpha() or not name.isupper():
            raise BridgeError("a text message is no control message of Asterisk's")
        return name, dict(fields)
    message = parse_event(text)
    return message["event"], message


def _whole(value: object, name: str, least: int, most: int) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 9:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
        return value
    raise BridgeError(f"{name} is missing, or no whole number from {least} to {most}")


def _texts(fields: dict[str, Any]) -> dict[str, str]:
    return {name: text for name, text in list(fields.items())[:64] if isinstance(text, str)}
