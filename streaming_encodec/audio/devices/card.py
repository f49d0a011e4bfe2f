"""Microphone and speaker at the model's rate, whatever the devices' rates: waiting, counting, reopening."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import numpy as np

from streaming_encodec.audio.devices.devices import Backend, Device
from streaming_encodec.audio.devices.port import Kind
from streaming_encodec.audio.devices.reference import Reference
from streaming_encodec.audio.devices.side import CardCounts, Side
from streaming_encodec.audio.resample import mix_channels
from streaming_encodec.errors import DeviceError
from streaming_encodec.samples import repair_amplitude
from streaming_encodec.types import Pcm

_RETRY_S = 1.0
_LONGEST_SEARCH_S = 32.0
"""A lost device is tried every second. A search for others in its place takes a tenth of a second of a core, so the
interval between searches grows."""
_FIRST_MARGIN_S = 0.009
_LONGEST_MARGIN_S = 0.060
_MORE_MARGIN_S = 0.004
_LESS_MARGIN_S = 0.001
_CALM_S = 60.0
"""How much earlier than the card takes a block the next frame is started: at first, at most, and the increase after an
underrun. Each minute without an underrun takes one millisecond back."""


class Margin:
    """How much earlier than needed sound is computed: more after each underrun, slowly less without."""

    def __init__(self) -> None:
        self._seen = 0
        self._changed_at: float | None = None
        self.seconds = _FIRST_MARGIN_S

    def update(self, now: float, underruns: int) -> None:
        """Adapt to ``underruns``, the number of all so far."""
        if underruns > self._seen:
            self._seen = underruns
            self._changed_at = now
            self.seconds = min(_LONGEST_MARGIN_S, self.seconds + _MORE_MARGIN_S)
        elif self._changed_at is not None and now - self._changed_at > _CALM_S:
            self._changed_at = now
            self.seconds = max(_FIRST_MARGIN_S, self.seconds - _LESS_MARGIN_S)


class SoundCard:
    """Microphone and speaker, either of which may be missing, as mono [1, n] at ``sample_rate``.

    For one thread, which reads, writes and maintains.

    Args:
        sample_rate: the model's.
        backend: None is `PortAudio`.
        input_device, output_device: number or part of the name; None is the system's default.
        use_input, use_output: False leaves that direction closed.
        clock: seconds.

    Raises:
        DeviceError: PortAudio or a device is missing, busy, or refuses every rate.
    """

    def __init__(
        self,
        sample_rate: int,
        *,
        backend: Backend | None = None,
        input_device: str | int | None = None,
        output_device: str | int | None = None,
        use_input: bool = True,
        use_output: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if backend is None:
            from streaming_encodec.audio.devices.portaudio import PortAudio

            backend = PortAudio()
        self._backend, self.sample_rate, self._clock = backend, sample_rate, clock
        self._lost = self._revived = 0
        self.changes = 0
        """How often a device was opened or closed so far."""
        self._reference: Reference | None = None

        def side(kind: Kind, wanted: str | int | None) -> Side:
            return Side(backend, kind, wanted, sample_rate, clock=clock)

        self._microphone = side("input", input_device) if use_input else None
        self._speaker = side("output", output_device) if use_output else None
        self._margin = Margin()
        self._retry_at = 0.0
        self._search_at = 0.0
        self._search_s = _RETRY_S
        try:
            for each in self._sides():
                self._open(each, clock())
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the devices."""
        for side in self._sides():
            self._close(side)

    # -- sound ----------------------------------------------------------------------------------------------

    def read(self) -> Pcm:
        """The microphone's samples since the last call, [1, n]."""
        return self._read() if self._reference is None else self.read_with_reference()[0]

    def read_with_reference(self) -> tuple[Pcm, Pcm]:
        """The microphone's samples since the last call, and what the speaker played meanwhile, both [1, n].

        The reference runs some milliseconds ahead of its echo, whatever the devices' delays, rates and clocks are.
        It is silent for the first half second, after a device was reopened, and while one is missing.
        """
        near, reference = self._read(), self._reference
        if reference is not None:
            return near, reference.read(near.shape[1])[None]
        sides = [side for side in self._sides() if side.is_open]
        if len(sides) == 2:
            self._reference = Reference(sides[0].port, sides[1].port, self.sample_rate)
        return near, np.zeros_like(near)

    def forget_reference(self) -> None:
        """From now on only `read` is called."""
        if self._reference is not None:
            self._reference.close()
            self._reference = None

    def _read(self) -> Pcm:
        if self._microphone is None or not self._microphone.is_open:
            return np.zeros((1, 0), np.float32)
        self._microphone.port.hear()
        block = self._microphone.port.ring.read_all()
        # The last of an interface's many inputs may loop its output back: the others would hear themselves.
        return self._microphone.resampler.push(mix_channels(repair_amplitude(block.T[:2]), 1))

    def write(self, pcm: Pcm, *, usual: bool = True) -> None:
        """Queue [1, n] for the speaker; dropped while it is gone.

        ``usual``: this length is to be expected again, and `target_s` reckons with it.
        """
        speaker = self._speaker
        if speaker is None or not speaker.is_open:
            return
        sound = mix_channels(speaker.resampler.push(pcm), speaker.port.channels)
        speaker.write(np.ascontiguousarray(sound.T), usual=usual)

    @property
    def queued_s(self) -> float | None:
        """Seconds of sound that wait for the speaker; None without a speaker."""
        if self._speaker is None or not self._speaker.is_open:
            return None
        return len(self._speaker.port.ring) / self._speaker.port.rate

    @property
    def ahead_s(self) -> float | None:
        """In how many seconds the card takes samples that are written now: after all that wait, with its next block.

        This falls with the clock, not in steps of a block. None without a speaker.
        """
        speaker = self._speaker
        return speaker.ahead_s if speaker is not None and speaker.is_open else None

    @property
    def target_s(self) -> float:
        """The least that `ahead_s` should be: the most that may wait without filling a block, and a margin that follows
        underruns."""
        return self._margin.seconds + (0.0 if self._speaker is None else self._speaker.part_s)

    # -- figures --------------------------------------------------------------------------------------------

    @property
    def counts(self) -> CardCounts:
        """What went wrong so far."""
        return CardCounts(
            underruns=0 if self._speaker is None else self._speaker.missed,
            overruns=0 if self._microphone is None else self._microphone.missed,
            reported=sum(side.reported for side in self._sides()),
            lost_devices=self._lost,
            revived_devices=self._revived,
        )

    @property
    def input_latency_ms(self) -> float:
        """From the air to `read`, for the last sample of a block, resampling included.

        Earlier samples also waited for the block to be full. That is not counted here: it overlaps with the wait for a
        frame, and the rest of it appears as jitter.
        """
        side = self._microphone
        return 0.0 if side is None else side.latency_ms(less_s=side.port.block_s)

    @property
    def output_latency_ms(self) -> float:
        """From the time at which the card takes a block (`ahead_s`) to the air."""
        return 0.0 if self._speaker is None else self._speaker.latency_ms()

    @property
    def names(self) -> dict[str, str]:
        """The devices in use, with their rates."""
        return {
            side.kind: f"{side.device.name} ({side.port.rate} Hz)" for side in self._sides() if side.device is not None
        }

    @property
    def output_device(self) -> Device | None:
        """The speaker's device, or the last one."""
        return None if self._speaker is None else self._speaker.device

    @property
    def drift_ppm(self) -> float:
        """How much faster the speaker's clock runs than the microphone's; 0 while nobody reads the reference."""
        return 0.0 if self._reference is None else 1e6 * self._reference.drift

    @property
    def reference_delay_ms(self) -> float:
        """From the callback that hands a sample to the speaker to the one that brings what the reference has beside it.

        An echo that comes later than the reference is later than that, by as much. 0 while nobody reads the reference.
        """
        microphone, speaker, reference = self._microphone, self._speaker, self._reference
        if microphone is None or speaker is None or reference is None:
            return 0.0
        return 1000 * (microphone.port.latency_s + speaker.port.latency_s - reference.lead_s)

    @property
    def lost(self) -> tuple[str, ...]:
        """The directions whose device is gone at the moment."""
        return tuple(side.kind for side in self._sides() if not side.is_open)

    # -- upkeep ---------------------------------------------------------------------------------------------

    def has(self, samples: int) -> bool:
        """Whether the next `read` gives at least this many."""
        side = self._microphone
        return side is not None and side.is_open and len(side.port.ring) >= side.resampler.inputs_for(samples)

    def wait(self, seconds: float, samples: int = 1) -> None:
        """Sleep until the microphone has this many samples, until `wake`, or for this long."""
        side = self._microphone
        if side is None or not side.is_open:
            self._backend.wakeup.wait(seconds)
            return
        port = side.port
        # Set before looking, so that a block that comes in between is not missed.
        wanted = port.wake_at = side.resampler.inputs_for(samples)
        if len(port.ring) < wanted:
            self._backend.wakeup.wait(seconds)
        port.wake_at = None

    def wake(self) -> None:
        """Wake the thread in `wait`, or make its next `wait` return at once. Thread-safe."""
        self._backend.wakeup.set()

    def maintain(self) -> None:
        """Adapt the margin to underruns, detect lost devices, and reopen them when they are back.

        Costs next to nothing without a fault; call it every few milliseconds.
        """
        now = self._clock()
        self._margin.update(now, 0 if self._speaker is None else self._speaker.missed)
        for side in self._sides():
            if side.is_gone(now):
                self._close(side)
                self._lost += 1
                self._retry_at = now + _RETRY_S
                self._search_s = 2 * _RETRY_S
                self._search_at = now + self._search_s
        if self.lost and now >= self._retry_at:
            self._revive(now)

    def _revive(self, now: float) -> None:
        """A device with its old number can be reopened directly; any other is found only by a search."""
        self._retry_at = now + _RETRY_S
        gone = self.lost
        for side in self._sides():
            if not side.is_open:
                with contextlib.suppress(DeviceError):  # still missing: the other side continues
                    self._open(side, now)
        alone = len(self.lost) == len(self._sides())
        if self.lost and (alone or now >= self._search_at):
            self._search_s = min(_LONGEST_SEARCH_S, 2 * self._search_s)
            self._search_at = now + self._search_s
            with contextlib.suppress(DeviceError):  # not to be had: try again later
                self._backend.refresh()
        self._revived += len(set(gone) - set(self.lost))

    def _open(self, side: Side, now: float) -> None:
        side.open(now)
        self._changed()

    def _close(self, side: Side) -> None:
        if side.is_open:
            self._changed()
        side.close()

    def _changed(self) -> None:
        self.changes += 1
        self.forget_reference()

    def _sides(self) -> list[Side]:
        return [side for side in (self._microphone, self._speaker) if side is not None]
