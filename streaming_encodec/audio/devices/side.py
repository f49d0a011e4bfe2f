"""One direction of a sound card: its device, its rate, and the port between card and computing thread."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from streaming_encodec.audio.devices.devices import (
    Backend,
    Device,
    DeviceStream,
    choose_shape,
    find_again,
    find_device,
    number_of,
)
from streaming_encodec.audio.devices.port import Kind, Port
from streaming_encodec.audio.devices.ring import Block
from streaming_encodec.audio.low_delay import LowDelayResampler

_SILENT_S = 1.0
"""A device without a callback for this long is gone."""


@dataclass(slots=True)
class CardCounts:
    """Faults so far, each counted where it happened."""

    underruns: int = 0
    """Speaker blocks without enough samples."""
    overruns: int = 0
    """Microphone blocks without room."""
    skipped_samples: int = 0
    """Samples of a file in place of the microphone that were left out after a stall of this program."""
    reported: int = 0
    """Blocks before which the card itself reported lost samples."""
    lost_devices: int = 0
    """How often a device was lost."""
    revived_devices: int = 0


class Side:
    """One direction of a sound card, open or lost.

    is_open: whether a device is open. port: of that device, or of the last one.
    missed, reported: blocks, of all devices so far.
    """

    def __init__(
        self,
        backend: Backend,
        kind: Kind,
        wanted: str | int | None,
        rate: int,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._backend, self.kind, self._wanted, self._rate = backend, kind, wanted, rate
        self._clock = clock
        self.device: Device | None = None
        self.port = Port(kind, rate, 1, clock=clock)
        self.resampler = LowDelayResampler(rate, rate)
        self._stream: DeviceStream | None = None
        self.is_open = False
        self._missed_before = self._reported_before = 0
        self._written_grain = 0
        self._seen_calls = -1
        self._seen_at = 0.0

    @property
    def missed(self) -> int:
        """Speaker blocks without enough samples, or microphone blocks without room."""
        return self._missed_before + self.port.missed

    @property
    def reported(self) -> int:
        """Blocks before which the card itself reported lost samples."""
        return self._reported_before + self.port.reported

    @property
    def part_s(self) -> float:
        """The most samples that can wait at a callback without filling a block, given what waits now.

        What waits changes by blocks and by usual writes, so modulo their greatest common divisor it stays the same.
        """
        port, grain = self.port, math.gcd(self._written_grain, self.port.grain)
        samples, _, block_s = port.stock()
        return max(0.0, block_s - (grain - samples % grain) / port.rate) if grain else block_s

    @property
    def ahead_s(self) -> float:
        """Seconds until the card takes a sample that is written now, if it keeps its pace."""
        samples, called_at, block_s = self.port.stock()
        return samples / self.port.rate + min(block_s, max(0.0, block_s - (self._clock() - called_at)))

    def open(self, now: float) -> None:
        """Find the device and open it. Raises DeviceError."""
        device = self._find()
        rate, channels = choose_shape(self._backend, device, self.kind, self._rate)
        rates = (rate, self._rate) if self.kind == "input" else (self._rate, rate)
        stream = self._backend.open(device, self.kind, rate, channels, self._clock)
        self._missed_before, self._reported_before = self.missed, self.reported
        self.device, self._stream, self.port, self.is_open = device, stream, stream.port, True
        self.resampler = LowDelayResampler(*rates)
        self._written_grain = 0
        self._seen_calls, self._seen_at = -1, now

    def _find(self) -> Device:
        devices = self._backend.devices()
        if self.device is not None and number_of(self._wanted) is not None:
            return find_again(devices, self.kind, self.device)
        return find_device(devices, self.kind, self._wanted)

    def close(self) -> None:
        """Close the device."""
        if self._stream is not None:
            self._stream.close()
            self._stream, self.is_open = None, False

    def write(self, block: Block, *, usual: bool = True) -> None:
        """Queue [n, C] for the speaker; ``usual``: this length is to be expected again."""
        written = self.port.ring.write(block)
        if usual:
            self._written_grain = math.gcd(self._written_grain, written)

    def is_gone(self, now: float) -> bool:
        """Whether an open device has stopped its callbacks."""
        if self._stream is None:
            return False
        if self.port.calls != self._seen_calls:
            self._seen_calls, self._seen_at = self.port.calls, now
        return not self._stream.active or now - self._seen_at > _SILENT_S

    def latency_ms(self, less_s: float = 0.0) -> float:
        """Latency from the device to the ring or back, resampling included, less what the caller counts elsewhere."""
        if not self.is_open:
            return 0.0
        return 1000 * max(0.0, self.port.latency_s - less_s) + self.resampler.delay_ms
