"""The header of a packet: what a relay needs, checked against the whole packet's length without decoding codes.

`docs/protocol.md` is the specification, with golden vectors that a test reads from it. In short,
little-endian:

====== ==== ==========================================================================================
offset size field
====== ==== ==========================================================================================
0      1    high nibble 0xE, low nibble the protocol version (1)
1      1    flags: 1 scale, 2 redundancy, 4 noise, 8 start, 16 end; the others must be zero
2      1    frames - 1 in bits 0..2 (at most 6 frames), codebooks - 1 in bits 3..7; zero in a noise packet
3      1    bits per code - 1 in bits 0..3; the others must be zero
4      2    sender, given by the relay (a sender writes 0)
6      2    sequence number, one more with each packet
8      4    timestamp of the first frame, in frames
====== ==== ==========================================================================================

Then, if flagged: scale (float32), redundancy (1 byte of shape and its codes), and last the codes or the
noise levels. The codes come last and codebook by codebook, so fewer codebooks are a shorter packet.
"""

from __future__ import annotations

import math
import struct
from typing import NamedTuple

from streaming_encodec.errors import PacketError, StreamError
from streaming_encodec.wire.bits import MAX_BITS, cut_bits, packed_size

PROTOCOL_VERSION = 1
HEADER_BYTES = 12
MAX_FRAMES = 6
"""Frames in one packet: 80 ms at 75 frames a second, the most that a call should lose at once."""
MAX_CODEBOOKS = 32
MAX_REDUNDANT_FRAMES = 32
MAX_REDUNDANT_CODEBOOKS = 8
NOISE_BANDS = 6
"""Bands of a noise packet; their edges are `streaming_encodec.voice.noise.BAND_EDGES_HZ`."""
NOISE_FLOOR_DB = 127
"""Noise levels are whole decibels below full scale, as in RFC 3389; this one means silence."""
NO_NOISE = (NOISE_FLOOR_DB,) * NOISE_BANDS
"""The levels of a noise packet that means silence."""

FLAG_SCALE, FLAG_REDUNDANCY, FLAG_NOISE, FLAG_START, FLAG_END = 1, 2, 4, 8, 16
_KNOWN_FLAGS = FLAG_SCALE | FLAG_REDUNDANCY | FLAG_NOISE | FLAG_START | FLAG_END
_FIRST_BYTE = 0xE0 | PROTOCOL_VERSION
_HEAD = struct.Struct("<BBBBHHI")
_SCALE = struct.Struct("<f")

SEQUENCE_BITS = 16
TIMESTAMP_BITS = 32

MAX_PACKET_BYTES = (
    HEADER_BYTES
    + _SCALE.size
    + 1
    + packed_size(MAX_REDUNDANT_FRAMES * MAX_REDUNDANT_CODEBOOKS, MAX_BITS)
    + packed_size(MAX_FRAMES * MAX_CODEBOOKS, MAX_BITS)
)
"""No packet is longer: 913 bytes."""


class PacketHeader(NamedTuple):
    """A packet's header and the offsets of its parts. Made by `read_header`, which has checked every length."""

    flags: int
    num_frames: int
    num_codebooks: int
    """0 in a noise packet."""
    bits_per_code: int
    sender: int
    sequence: int
    timestamp: int
    redundant_codebooks: int
    redundant_frames: int
    redundancy_at: int
    """Offset of the redundancy's shape byte, where there is redundancy."""
    body_at: int
    """Offset of the codes or the noise levels."""

    @property
    def is_noise(self) -> bool:
        """Comfort noise instead of codes: the sender is silent from this timestamp on."""
        return bool(self.flags & FLAG_NOISE)


def ends(packet: bytes) -> bool:
    """Whether a packet is the last one of what is said: nothing follows for now. Its other fields are not looked at."""
    return len(packet) > 1 and bool(packet[1] & FLAG_END)


def read_header(data: bytes) -> PacketHeader:
    """Read and check the header: version, flags, limits, every length, spare bits. Codes stay packed.

    What this accepts, `parse_packet` accepts. Raises PacketError for anything else, and nothing but
    PacketError.
    """
    length = len(data)
    if length < HEADER_BYTES:
        raise PacketError(f"a packet has at least {HEADER_BYTES} bytes, this one {length}")
    if length > MAX_PACKET_BYTES:
        raise PacketError(f"a packet has at most {MAX_PACKET_BYTES} bytes, this one {length}")
    first, flags, shape, width, sender, sequence, timestamp = _HEAD.unpack_from(data)
    if first != _FIRST_BYTE:
        if first >> 4 == 0xE:
            raise PacketError(
                f"protocol version {first & 15}; this end speaks {PROTOCOL_VERSION}: update one of the two"
            )
        raise PacketError("not a voice packet: the first nibble is wrong")
    if flags & ~_KNOWN_FLAGS:
        raise PacketError(f"unknown flags {flags & ~_KNOWN_FLAGS:#04x}")
    if width >> 4:
        raise PacketError("the upper bits of byte 3 must be zero")
    bits = width + 1
    num_frames, num_codebooks = (shape & 7) + 1, (shape >> 3) + 1
    if num_frames > MAX_FRAMES:
        raise PacketError(f"at most {MAX_FRAMES} frames a packet, this one says {num_frames}")
    at = HEADER_BYTES
    if flags & FLAG_SCALE:
        at = _check_scale(data, flags, at)
    redundancy_at, redundant_codebooks, redundant_frames = at, 0, 0
    if flags & FLAG_REDUNDANCY:
        if length <= at:
            raise PacketError("the packet ends before its redundancy")
        redundant_codebooks, redundant_frames = (data[at] & 7) + 1, (data[at] >> 3) + 1
        count = redundant_codebooks * redundant_frames * bits
        at += 1 + (count + 7) // 8
        _check_part(data, at, count, "redundancy")
    if flags & FLAG_NOISE:
        if shape:
            raise PacketError("a noise packet says 0 in byte 2")
        num_codebooks = 0
        _check_noise(data, at)
    else:
        count = num_codebooks * num_frames * bits
        end = at + (count + 7) // 8
        if length != end:
            raise PacketError(f"a packet of this shape has {end} bytes, this one {length}")
        _check_part(data, end, count, "codes")
    return PacketHeader(
        flags,
        num_frames,
        num_codebooks,
        bits,
        sender,
        sequence,
        timestamp,
        redundant_codebooks,
        redundant_frames,
        redundancy_at,
        at,
    )


