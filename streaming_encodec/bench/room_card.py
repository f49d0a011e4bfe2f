"""Sound devices in a simulated room, with a simulated clock: the same call each time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np

from streaming_encodec.audio.devices.card import SoundCard
from streaming_encodec.audio.devices.devices import Device, DeviceStream
from streaming_encodec.audio.devices.port import Kind, Port
from streaming_encodec.audio.devices.wakeup import Wakeup
from streaming_encodec.bench.room import SimulatedRoom
from streaming_encodec.types import Pcm

Card = TypeVar("Card", bound=SoundCard)

_JITTER_S = 0.0005
"""Callbacks come late by as much, on the mean."""
_STEP_S = 0.004


class RoomClock:
    """Simulated time, in seconds."""

    now = 100.0

    def __call__(self) -> float:
        """Now."""
        return self.now


class _Stream:
    active = True

    def __init__(self, port: Port) -> None:
        self.port = port

    def close(self) -> None:
        self.active = False


class RoomBackend:
    """A loudspeaker and a microphone, as `SoundCard` opens them; `pass_time` has them call back.

    Args:
        room: what the microphone hears; rates, clocks and blocks are its own.
        clock: time.
        latency_s: what each reports.
        seed: of the callbacks' jitter.
    """

    def __init__(
        self,
        room: SimulatedRoom,
        clock: RoomClock,
        *,
        latency_s: float = 0.015,
        seed: int = 0,
    ) -> None:
        self.wakeup = Wakeup()
        self._room, self._clock, self._latency_s = room, clock, latency_s
        self._random = np.random.default_rng(seed)
        kinds: tuple[Kind, Kind] = ("output", "input")
        self._rates = dict(zip(kinds, room.rates, strict=True))
        self._period_s = {
            kind: room.block / rate / (1 + 1e-6 * ppm)
            for kind, rate, ppm in zip(kinds, room.rates, room.ppm, strict=True)
        }
        self._next_s = dict.fromkeys(kinds, clock.now)
        self._late_s = dict.fromkeys(kinds, 0.0)
        self._streams: dict[Kind, _Stream] = {}
        self._devices = [
            Device(0, "Built-in Microphone", "Room", 1, 0, room.rates[1], is_default_input=True),
            Device(1, "Built-in Speaker", "Room", 0, 1, room.rates[0], is_default_output=True),
        ]

    def devices(self) -> list[Device]:
        """Two."""
        return self._devices

    def refusal(self, device: Device, kind: Kind, sample_rate: int, channels: int) -> str | None:
        """Only the one rate."""
        return None if (sample_rate, channels) == (self._rates[kind], 1) else "Invalid sample rate"

    def open(
        self, device: Device, kind: Kind, sample_rate: int, channels: int, clock: Callable[[], float]
    ) -> DeviceStream:
        """Never refused."""
        stream = self._streams[kind] = _Stream(Port(kind, sample_rate, channels, clock=clock))
        return stream

    def refresh(self) -> None:
        """Nothing changes."""

    def pass_time(self, seconds: float) -> None:
        """Move the clock, with all callbacks on the way."""
        end_s = self._clock.now + seconds
        while True:
            kind = min(self._next_s, key=lambda each: self._next_s[each] + self._late_s[each])
            at_s = self._next_s[kind] + self._late_s[kind]
            if at_s > end_s:
                break
            self._clock.now = max(self._clock.now, at_s)
            self._call_back(kind)
            self._next_s[kind] += self._period_s[kind]
            self._late_s[kind] = min(float(self._random.exponential(_JITTER_S)), 0.9 * self._period_s[kind])
        self._clock.now = end_s

    def _call_back(self, kind: Kind) -> None:
        port = self._streams[kind].port
        if kind == "input":
            block = self._room.record(self._room.block)
            port.take_block(block[:, None], self._latency_s, False)
            return
        block = np.zeros((self._room.block, 1), np.float32)
        port.fill_block(block, self._latency_s, False)
        self._room.play(block[:, 0])


def card_in_room(
    room: SimulatedRoom,
    sample_rate: int,
    card: type[Card],
    *,
    latency_s: float = 0.015,
    backend: type[RoomBackend] = RoomBackend,
) -> tuple[Card, Callable[[float], None]]:
    """A sound card whose devices are in a room, and what has them go on for so many seconds. latency_s: what each
    reports."""
    clock = RoomClock()
    devices = backend(room, clock, latency_s=latency_s)
    return card(sample_rate, backend=devices, clock=clock), devices.pass_time


def converse(
    card: SoundCard, wait: Callable[[float], None], far: Pcm, hear: Callable[[Pcm, Pcm], Pcm], frame: int
) -> tuple[Pcm, Pcm]:
    """Play ``far`` [n] in the room, frame by frame as a call does, and hear what the microphone gives meanwhile.

    wait: called with seconds. hear: microphone and reference, [1, m] each, to what is sent of them; m is a multiple of
    ``frame``. Returns what the microphone gave, and what was sent, both [k].
    """
    near, sent = [np.zeros((1, 0), np.float32)], [np.zeros((1, 0), np.float32)]
    for _ in _play(card, wait, (far[at : at + frame] for at in range(0, len(far) - frame + 1, frame))):
        if card.has(frame):
            microphone, reference = card.read_with_reference()
            near.append(microphone)
            sent.append(hear(microphone, reference))
    return np.concatenate(near, axis=1)[0], np.concatenate(sent, axis=1)[0]


def _play(card: SoundCard, wait: Callable[[float], None], frames: Iterable[Pcm]) -> Iterator[None]:
    for frame in frames:
        while (card.ahead_s or 0.0) > card.target_s:
            wait(_STEP_S)
            card.maintain()
            yield
        card.write(frame[None])
