"""Frames of codes to packets."""

from __future__ import annotations

import numpy as np

from streaming_encodec.errors import StreamError
from streaming_encodec.wire.bits import IntArray
from streaming_encodec.wire.header import MAX_FRAMES, NOISE_BANDS, NOISE_FLOOR_DB
from streaming_encodec.wire.hello import StreamFormat
from streaming_encodec.wire.packet import Packet, serialize_packet


class Packer:
    """Numbers frames and puts so many of them into each packet; a stream's last packet may hold fewer."""

    def __init__(self, stream_format: StreamFormat, frames_per_packet: int = 1) -> None:
        if not 1 <= frames_per_packet <= MAX_FRAMES:
            raise StreamError(f"a packet holds 1 to {MAX_FRAMES} frames, not {frames_per_packet}")
        self._bits = stream_format.bits_per_code
        self._size = frames_per_packet
        self._waiting: list[IntArray] = []
        self._sequence = 0
        self._timestamp = 0
        self._start = True

    def push(self, codes: IntArray) -> list[bytes]:
        """Take codes [K, f]; give the packets that they fill. Frames of one packet have one K."""
        packets = []
        for frame in range(codes.shape[1]):
            if self._waiting and self._waiting[0].shape[0] != codes.shape[0]:
                packets.append(self._pack(end=False))
            self._waiting.append(codes[:, frame : frame + 1])
            if len(self._waiting) == self._size:
                packets.append(self._pack(end=False))
        return packets

    def finish(self, codes: IntArray) -> list[bytes]:
        """The last codes of a stream: its last packet says that it is the last. The next one starts anew."""
        packets = []
        for frame in range(codes.shape[1]):
            if len(self._waiting) == self._size or (
                self._waiting and self._waiting[0].shape[0] != codes.shape[0]
            ):
                packets.append(self._pack(end=False))
            self._waiting.append(codes[:, frame : frame + 1])
        if self._waiting:
            packets.append(self._pack(end=True))
        elif not self._start:
            packets.append(self._mute())
        self._start = True
        return packets

    def _mute(self) -> bytes:
        """All codes are sent already: a packet of silence carries the word that it is over."""
        packet = Packet(
            self._sequence,
            self._timestamp,
            noise=(NOISE_FLOOR_DB,) * NOISE_BANDS,
            end=True,
            bits_per_code=self._bits,
        )
        self._count(1)
        return serialize_packet(packet)

    def _count(self, frames: int) -> None:
        self._sequence = (self._sequence + 1) & 0xFFFF
        self._timestamp = (self._timestamp + frames) & 0xFFFFFFFF

    def _pack(self, *, end: bool) -> bytes:
        codes = np.concatenate(self._waiting, axis=1)
        packet = Packet(
            self._sequence, self._timestamp, codes=codes, start=self._start, end=end, bits_per_code=self._bits
        )
        self._waiting.clear()
        self._count(codes.shape[1])
        self._start = False
        return serialize_packet(packet)
