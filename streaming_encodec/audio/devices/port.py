"""What a sound card's callback shares with the computing thread: a ring buffer and a few numbers.

The callbacks only copy between the card's block and a preallocated ring and set a few numbers; the microphone's
callback says when the samples that a thread waits for have arrived. All of it lies in memory that two processes can
map, since PortAudio runs in a process of its own.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from streaming_encodec.audio.devices.ring import Block, Memory, SampleRing

Kind = Literal["input", "output"]

_RING_S = 0.5
"""Longer than any pause of the computing thread in a usable call."""
_LARGEST_OF_S = 10.0
"""The largest block counts for this long, and for at most twice as long."""
_CALLS, _MISSED, _REPORTED, _GRAIN, _WAKE_AT, _HEARD, _ENDED, _BEGUN, _REMEMBERS = range(_WHOLE := 9)
_LATENCY_S, _CALLED_AT, _BLOCK_S, _LARGEST_FROM, _LARGEST_S, _LARGEST_BEFORE_S = range(_REAL := 6)
"""Index of each number: first the integers, then the reals."""
_NUMBERS_BYTES = 8 * (_WHOLE + _REAL)


class Moment(NamedTuple):
    """The last callback: the number of all samples up to its block's end, when it was (seconds), how far its block's
    beginning was from the air (seconds)."""

    samples: int
    called_at: float
    latency_s: float


class Port:
    """One direction of an open device.

    Args:
        kind: "input" is a microphone: the card writes.
        rate: the device's, samples a second.
        channels: how many the device was opened with.
        memory: `size` bytes of shared memory, zero at first; None allocates private memory.
        clock: seconds, the same for both sides.
    """

    def __init__(
        self,
        kind: Kind,
        rate: int,
        channels: int,
        *,
        memory: Memory | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.kind, self.rate, self.channels, self._clock = kind, rate, channels, clock
        memory = bytearray(self.size(kind, rate, channels)) if memory is None else memory
        self._seen_count = -1  # of the last block
        # Only one side writes each number, except wake_at.
        numbers = memoryview(memory)[:_NUMBERS_BYTES].cast("B")
        self._whole, self._real = numbers[: 8 * _WHOLE].cast("q"), numbers[8 * _WHOLE :].cast("d")
        if not self._real[_CALLED_AT]:  # made just now, not by the other side before
            self._real[_CALLED_AT] = self._real[_LARGEST_FROM] = clock()
        capacity, rest = round(_RING_S * rate), memoryview(memory)[_NUMBERS_BYTES:]
        self.ring = SampleRing(capacity, channels, rest)
        self.played = self.ring
        """What was handed to the speaker, missing samples as zeros, if the other side wants to `remember` it."""
        if kind == "output":
            self.played = SampleRing(capacity, channels, rest[SampleRing.size(capacity, channels) :])

    @staticmethod
    def size(kind: Kind, rate: int, channels: int) -> int:
        """Bytes that such a port takes."""
        ring = SampleRing.size(round(_RING_S * rate), channels)
        return _NUMBERS_BYTES + (2 * ring if kind == "output" else ring)

    # -- what the card's side reports -----------------------------------------------------------------------

    @property
    def calls(self) -> int:
        """Number of callbacks so far."""
        return self._whole[_CALLS]

    @property
    def missed(self) -> int:
        """Speaker blocks without enough samples, or microphone blocks without room."""
        return self._whole[_MISSED]

    @property
    def reported(self) -> int:
        """Blocks before which the card itself reported lost samples."""
        return self._whole[_REPORTED]

    @property
    def grain(self) -> int:
        """Greatest common divisor of all block sizes so far, in samples; 0 before the first."""
        return self._whole[_GRAIN]

    @property
    def latency_s(self) -> float:
        """Seconds between the last block and the microphone or speaker."""
        return self._real[_LATENCY_S]

    @property
    def called_at(self) -> float:
        """Time of the last callback."""
        return self._real[_CALLED_AT]

    @property
    def block_s(self) -> float:
        """The largest recent block, in seconds."""
        return self._real[_BLOCK_S]

    @property
    def ended(self) -> bool:
        """Whether the device has reported its end."""
        return bool(self._whole[_ENDED])

    def stock(self) -> tuple[int, float, float]:
        """What waits in the ring, in samples; the time of the last callback; the largest recent block, in seconds."""
        real = self._real
        return len(self.ring), real[_CALLED_AT], real[_BLOCK_S]

    def moment(self) -> Moment:
        """The last callback, all of one and the same. For a speaker, samples are those of `played`."""
        while True:
            calls = self._whole[_CALLS]
            moment = Moment(self.played.written, self._real[_CALLED_AT], self._real[_LATENCY_S])
            if self._whole[_BEGUN] == calls == self._whole[_CALLS] or self.ended:
                return moment

    # -- what the other side reports ------------------------------------------------------------------------

    @property
    def wake_at(self) -> int | None:
        """Wake the other side, once, when this many samples wait."""
        return self._whole[_WAKE_AT] or None

    @wake_at.setter
    def wake_at(self, samples: int | None) -> None:
        self._whole[_WAKE_AT] = 0 if samples is None else max(1, samples)

    def hear(self) -> None:
        """From now on count microphone blocks that find no room."""
        self._whole[_HEARD] = 1

    def remember(self, wanted: bool) -> None:
        """From now on keep what is handed to the speaker in `played`, whose reader must follow; or no longer."""
        self._whole[_REMEMBERS] = wanted

    # -- in the sound card's thread: copy, count, nothing else -----------------------------------------------

    def take_block(self, block: Block, latency_s: float, lost: bool) -> bool:
        """Take a microphone's block [n, C]. lost: the card reports lost samples. Returns whether to wake the reader."""
        whole, ring = self._whole, self.ring
        whole[_BEGUN] += 1
        count, fitted = ring.count(block), ring.write(block)
        if fitted < count and whole[_HEARD]:  # before the first read nothing is missed
            whole[_MISSED] += 1
        self._note(count, latency_s, lost)
        wanted = whole[_WAKE_AT]  # read only once: the other side clears it when its wait ends
        if not wanted or len(ring) < wanted:
            return False
        whole[_WAKE_AT] = 0
        return True

    def fill_block(self, block: Block, latency_s: float, lost: bool) -> None:
        """The speaker's block [n, C]."""
        whole, ring = self._whole, self.ring
        whole[_BEGUN] += 1
        count, found = ring.count(block), ring.read_into(block)
        if found < count:
            missing = 4 * self.channels * (count - found)
            memoryview(block).cast("B")[-missing:] = bytes(missing)
            # Before the first write nothing is missing.
            whole[_MISSED] += ring.started
        if whole[_REMEMBERS]:
            self.played.write(block)
        self._note(count, latency_s, lost)

    def end(self) -> None:
        """The device has ended its callbacks."""
        self._whole[_ENDED] = 1

    def _note(self, count: int, latency_s: float, lost: bool) -> None:
        whole, real = self._whole, self._real
        if lost:
            whole[_REPORTED] += 1
        now = real[_CALLED_AT] = self._clock()
        real[_LATENCY_S] = latency_s
        ages = now - real[_LARGEST_FROM] > _LARGEST_OF_S
        if ages:
            real[_LARGEST_FROM], real[_LARGEST_BEFORE_S], real[_LARGEST_S] = now, real[_LARGEST_S], 0.0
        if ages or count != self._seen_count:  # most cards' blocks are all of one size
            self._seen_count = count
            real[_LARGEST_S] = max(real[_LARGEST_S], count / self.rate)
            real[_BLOCK_S] = max(real[_LARGEST_S], real[_LARGEST_BEFORE_S])
            whole[_GRAIN] = math.gcd(whole[_GRAIN], count)
        whole[_CALLS] += 1


class SharedFile:
    """Memory that another process maps by the name of its file."""

    def __init__(self, size: int) -> None:
        folder = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # in memory, where there is such
        with tempfile.NamedTemporaryFile(prefix="streaming-encodec-", dir=folder, delete=False) as file:
            file.truncate(size)
            self.memory = memoryview(mmap.mmap(file.fileno(), size))
        self.path = Path(file.name)

    def unlink(self) -> None:
        """Delete the name; mappings stay valid."""
        with contextlib.suppress(OSError):  # Windows keeps it until it is closed
            self.path.unlink(missing_ok=True)

    @staticmethod
    def map(path: str) -> memoryview:
        """Map what another process made."""
        with open(path, "r+b") as file:
            return memoryview(mmap.mmap(file.fileno(), 0))
