"""One direction of a sound card: its ring, its rate, and the callback between.

The callbacks only copy between the card's block and a ring that was made before and note a few numbers; the
microphone's wakes the thread that computes once what that waits for is there. All else happens in that thread.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from streaming_encodec.audio.devices import (
    Backend,
    Device,
    DeviceStream,
    Kind,
    choose_shape,
    find_again,
    find_device,
    number_of,
)
from streaming_encodec.audio.low_delay import LowDelayResampler
from streaming_encodec.audio.ring import Block, SampleRing

_RING_S = 0.5
"""Longer than any pause of the computing thread that can still be called a call."""
_SILENT_S = 1.0
"""A device that has not called back for so long is gone."""
_LARGEST_OF_S = 10.0
"""A block that was longer than all others counts for so long, and for twice that at most."""


@dataclass(slots=True)
class CardCounts:
    """What went wrong so far, each counted where it happened."""

    underruns: int = 0
    """Blocks that the speaker wanted and did not find whole."""
    overruns: int = 0
    """Blocks of the microphone that found no room."""
    reported: int = 0
    """Blocks before which the card itself reported lost samples."""
    lost_devices: int = 0
    """Times that a device went away."""
    revived_devices: int = 0


class Side:
    """One direction of a sound card, open or lost.

    wake_at: the microphone wakes somebody, once, when so many samples wait. grain: what divides all blocks and all that
    was written. block_s: the card's largest block lately, in seconds.
    """

    def __init__(
        self,
        backend: Backend,
        kind: Kind,
        wanted: str | int | None,
        rate: int,
        counts: CardCounts,
        *,
        clock: Callable[[], float],
        wake: Callable[[], None],
    ) -> None:
        self._backend, self.kind, self._wanted, self._rate, self._counts = backend, kind, wanted, rate, counts
        self._clock, self._wake = clock, wake
        self.wake_at: int | None = None
        self.grain = 0
        self.device: Device | None = None
        self.device_rate = rate
        self.latency_s = 0.0
        self.block_s = 0.0
        self.is_heard = False
        self._called_at = 0.0
        self._largest_from = 0.0
        self._largest_s = self._largest_before_s = 0.0  # of these seconds, and of those before them
        self._stream: DeviceStream | None = None
        self._calls = 0
        self._seen_calls = -1
        self._seen_at = 0.0
        self._channels = 1
        self.ring = SampleRing(1)
        self.resampler = LowDelayResampler(rate, rate)

    @property
    def is_open(self) -> bool:
        """Whether the device is there."""
        return self._stream is not None

    def open(self, now: float) -> None:
        """Find the device and open it. Raises DeviceError."""
        device = self._find()
        self.device_rate, self._channels = choose_shape(self._backend, device, self.kind, self._rate)
        self.ring = SampleRing(round(_RING_S * self.device_rate), self._channels)
        rates = (self.device_rate, self._rate) if self.kind == "input" else (self._rate, self.device_rate)
        self.resampler = LowDelayResampler(*rates)
        self.grain = 0
        self.latency_s = self.block_s = self._largest_s = self._largest_before_s = 0.0
        self._called_at = self._largest_from = now
        self.device, self._calls, self._seen_calls, self._seen_at = device, 0, -1, now
        callback = self._on_input if self.kind == "input" else self._on_output
        self._stream = self._backend.open(device, self.kind, self.device_rate, self._channels, callback)

    def _find(self) -> Device:
        devices = self._backend.devices()
        if self.device is not None and number_of(self._wanted) is not None:
            return find_again(devices, self.kind, self.device)
        return find_device(devices, self.kind, self._wanted)

    def close(self) -> None:
        """Give the device up."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    @property
    def next_block_s(self) -> float:
        """Seconds until the card calls back, if it keeps its pace; 0 when it is late."""
        return min(self.block_s, max(0.0, self.block_s - (self._clock() - self._called_at)))

    def is_gone(self, now: float) -> bool:
        """Whether an open device has stopped calling back."""
        if self._stream is None:
            return False
        if self._calls != self._seen_calls:
            self._seen_calls, self._seen_at = self._calls, now
        return not self._stream.active or now - self._seen_at > _SILENT_S

    def latency_ms(self, less_s: float = 0.0) -> float:
        """From the device to the ring or back, resampling included, less what the caller counts elsewhere."""
        if not self.is_open:
            return 0.0
        return 1000 * max(0.0, self.latency_s - less_s) + self.resampler.delay_ms

    # -- in the sound card's thread: copy, count, nothing else -----------------------------------------------

    def _on_input(self, block: Block, latency_s: float, lost: bool) -> None:
        fitted = self.ring.write(block)
        # Before somebody has begun to listen nothing is missed.
        self._counts.overruns += self.is_heard and fitted < len(block)
        self._note(block, latency_s, lost)
        wanted = self.wake_at  # looked at once: the other thread takes it away when it has waited long enough
        if wanted is not None and len(self.ring) >= wanted:
            self.wake_at = None
            self._wake()

    def _on_output(self, block: Block, latency_s: float, lost: bool) -> None:
        count = self.ring.read_into(block)
        if count < len(block):
            block[count:] = 0
            # Before the first sample was handed over nothing is missing.
            self._counts.underruns += self.ring.started
        self._note(block, latency_s, lost)

    def _note(self, block: Block, latency_s: float, lost: bool) -> None:
        self._counts.reported += lost
        self.latency_s = latency_s
        now = self._called_at = self._clock()
        if now - self._largest_from > _LARGEST_OF_S:
            self._largest_from = now
            self._largest_before_s, self._largest_s = self._largest_s, 0.0
        self._largest_s = max(self._largest_s, len(block) / self.device_rate)
        self.block_s = max(self._largest_s, self._largest_before_s)
        self.grain = math.gcd(self.grain, len(block))
        self._calls += 1
