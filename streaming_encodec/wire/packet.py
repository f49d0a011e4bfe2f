"""Voice packets: 1 to 6 frames of codes, or a noise level; `parse_packet(serialize_packet(p)) == p`. And the format of
a stream of them.

A packet can be parsed by itself; what the codes mean (model, frame length) was agreed on once, in the hello.
Each packet has exactly one encoding, so `serialize_packet(parse_packet(data)) == data` too, and the size depends
on the settings alone, never on the sound. Layout: `streaming_encodec.wire.header` and `docs/protocol.md`.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from streaming_encodec.errors import PacketError, StreamError
from streaming_encodec.wire.bits import MAX_BITS, pack_bits, packed_size, unpack_bits
from streaming_encodec.wire.fields import Fields
from streaming_encodec.wire.header import (
    FLAG_END,
    FLAG_NOISE,
    FLAG_REDUNDANCY,
    FLAG_SCALE,
    FLAG_START,
    HEADER_BYTES,
    MAX_CODEBOOKS,
    MAX_FRAMES,
    MAX_REDUNDANT_CODEBOOKS,
    MAX_REDUNDANT_FRAMES,
    NOISE_BANDS,
    NOISE_FLOOR_DB,
    SEQUENCE_BITS,
    TIMESTAMP_BITS,
    PacketHeader,
    read_header,
    write_header,
)

if TYPE_CHECKING:
    from streaming_encodec.types import IntArray

FINGERPRINT_HEX = 32
_SCALE = struct.Struct("<f")


@dataclass(frozen=True, eq=False, slots=True)
class Packet:
    """One packet. Exactly one of ``codes`` and ``noise`` is given. Raises StreamError for a value out of range.

    codes: int64 ``[K, F]``, K codebooks (1..32) of F frames (1..6), each below ``2**bits_per_code``.
    noise: six levels, whole decibels below full scale (0..127), one per band: the sender is silent from
    ``timestamp`` until its next packet.
    redundancy: int64 ``[R, P]``, the first R codebooks (1..8) of the P frames (1..32) before ``timestamp``.
    scale: the segment's loudness for a model that normalizes, rounded to float32.
    start: the encoder was reset before this packet, so the decoder must reset too. end: nothing follows.
    sequence: 16 bits; timestamp: of the first frame, in frames, 32 bits; both wrap. sender: 16 bits, set by the
    relay.
    """

    sequence: int
    timestamp: int
    codes: IntArray | None = None
    noise: tuple[int, ...] | None = None
    redundancy: IntArray | None = None
    scale: float | None = None
    start: bool = False
    end: bool = False
    bits_per_code: int = 10
    sender: int = 0

    def __post_init__(self) -> None:
        if not (
            0 <= self.sequence < 1 << SEQUENCE_BITS
            and 0 <= self.timestamp < 1 << TIMESTAMP_BITS
            and 0 <= self.sender <= 0xFFFF
            and 1 <= self.bits_per_code <= MAX_BITS
        ):
            self._refuse()
        if (self.codes is None) == (self.noise is None):
            raise StreamError("a packet carries either codes or noise")
        if self.codes is not None:
            _check_codes("codes", self.codes, MAX_CODEBOOKS, MAX_FRAMES, self.bits_per_code)
        if self.redundancy is not None:
            limits = (MAX_REDUNDANT_CODEBOOKS, MAX_REDUNDANT_FRAMES)
            _check_codes("redundancy", self.redundancy, *limits, self.bits_per_code)
        if self.noise is not None:
            if len(self.noise) != NOISE_BANDS or self.scale is not None:
                raise StreamError(f"a noise packet has {NOISE_BANDS} levels and no scale")
            for level in self.noise:
                _check_range("noise level", level, 0, NOISE_FLOOR_DB)
        if self.scale is not None:
            object.__setattr__(self, "scale", _round_scale(self.scale))

    def _refuse(self) -> None:
        """Say which number is out of range."""
        _check_range("sequence", self.sequence, 0, (1 << SEQUENCE_BITS) - 1)
        _check_range("timestamp", self.timestamp, 0, (1 << TIMESTAMP_BITS) - 1)
        _check_range("sender", self.sender, 0, 0xFFFF)
        _check_range("bits_per_code", self.bits_per_code, 1, MAX_BITS)

    @property
    def num_frames(self) -> int:
        """Frames of codes in the packet; 1 for noise, which begins with that frame."""
        return 1 if self.codes is None else int(self.codes.shape[1])

    @property
    def num_codebooks(self) -> int:
        """Codebooks per frame; 0 for noise."""
        return 0 if self.codes is None else int(self.codes.shape[0])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Packet):
            return NotImplemented
        return serialize_packet(self) == serialize_packet(other)

    def __hash__(self) -> int:
        return hash(serialize_packet(self))


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


def serialize_packet(packet: Packet) -> bytes:
    """The packet's bytes, at most `MAX_PACKET_BYTES`."""
    flags = FLAG_START * packet.start | FLAG_END * packet.end
    parts = [b""]
    if packet.scale is not None:
        flags |= FLAG_SCALE
        parts.append(_SCALE.pack(packet.scale))
    if packet.redundancy is not None:
        flags |= FLAG_REDUNDANCY
        codebooks, frames = packet.redundancy.shape
        parts.append(bytes(((codebooks - 1) | (frames - 1) << 3,)))
        parts.append(pack_bits(packet.redundancy, packet.bits_per_code))
    if packet.noise is not None:
        flags |= FLAG_NOISE
        parts.append(bytes(packet.noise))
    elif packet.codes is not None:
        parts.append(pack_bits(packet.codes, packet.bits_per_code))
    parts[0] = write_header(
        flags=flags,
        num_frames=packet.num_frames,
        num_codebooks=packet.num_codebooks,
        bits_per_code=packet.bits_per_code,
        sender=packet.sender,
        sequence=packet.sequence,
        timestamp=packet.timestamp,
    )
    return b"".join(parts)


