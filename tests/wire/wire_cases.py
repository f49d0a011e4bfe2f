"""Random packets, for tests of the wire."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from streaming_encodec.wire.packet import Packet


def random_codes(rng: np.random.Generator, codebooks: int, frames: int, bits: int) -> np.ndarray:
    return rng.integers(0, 2**bits, size=(codebooks, frames), dtype=np.int64)


@st.composite
def packets(draw: st.DrawFn) -> Packet:
    """Any packet that can be."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    bits = draw(st.sampled_from([10, 10, 1, 7, 8, 16]))
    noise = codes = scale = redundancy = None
    if draw(st.integers(0, 4)) == 0:
        noise = tuple(draw(st.lists(st.integers(0, 127), min_size=6, max_size=6)))
    else:
        codes = random_codes(rng, draw(st.integers(1, 32)), draw(st.integers(1, 6)), bits)
        scale = draw(st.none() | st.floats(1e-30, 1e30))
    if draw(st.booleans()):
        redundancy = random_codes(rng, draw(st.integers(1, 8)), draw(st.integers(1, 32)), bits)
    return Packet(
        sequence=draw(st.integers(0, 2**16 - 1)),
        timestamp=draw(st.integers(0, 2**32 - 1)),
        codes=codes,
        noise=noise,
        redundancy=redundancy,
        scale=scale,
        start=draw(st.booleans()),
        end=draw(st.booleans()),
        bits_per_code=bits,
        sender=draw(st.integers(0, 2**16 - 1)),
    )


def some_packets(count: int, seed: int) -> list[Packet]:
    """Packets as a stream has them, without hypothesis: for the fuzz loops."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(count):
        bits = int(rng.choice([10, 10, 10, 8, 16]))
        red = (int(rng.integers(1, 5)), int(rng.integers(1, 20)))
        noise = tuple(int(v) for v in rng.integers(0, 128, 6)) if i % 7 == 3 else None
        shape = (int(rng.choice([2, 4, 8, 16, 32])), int(rng.integers(1, 7)))
        found.append(
            Packet(
                sequence=i & 0xFFFF,
                timestamp=i * 3,
                codes=None if noise else random_codes(rng, *shape, bits),
                noise=noise,
                redundancy=random_codes(rng, *red, bits) if i % 2 else None,
                scale=float(rng.uniform(0.01, 9)) if i % 5 == 1 and not noise else None,
                start=i == 0,
                end=i == count - 1,
                bits_per_code=bits,
            )
        )
    return found
