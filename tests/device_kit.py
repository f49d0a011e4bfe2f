"""Sound cards made of nothing: the test says when they call back, and with what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from streaming_encodec.audio.devices.devices import Device, DeviceStream
from streaming_encodec.audio.devices.port import Kind, Port
from streaming_encodec.audio.devices.wakeup import Wakeup
from streaming_encodec.errors import DeviceError


class Clock:
    """Stands still until the test moves it."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class FakeStream:
    """An open device; `turn` is one callback."""

    def __init__(self, port: Port, wakeup: Wakeup) -> None:
        self.port, self._wakeup = port, wakeup
        self.kind, self.rate, self.channels = port.kind, port.rate, port.channels
        self.active = True
        self.heard: list[np.ndarray] = []

    def turn(self, block: np.ndarray | int, lost: bool = False, latency_s: float = 0.005) -> None:
        """Hand a microphone's block over, or ask for so many samples for the speaker."""
        if isinstance(block, int):
            block = np.full((block, self.channels), 9.0, np.float32)
            self.port.fill_block(block, latency_s, lost)
            self.heard.append(block)
        elif self.port.take_block(block, latency_s, lost):
            self._wakeup.set()

    def close(self) -> None:
        self.active = False


@dataclass
class FakeBackend:
    """Devices by index; ``rates`` is what all of them take, and ``channels``, if given, the one number that they do."""

    rates: tuple[int, ...] = (24_000, 48_000)
    channels: int | None = None
    all: list[Device] = field(
        default_factory=lambda: [
            Device(0, "Built-in Microphone", "Fake", 1, 0, 48_000, is_default_input=True),
            Device(1, "Built-in Speaker", "Fake", 0, 2, 48_000, is_default_output=True),
            Device(2, "USB Headset", "Fake", 1, 2, 44_100),
        ]
    )
    refreshes: int = 0
    streams: list[FakeStream] = field(default_factory=list)
    wakeup: Wakeup = field(default_factory=Wakeup)

    def devices(self) -> list[Device]:
        return self.all

    def refusal(self, device: Device, kind: Kind, sample_rate: int, channels: int) -> str | None:
        if self.channels not in (None, channels):
            return "Invalid number of channels"
        return None if sample_rate in self.rates else "Invalid sample rate"

    def open(
        self, device: Device, kind: Kind, sample_rate: int, channels: int, clock: Callable[[], float]
    ) -> DeviceStream:
        if device not in self.all:
            raise DeviceError("it is gone")
        stream = FakeStream(Port(kind, sample_rate, channels, clock=clock), self.wakeup)
        self.streams.append(stream)
        return stream

    def refresh(self) -> None:
        self.refreshes += 1
        self.all[:] = [replace(device, index=number) for number, device in enumerate(self.all)]

    def stream(self, kind: Kind) -> FakeStream:
        """The one that is open now."""
        return next(stream for stream in reversed(self.streams) if stream.kind == kind)