def parse_packet(data: bytes) -> Packet:
    """Parse exactly one packet. Raises PacketError for any other bytes, and nothing else."""
    head = read_header(data)
    bits = head.bits_per_code
    scale: float | None = None
    if head.flags & FLAG_SCALE:
        (scale,) = _SCALE.unpack_from(data, HEADER_BYTES)
    redundancy: IntArray | None = None
    if head.flags & FLAG_REDUNDANCY:
        shape = (head.redundant_codebooks, head.redundant_frames)
        redundancy = unpack_bits(data[head.redundancy_at + 1 :], shape[0] * shape[1], bits).reshape(shape)
    codes: IntArray | None = None
    noise: tuple[int, ...] | None = None
    if head.is_noise:
        noise = tuple(data[head.body_at :])
    else:
        count = head.num_codebooks * head.num_frames
        codes = unpack_bits(data[head.body_at :], count, bits).reshape(head.num_codebooks, head.num_frames)
    return Packet(
        sequence=head.sequence,
        timestamp=head.timestamp,
        codes=codes,
        noise=noise,
        redundancy=redundancy,
        scale=scale,
        start=bool(head.flags & FLAG_START),
        end=bool(head.flags & FLAG_END),
        bits_per_code=bits,
        sender=head.sender,
    )


def packet_size(
    num_frames: int,
    num_codebooks: int,
    *,
    bits_per_code: int = 10,
    redundant_codebooks: int = 0,
    redundant_frames: int = 0,
    scale: bool = False,
) -> int:
    """Bytes of a packet of codes with these settings: the same for every packet."""
    size = HEADER_BYTES + _SCALE.size * scale + packed_size(num_frames * num_codebooks, bits_per_code)
    if redundant_codebooks and redundant_frames:
        size += 1 + packed_size(redundant_codebooks * redundant_frames, bits_per_code)
    return size


def _check_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise StreamError(f"{name} lies in {low}..{high}, not {value}")


def _check_codes(name: str, codes: IntArray, codebooks: int, frames: int, bits: int) -> None:
    if codes.ndim != 2 or not (1 <= codes.shape[0] <= codebooks and 1 <= codes.shape[1] <= frames):
        raise StreamError(f"{name} are [1..{codebooks} codebooks, 1..{frames} frames], not {list(codes.shape)}")
    if codes.dtype.kind not in "iu":
        raise StreamError(f"{name} are whole numbers, not {codes.dtype}")
    few = codes.ravel().tolist()  # 32 codebooks of 6 frames at most: numpy's calls would cost more than the work
    if min(few) < 0 or max(few) >> bits:
        raise StreamError(f"{name} are whole numbers in 0..{(1 << bits) - 1}")


def _round_scale(scale: float) -> float:
    """The nearest float32, which is what the wire carries."""
    import numpy as np

    with np.errstate(over="ignore"):
        rounded = float(np.float32(scale))
    if not (math.isfinite(rounded) and rounded > 0):
        raise StreamError(f"a scale is positive and finite in float32, not {scale}")
    return rounded