def write_header(
    *,
    flags: int,
    num_frames: int,
    num_codebooks: int,
    bits_per_code: int,
    sender: int,
    sequence: int,
    timestamp: int,
) -> bytes:
    """The 12 bytes of a header; ``num_codebooks`` is 0 for noise. The caller has checked the ranges."""
    shape = 0 if flags & FLAG_NOISE else (num_frames - 1) | (num_codebooks - 1) << 3
    return _HEAD.pack(_FIRST_BYTE, flags, shape, bits_per_code - 1, sender, sequence, timestamp)


def cut_packet(data: bytes, num_codebooks: int, *, keep_redundancy: bool = True) -> bytes:
    """The same packet with at most ``num_codebooks`` codebooks, without decoding a code.

    Codes come last and codebook by codebook, so this is a slice, a masked last byte and a new shape byte.
    A packet that has no more codebooks, and a noise packet, come back as they are (less the redundancy,
    where it is not kept).
    Raises PacketError for bytes that are no packet, StreamError for a count below 1.
    """
    if num_codebooks < 1:
        raise StreamError("a packet keeps at least one codebook")
    head = read_header(data)
    drop = bool(head.flags & FLAG_REDUNDANCY) and not keep_redundancy
    if head.is_noise or num_codebooks >= head.num_codebooks:
        if not drop:
            return data
        body = data[head.body_at :]
        shape = data[2]
    else:
        body = cut_bits(data[head.body_at :], num_codebooks * head.num_frames, head.bits_per_code)
        shape = (head.num_frames - 1) | (num_codebooks - 1) << 3
    flags = head.flags & ~FLAG_REDUNDANCY if drop else head.flags
    middle = data[HEADER_BYTES : head.redundancy_at if drop else head.body_at]
    return bytes((data[0], flags, shape)) + data[3:HEADER_BYTES] + middle + body


def with_sender(data: bytes, sender: int) -> bytes:
    """The same packet with the sender's number written in, as a relay does; the packet is not checked
    again."""
    return data[:4] + sender.to_bytes(2, "little") + data[6:]


def _check_scale(data: bytes, flags: int, at: int) -> int:
    if flags & FLAG_NOISE:
        raise PacketError("a noise packet has no scale")
    if len(data) < at + _SCALE.size:
        raise PacketError("the packet ends within its scale")
    (scale,) = _SCALE.unpack_from(data, at)
    if not (math.isfinite(scale) and scale > 0):
        raise PacketError(f"a scale is positive and finite, not {scale}")
    return at + _SCALE.size


def _check_part(data: bytes, end: int, bit_count: int, name: str) -> None:
    """Check that the part that ends before ``end`` is complete, and that the spare bits of its last byte are zero."""
    if len(data) < end:
        raise PacketError(f"the packet ends within its {name}")
    spare = -bit_count & 7
    if spare and data[end - 1] >> (8 - spare):
        raise PacketError(f"the spare bits after the {name} must be zero")


def _check_noise(data: bytes, at: int) -> None:
    if len(data) != at + NOISE_BANDS:
        raise PacketError(f"a noise packet of this shape has {at + NOISE_BANDS} bytes, this one {len(data)}")
    if max(data[at:]) > NOISE_FLOOR_DB:
        raise PacketError(f"noise levels lie in 0..{NOISE_FLOOR_DB} decibels below full scale")


# -- numbers that wrap, compared as in RFC 1982 ----------------------------------------------------------------


def serial_difference(a: int, b: int, bits: int) -> int:
    """``a - b`` on a circle of ``2**bits``: from ``-2**(bits-1)`` to ``2**(bits-1) - 1``."""
    half = 1 << (bits - 1)
    return ((a - b + half) & ((1 << bits) - 1)) - half


class Unwrapper:
    """Unwraps numbers: each is placed nearest to the last one seen.

    Works as long as consecutive numbers differ by less than half the range.
    """

    def __init__(self, bits: int) -> None:
        self._bits = bits
        self._last: int | None = None

    def peek(self, wrapped: int) -> int:
        """The unwrapped number, without remembering it."""
        if self._last is None:
            return wrapped
        return self._last + serial_difference(wrapped, self._last, self._bits)

    def __call__(self, wrapped: int) -> int:
        """The unwrapped number; later numbers are placed near it."""
        self._last = self.peek(wrapped)
        return self._last
