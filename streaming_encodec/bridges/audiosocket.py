"""Asterisk's AudioSocket: frames in a TCP connection, in which Asterisk is the client.

A frame is a type (1 byte), the length of what follows (2 bytes, big-endian), and that:
https://docs.asterisk.org/Configuration/Channel-Drivers/AudioSocket/. Asterisk passes sound on as it comes and times
nothing, so this side sends 20 ms each 20 ms by its own clock, in the format in which it hears the caller.
"""

from __future__ import annotations

import uuid

from streaming_encodec.bridges.protocol import Encoding, Ended, Event, Message, Sound, Started, check_digit
from streaming_encodec.errors import BridgeError
from streaming_encodec.types import Pcm

END, UUID, DTMF, ERROR = 0x00, 0x01, 0x03, 0xFF
RATES = {
    0x10: 8000,
    0x11: 12_000,
    0x12: 16_000,
    0x13: 24_000,
    0x14: 32_000,
    0x15: 44_100,
    0x16: 48_000,
}
"""Types of sound and their rates, in Hz."""
_HEADER = 3


class AudioSocket:
    """One call: a `PhoneProtocol` over a byte stream, which may be cut anywhere."""

    frame_ms = 20
    lead_ms = 0

    def __init__(self) -> None:
        self._waiting = b""
        self._call: str | None = None
        self._kind: int | None = None
        self._ended = False

    def receive(self, data: Message) -> list[Event]:
        """See `PhoneProtocol`."""
        if isinstance(data, str):
            raise BridgeError("text where the bytes of an AudioSocket belong")
        events: list[Event] = []
        waiting = self._waiting + data
        at = 0
        while len(waiting) - at >= _HEADER and not self._ended:
            kind, size = waiting[at], int.from_bytes(waiting[at + 1 : at + _HEADER], "big")
            self._check(kind, size)  # before the rest of it has come
            if len(waiting) - at < _HEADER + size:
                break
            at += _HEADER + size
            events += self._frame(kind, waiting[at - size : at])
        self._waiting = b"" if self._ended else waiting[at:]
        return events

    def _check(self, kind: int, size: int) -> None:
        if self._call is None and kind not in (UUID, END, ERROR):
            raise BridgeError(
                f"the first frame has type {kind:#04x}: an AudioSocket begins with the call's UUID (0x01)"
            )
        if kind == UUID and (size != 16 or self._call is not None):
            raise BridgeError("a UUID has 16 bytes and comes once" if size != 16 else "a second UUID in one connection")
        if kind == DTMF and size != 1:
            raise BridgeError(f"a pressed key has 1 byte, not {size}")
        if kind in RATES:
            if self._kind not in (None, kind):
                raise BridgeError(f"sound at {RATES[kind]} Hz in a call that began at {RATES[self._kind or kind]} Hz")
            if size > 2 * RATES[kind]:
                raise BridgeError(f"a frame with {size} bytes of sound: at most 1 s at once")
        elif kind not in (END, UUID, DTMF, ERROR):
            raise BridgeError(f"a frame of type {kind:#04x}, which AudioSocket does not have")

    def _frame(self, kind: int, payload: bytes) -> list[Event]:
        if kind == UUID:
            self._call = str(uuid.UUID(bytes=payload))
            return []
        if kind == END:
            self._ended = True
            return [Ended("the caller hung up")]
        if kind == ERROR:
            self._ended = True
            return [Ended(f"Asterisk reports error {payload[:4].hex() or 'without a number'}")]
        if kind == DTMF:
            return [check_digit(payload.decode("latin-1"))]
        started: list[Event] = []
        if self._kind is None:
            assert self._call is not None
            self._kind = kind
            started = [Started(self._call, RATES[kind])]
        samples = Encoding("slin", RATES[kind]).decode(payload)
        return [*started, Sound(samples)] if len(samples) else started

    def sound(self, samples: Pcm) -> bytes:
        """See `PhoneProtocol`."""
        assert self._kind is not None, "nothing is sent before the call has started"
        return frame(self._kind, Encoding("slin", RATES[self._kind]).encode(samples))

    def probe(self) -> None:
        """There is no such question: Asterisk holds nothing."""

    def clear(self) -> None:
        """Asterisk holds nothing."""

    def hang_up(self) -> bytes:
        """See `PhoneProtocol`."""
        return frame(END)


def frame(kind: int, payload: bytes = b"") -> bytes:
    """A frame as bytes."""
    return bytes([kind]) + len(payload).to_bytes(2, "big") + payload
