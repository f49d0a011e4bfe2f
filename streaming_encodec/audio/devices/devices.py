"""Sound devices: which there are, which one a name or number means, and the rate it is opened at.

PortAudio's frame (one value of each channel) is a sample here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from streaming_encodec.audio.devices.port import Kind, Port
from streaming_encodec.audio.devices.wakeup import Wakeup
from streaming_encodec.errors import DeviceError

_INSTEAD_HZ = (48_000, 44_100, 32_000, 16_000)
"""Tried in turn if a device accepts neither the model's rate nor its own default rate."""

HOW_TO_GET_ONE = {
    "input": "plug in a microphone or headset, allow this program to use it, and look at `streaming-encodec devices`",
    "output": "plug in headphones or a speaker and look at `streaming-encodec devices`",
}


@dataclass(frozen=True, slots=True)
class Device:
    """One device of one host interface (ALSA, Core Audio, WASAPI, JACK …)."""

    index: int
    name: str
    host: str
    input_channels: int
    output_channels: int
    sample_rate: int
    is_default_input: bool = False
    is_default_output: bool = False

    def channels(self, kind: Kind) -> int:
        """Number of channels in this direction."""
        return self.input_channels if kind == "input" else self.output_channels

    def is_default(self, kind: Kind) -> bool:
        """Whether it is the system's default."""
        return self.is_default_input if kind == "input" else self.is_default_output


class DeviceStream(Protocol):
    """An open device that calls back; ``port`` holds its samples."""

    @property
    def port(self) -> Port: ...

    @property
    def active(self) -> bool:
        """Whether it still runs."""
        ...

    def close(self) -> None:
        """Stop the callbacks and close the device."""
        ...


class Backend(Protocol):
    """Access to sound devices: PortAudio, or a test's fake.

    wakeup: set when a microphone's port has reached its ``wake_at``.
    """

    @property
    def wakeup(self) -> Wakeup: ...

    def devices(self) -> list[Device]:
        """All devices. Raises DeviceError if there is no sound system."""
        ...

    def refusal(self, device: Device, kind: Kind, sample_rate: int, channels: int) -> str | None:
        """Why the device cannot be opened with these settings; None if it can."""
        ...

    def open(
        self, device: Device, kind: Kind, sample_rate: int, channels: int, clock: Callable[[], float]
    ) -> DeviceStream:
        """Open it and start its callbacks. Raises DeviceError.

        clock: seconds, of the port's reader.
        """
        ...

    def refresh(self) -> None:
        """Search again for devices: a list soon after shows the change. Open streams continue. Raises DeviceError."""
        ...


def find_device(devices: Sequence[Device], kind: Kind, wanted: str | int | None) -> Device:
    """The device meant: by its number, by a part of its name, or the system's default.

    Raises:
        DeviceError: no device fits, or several do; the message lists what there is and how to get one.
    """
    able = [device for device in devices if device.channels(kind)]
    if not able:
        raise DeviceError(f"there is no audio {kind} device: {HOW_TO_GET_ONE[kind]}")
    if wanted is None:
        return next((device for device in able if device.is_default(kind)), able[0])
    number = number_of(wanted)
    if number is not None:
        found = [device for device in able if device.index == number]
    else:
        name = str(wanted).casefold()
        exact = [device for device in able if device.name.casefold() == name]
        found = exact or [device for device in able if name in device.name.casefold()]
    if len(found) == 1:
        return found[0]
    names = ", ".join(f"{device.index}: {device.name}" for device in found or able)
    if found:
        raise DeviceError(f"several audio {kind} devices match {wanted!r} ({names}): give the number")
    raise DeviceError(f"there is no audio {kind} device {wanted!r}; there are {names}")


def number_of(wanted: str | int | None) -> int | None:
    """The number, if a device is chosen by number; None if by name, or if it is the default."""
    return int(wanted) if isinstance(wanted, int) or (wanted is not None and wanted.isdecimal()) else None


def find_again(devices: Sequence[Device], kind: Kind, known: Device) -> Device:
    """The device that was in use, under its present number: PortAudio renumbers when a device comes or goes.

    Raises:
        DeviceError: it is not there.
    """
    found = [d for d in devices if d.channels(kind) and (d.name, d.host) == (known.name, known.host)]
    if not found:
        raise DeviceError(f"the audio {kind} {known.name!r} is away: plug it in again, or choose another device")
    return next((device for device in found if device.index == known.index), found[0])


def channel_counts(device: Device, kind: Kind) -> tuple[int, ...]:
    """Numbers of channels to try in turn: some devices require two, some all that they have."""
    most = device.channels(kind)
    return tuple(dict.fromkeys((1, min(2, most), most)))


def choose_shape(backend: Backend, device: Device, kind: Kind, sample_rate: int) -> tuple[int, int]:
    """Rate and channels to open a device with: the model's rate if possible, and as few channels as it accepts.

    Raises:
        DeviceError: it accepts none; the message repeats its reason.
    """
    rates = dict.fromkeys((sample_rate, device.sample_rate, *_INSTEAD_HZ))
    said = None
    for rate in rates:
        for channels in channel_counts(device, kind):
            refusal = backend.refusal(device, kind, rate, channels)
            if refusal is None:
                return rate, channels
            said = said or refusal
    tried = ", ".join(f"{rate}" for rate in rates)
    raise DeviceError(
        f"the audio {kind} {device.name!r} refuses {tried} Hz ({said}): close other programs that use it, "
        "or choose another device"
    )
