"""A call's packets and pulls as bytes, to be replayed to the same output (law 8).

A file is a head (``SEREC``, version 1, length of a JSON text in 2 bytes, the stream's format as JSON) and
entries; all numbers little-endian. Times are float64 and exact, or the replay would differ in the last bit of
a decision.

=====  =======================================================================================
kind   then
=====  =======================================================================================
``P``  now (float64), length (uint16), the bytes that came, good or bad
``R``  now (float64), queued_seconds (float64): the receiver was pulled
=====  =======================================================================================
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from streaming_encodec.errors import FileFormatError, PacketError, StreamError
from streaming_encodec.voice.receiver import PlayoutInstruction, Receiver, ReceiverSettings
from streaming_encodec.wire.fields import Fields
from streaming_encodec.wire.hello import StreamFormat

_MAGIC = b"SEREC\x01"
_HEAD = struct.Struct("<6sH")
_PACKET = struct.Struct("<cdH")
_PULL = struct.Struct("<cdd")
_LONGEST_HEAD = 1024


@dataclass(frozen=True, slots=True)
class Arrival:
    """Bytes that came."""

    now: float
    data: bytes


@dataclass(frozen=True, slots=True)
class Pull:
    """A call of `Receiver.pull`."""

    now: float
    queued_seconds: float = 0.0


def record_head(stream_format: StreamFormat) -> bytes:
    """The bytes a record begins with."""
    text = json.dumps(stream_format.to_dict(), separators=(",", ":")).encode()
    return _HEAD.pack(_MAGIC, len(text)) + text


def record_entry(entry: Arrival | Pull) -> bytes:
    """The bytes of one entry; append them to the head. Raises StreamError for a packet of 64 KiB or more."""
    if isinstance(entry, Pull):
        return _PULL.pack(b"R", entry.now, entry.queued_seconds)
    if len(entry.data) > 0xFFFF:
        raise StreamError("a recorded packet has less than 64 KiB")
    return _PACKET.pack(b"P", entry.now, len(entry.data)) + entry.data


class RecordReader:
    """Reads a record as it comes, in any pieces.

    Bounded memory. Raises FileFormatError for what is not one.
    """

    def __init__(self) -> None:
        self.format: StreamFormat | None = None
        self._rest = b""

    def feed(self, data: bytes) -> list[Arrival | Pull]:
        """The next piece.

        Returns the entries that are complete by now. ``format`` is set once the head is there.
        """
        self._rest += data
        if self.format is None:
            self._read_head()
            if self.format is None:
                return []
        entries: list[Arrival | Pull] = []
        at = 0
        while (found := self._entry(at)) is not None:
            entry, at = found
            entries.append(entry)
        self._rest = self._rest[at:]
        return entries

    def close(self) -> None:
        """No more comes. Raises FileFormatError if the record stops in the middle of something."""
        if self._rest or self.format is None:
            raise FileFormatError("the record is cut off")

    def _read_head(self) -> None:
        rest = self._rest
        if rest[: len(_MAGIC)] != _MAGIC[: len(rest)]:
            raise FileFormatError("not a record of a call, or of another version")
        if len(rest) < _HEAD.size:
            return
        _, length = _HEAD.unpack_from(rest)
        if length > _LONGEST_HEAD:
            raise FileFormatError("the record's head is too long")
        if len(rest) < _HEAD.size + length:
            return
        try:
            self.format = StreamFormat.from_fields(Fields.read(rest[_HEAD.size : _HEAD.size + length]))
        except PacketError as error:
            raise FileFormatError(f"the record's head is damaged: {error}") from error
        self._rest = rest[_HEAD.size + length :]

    def _entry(self, at: int) -> tuple[Arrival | Pull, int] | None:
        rest = self._rest
        kind = rest[at : at + 1]
        if not kind:
            return None
        if kind == b"R":
            if len(rest) < at + _PULL.size:
                return None
            _, now, queued = _PULL.unpack_from(rest, at)
            _check_time(now, queued)
            return Pull(now, queued), at + _PULL.size
        if kind == b"P":
            if len(rest) < at + _PACKET.size:
                return None
            _, now, length = _PACKET.unpack_from(rest, at)
            _check_time(now)
            begin = at + _PACKET.size
            if len(rest) < begin + length:
                return None
            return Arrival(now, rest[begin : begin + length]), begin + length
        raise FileFormatError(f"the record is damaged: no entry begins with {kind!r}")


class RecordingReceiver(Receiver):
    """A receiver that hands each call, as bytes of a record, to ``sink`` (a file's ``write``, say)."""

    def __init__(
        self,
        stream_format: StreamFormat,
        settings: ReceiverSettings | None,
        sink: Callable[[bytes], object],
    ) -> None:
        super().__init__(stream_format, settings)
        self._sink = sink
        sink(record_head(stream_format))

    def receive(self, data: bytes, now: float) -> None:
        """As `Receiver.receive`; bad packets are recorded too."""
        self._sink(record_entry(Arrival(now, data)))
        super().receive(data, now)

    def pull(self, now: float, queued_seconds: float = 0.0) -> list[PlayoutInstruction]:
        """As `Receiver.pull`."""
        self._sink(record_entry(Pull(now, queued_seconds)))
        return super().pull(now, queued_seconds)


def replay(entries: Iterable[Arrival | Pull], receiver: Receiver) -> Iterator[list[PlayoutInstruction]]:
    """Do it all again: what each pull answers. Packets that were refused then are refused again."""
    for entry in entries:
        if isinstance(entry, Pull):
            yield receiver.pull(entry.now, entry.queued_seconds)
            continue
        try:
            receiver.receive(entry.data, entry.now)
        except PacketError:
            continue


def _check_time(*times: float) -> None:
    if not all(math.isfinite(t) for t in times):
        raise FileFormatError("the record is damaged: a time is not finite")
