"""Bit packing: whole numbers of a fixed width, least significant bit first.

Both the packets of this package and the published ``.ecdc`` container write a code's lowest bit first and
fill each byte from its lowest bit up; the last byte is filled with zero bits. So a prefix of the codes is
a prefix of the bytes (with the spare bits of its last byte cleared), which is what lets a relay cut a
packet without decoding it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from streaming_encodec.errors import PacketError, StreamError

if TYPE_CHECKING:  # imported where codes are looked at: a relay, which only cuts packets, needs no numpy
    import numpy as np
    import numpy.typing as npt

    from streaming_encodec.types import IntArray

MAX_BITS = 16
"""Widest code that is packed: a codebook of 65,536 entries, far above any published one."""

_FEW = 64
"""Up to this many numbers are packed through one large integer: a live packet has a handful, and numpy's calls would
cost more than the work. The cost of this way grows with the square of their number."""


def packed_size(count: int, bits: int) -> int:
    """Bytes that ``count`` numbers of ``bits`` bits take."""
    return (count * bits + 7) // 8


def pack_bits(values: npt.NDArray[np.integer[Any]], bits: int) -> bytes:
    """Pack whole numbers, in C order, ``bits`` bits each.

    values: any shape, each in ``0 .. 2**bits - 1``. Returns ``packed_size(values.size, bits)`` bytes.
    Raises StreamError for a width outside 1..16, a value out of range, or values that are not whole numbers.
    """
    import numpy as np

    _check_width(bits)
    flat = np.asarray(values).reshape(-1)
    if flat.size == 0:
        return b""
    if flat.dtype.kind not in "iu":
        raise StreamError(f"codes must be whole numbers, not {flat.dtype}: cast them to int64 first")
    few = flat.tolist() if flat.size <= _FEW else None
    least, most = (min(few), max(few)) if few else (int(flat.min()), int(flat.max()))
    if least < 0 or most >> bits:
        raise StreamError(f"codes must lie in 0..{(1 << bits) - 1} to fit {bits} bits")
    if few:
        number = 0
        for value in reversed(few):
            number = number << bits | value
        return number.to_bytes(packed_size(len(few), bits), "little")
    planes = (flat.astype(np.uint32)[:, None] >> np.arange(bits, dtype=np.uint32)) & np.uint32(1)  # [count, bits]
    return np.packbits(planes.astype(np.uint8), bitorder="little").tobytes()


def unpack_bits(data: bytes | bytearray | memoryview, count: int, bits: int, *, strict: bool = False) -> IntArray:
    """Read the first ``count`` numbers of ``bits`` bits: int64 ``[count]``.

    With ``strict`` the data must end with the last number and its spare bits must be zero, so that each
    list of numbers has exactly one spelling. Raises PacketError for data too short (or, if strict, not
    canonical).
    """
    import numpy as np

    _check_width(bits)
    size = packed_size(count, bits)
    if count <= _FEW and not strict and len(data) >= size:
        number, mask = int.from_bytes(data[:size], "little"), (1 << bits) - 1
        return np.array([number >> at & mask for at in range(0, count * bits, bits)], np.int64)
    raw = np.frombuffer(data, dtype=np.uint8)
    if raw.size < size:
        raise PacketError(f"{count} codes of {bits} bits take {size} bytes, only {raw.size} came")
    if strict and raw.size != size:
        raise PacketError(f"{count} codes of {bits} bits take {size} bytes, {raw.size} came")
    spare = 8 * size - count * bits
    if strict and spare and raw[size - 1] >> (8 - spare):
        raise PacketError("the spare bits after the last code must be zero")
    planes = np.unpackbits(raw[:size], count=count * bits, bitorder="little").reshape(count, bits)
    return planes.astype(np.int64) @ (np.int64(1) << np.arange(bits))  # [count, bits] -> [count]


def cut_bits(data: bytes | bytearray | memoryview, count: int, bits: int) -> bytes:
    """The bytes of the first ``count`` numbers alone: a slice with the spare bits of its last byte cleared.

    Raises PacketError for data too short.
    """
    _check_width(bits)
    size = packed_size(count, bits)
    if len(data) < size:
        raise PacketError(f"{count} codes of {bits} bits take {size} bytes, only {len(data)} came")
    spare = 8 * size - count * bits
    if not spare:
        return bytes(data[:size])
    return bytes(data[: size - 1]) + bytes((data[size - 1] & (0xFF >> spare),))


def _check_width(bits: int) -> None:
    if not 1 <= bits <= MAX_BITS:
        raise StreamError(f"a code takes 1 to {MAX_BITS} bits, not {bits}")
