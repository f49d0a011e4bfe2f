"""Files with something wrong in them, the same ones in every run."""

from __future__ import annotations

import random
import struct

_NUMBERS = (0, 1, 2, 3, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFE, 0xFFFF_FFFF)


def mutated(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """`data` with one to four faults: bits, numbers in its header, holes, pieces too many or of another file, cuts."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        # Most of what can go wrong is in the first bytes: the header.
        span = min(len(changed), rng.choice((16, 64, 64, 256, len(changed) or 1)))
        at = rng.randrange(span or 1)
        act = rng.randrange(9)
        if act == 0 and changed:
            changed[at] ^= 1 << rng.randrange(8)
        elif act == 1 and changed:
            changed[at] = rng.randrange(256)
        elif act in (2, 3):
            form = rng.choice(("<H", ">H", "<I", ">I", "<Q", ">Q"))
            number = rng.choice(_NUMBERS) & (2 ** (8 * struct.calcsize(form)) - 1)
            changed[at : at + struct.calcsize(form)] = struct.pack(form, number)
        elif act == 4:
            del changed[at : at + rng.choice((1, 2, 4, 100, 1000))]
        elif act == 5:
            changed[at:at] = rng.randbytes(rng.choice((1, 2, 4, 100, 1000)))
        elif act == 6:
            size = rng.choice((4, 30, 500))
            changed[at : at + size] = other[at : at + size]
        elif act == 7:
            changed += rng.choice((bytes(changed), other, rng.randbytes(50), bytes(200)))
        else:
            del changed[rng.randrange(len(changed) + 1) :]
    return bytes(changed)
