"""A ring buffer of samples between a sound card's callback and the computing thread, which may be in another process.

One side writes and one reads; neither waits, and neither allocates if the caller passes the array. Only one side moves
each index, after the samples are in place, so no lock is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from streaming_encodec.errors import StreamError

if TYPE_CHECKING:  # the PortAudio process does not import numpy
    import numpy as np
    from numpy.typing import NDArray

Block: TypeAlias = Any
"""Interleaved float32 [n, C], contiguous. An array, or its bytes; numpy's types declare an array to be such a buffer
only from Python 3.12 on."""

Memory = bytearray | memoryview
"""The memory of a ring, which another process may map too."""

_INDICES_BYTES = 16


class SampleRing:
    """Up to ``capacity`` samples of ``channels`` channels, first in, first out.

    memory: `size` bytes of shared memory, zero at first; None allocates private memory.
    """

    def __init__(self, capacity: int, channels: int = 1, memory: Memory | None = None) -> None:
        if capacity < 1 or channels < 1:
            raise StreamError(f"a ring holds something, not {capacity} samples of {channels} channels")
        self.capacity, self.channels, self._step = capacity, channels, 4 * channels
        memory = bytearray(self.size(capacity, channels)) if memory is None else memory
        # Samples ever written, which the writer counts, and read, which the reader counts.
        self._moved = memoryview(memory)[:_INDICES_BYTES].cast("B").cast("q")
        self._bytes = memoryview(memory)[_INDICES_BYTES : self.size(capacity, channels)].cast("B")

    @staticmethod
    def size(capacity: int, channels: int) -> int:
        """Bytes that such a ring takes."""
        return _INDICES_BYTES + 4 * capacity * channels

    def __len__(self) -> int:
        return self._moved[0] - self._moved[1]

    @property
    def started(self) -> bool:
        """Whether anything was ever written."""
        return bool(self._moved[0])

    @property
    def written(self) -> int:
        """Samples ever written."""
        return self._moved[0]

    @property
    def read(self) -> int:
        """Samples ever read."""
        return self._moved[1]

    def count(self, block: Block) -> int:
        """Samples in a block."""
        return memoryview(block).nbytes // self._step

    def write(self, block: Block) -> int:
        """Write [n, C]; samples that do not fit are dropped. Returns how many fitted."""
        view, moved, step, memory = memoryview(block), self._moved, self._step, self._bytes
        count = min(view.nbytes // step, self.capacity - moved[0] + moved[1])
        if count:
            data, size, at = view.cast("B"), count * step, moved[0] % self.capacity * step
            first = min(size, len(memory) - at)
            memory[at : at + first] = data[:first]
            if first < size:
                memory[: size - first] = data[first:size]
            moved[0] += count
        return count

    def read_into(self, out: Block) -> int:
        """Fill ``out`` [n, C] from its start with the samples that there are. Returns their number."""
        view, moved, step, memory = memoryview(out), self._moved, self._step, self._bytes
        count = min(view.nbytes // step, moved[0] - moved[1])
        if count:
            data, size, at = view.cast("B"), count * step, moved[1] % self.capacity * step
            first = min(size, len(memory) - at)
            data[:first] = memory[at : at + first]
            if first < size:
                data[first:size] = memory[: size - first]
            moved[1] += count
        return count

    def read_all(self) -> NDArray[np.float32]:
        """All samples [n, C]; allocates."""
        import numpy as np

        out = np.empty((len(self), self.channels), np.float32)
        return out[: self.read_into(out)]

    def clear(self) -> None:
        """Drop all samples; for the reader only."""
        self._moved[1] = self._moved[0]
