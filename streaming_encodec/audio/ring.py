"""A ring of samples between a sound card's callback and the thread that computes, which may be in another process.

One side writes and one reads; neither waits, and neither allocates where the caller hands the array in. Each index is
moved by one side only, after the samples are in place, so no lock is needed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streaming_encodec.errors import StreamError

Block = NDArray[np.float32]
"""Interleaved, as sound cards have it: [n, C]."""

Memory = bytearray | memoryview
"""Where a ring lies; of another process too, if both map the same."""

_INDICES_BYTES = 16


class SampleRing:
    """Up to ``capacity`` samples of ``channels`` channels, first in, first out.

    memory: `size` bytes, zero at first, if not its own.
    """

    def __init__(self, capacity: int, channels: int = 1, memory: Memory | None = None) -> None:
        if capacity < 1 or channels < 1:
            raise StreamError(f"a ring holds something, not {capacity} samples of {channels} channels")
        self.capacity, self.channels = capacity, channels
        memory = bytearray(self.size(capacity, channels)) if memory is None else memory
        # How many samples were ever written, which the writer moves, and read, which the reader moves.
        self._moved = memoryview(memory)[:_INDICES_BYTES].cast("B").cast("q")
        self._samples: Block = np.frombuffer(memory, np.float32, capacity * channels, _INDICES_BYTES).reshape(
            capacity, channels
        )

    @staticmethod
    def size(capacity: int, channels: int) -> int:
        """How many bytes such a ring takes."""
        return _INDICES_BYTES + 4 * capacity * channels

    def __len__(self) -> int:
        return self._moved[0] - self._moved[1]

    @property
    def started(self) -> bool:
        """Whether anything was ever put in."""
        return bool(self._moved[0])

    def write(self, block: Block) -> int:
        """Put in [n, C]; what does not fit is left out. Returns how many samples fitted."""
        count = min(len(block), self.capacity - len(self))
        at = self._moved[0] % self.capacity
        first = min(count, self.capacity - at)
        self._samples[at : at + first] = block[:first]
        self._samples[: count - first] = block[first:count]
        self._moved[0] += count
        return count

    def read_into(self, out: Block) -> int:
        """Fill as much of ``out`` [n, C] as there is, from its beginning. Returns how many samples that
        were."""
        count = min(len(out), len(self))
        at = self._moved[1] % self.capacity
        first = min(count, self.capacity - at)
        out[:first] = self._samples[at : at + first]
        out[first:count] = self._samples[: count - first]
        self._moved[1] += count
        return count

    def read_all(self) -> Block:
        """All there is [n, C]: for the side that may allocate."""
        out = np.empty((len(self), self.channels), np.float32)
        return out[: self.read_into(out)]

    def clear(self) -> None:
        """Forget what waits; for the reader only."""
        self._moved[1] = self._moved[0]
