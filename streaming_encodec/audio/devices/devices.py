"""Sound devices as this package sees them: what there is, which one is meant, and the rate it is opened at.

PortAudio calls one moment of all channels a frame; here that is a sample.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from streaming_encodec.audio.devices.bell import Bell
from streaming_encodec.audio.devices.port import Kind, Port
from streaming_encodec.errors import DeviceError

_INSTEAD_HZ = (48_000, 44_100, 32_000, 16_000)
"""Tried in turn where a device has neither the model's rate nor a rate of its own that works."""

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
        """How many channels it has that way."""
        return self.input_channels if kind == "input" else self.output_channels

    def is_default(self, kind: Kind) -> bool:
        """Whether the system takes it where none is named."""
        return self.is_default_input if kind == "input" else self.is_default_output


_IN_THE_ROOM = ("speaker", "built-in", "internal", "hdmi", "displayport", "monitor", "soundbar", "tv")
_AT_THE_EAR = ("head", "ear", "buds", "airpod")


def likely_loudspeaker(name: str) -> bool:
    """Whether a device with this name is heard in the room, and by the microphone; names are all there is to go by."""
    lower = name.casefold()
    return any(word in lower for word in _IN_THE_ROOM) and not any(word in lower for word in _AT_THE_EAR)


class DeviceStream(Protocol):
    """An open device that calls back; ``port`` is where its sound goes or comes from."""

    @property
    def port(self) -> Port: ...

    @property
    def active(self) -> bool:
        """Whether it still runs."""
        ...

    def close(self) -> None:
        """Stop calling back and give the device up."""
        ...


class Backend(Protocol):
    """A way to sound devices: PortAudio, or a test's made-up ones.

    bell: rings when a microphone's port has come to its ``wake_at``.
    """

    @property
    def bell(self) -> Bell: ...

    def devices(self) -> list[Device]:
        """What there is. Raises DeviceError where sound cannot be had at all."""
        ...

    def refusal(self, device: Device, kind: Kind, sample_rate: int, channels: int) -> str | None:
        """Why the device cannot be opened so; None if it can."""
        ...

    def open(
        self, device: Device, kind: Kind, sample_rate: int, channels: int, clock: Callable[[], float]
    ) -> DeviceStream:
        """Open it and let it call back from now on. Raises DeviceError.

        clock: seconds, of the port's reader.
        """
        ...

    def refresh(self) -> None:
        """Look again for devices that came or went: what is listed soon after knows of them. Streams that are open
        go on. Raises DeviceError."""
        ...


def find_device(devices: Sequence[Device], kind: Kind, wanted: str | int | None) -> Device:
    """The device meant: by its number, by a part of its name, or the system's default.

    Raises:
        DeviceError: none fits, or several do; the message says what there is and how to get one.
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
    """The number by which a device is meant; None where it is meant by its name, or is the default."""
    return int(wanted) if isinstance(wanted, int) or (wanted is not None and wanted.isdecimal()) else None


def find_again(devices: Sequence[Device], kind: Kind, known: Device) -> Device:
    """The device that was in use, whatever its number is now: PortAudio counts anew when one comes or goes.

    Raises:
        DeviceError: it is not there.
    """
    found = [d for d in devices if d.channels(kind) and (d.name, d.host) == (known.name, known.host)]
    if not found:
        raise DeviceError(f"the audio {kind} {known.name!r} is away: plug it in again, or choose another device")
    return next((device for device in found if device.index == known.index), found[0])


def channel_counts(device: Device, kind: Kind) -> tuple[int, ...]:
    """How many channels to ask for, in turn: some devices take two at least, some all that they have."""
    most = device.channels(kind)
    return tuple(dict.fromkeys((1, min(2, most), most)))


def choose_shape(backend: Backend, device: Device, kind: Kind, sample_rate: int) -> tuple[int, int]:
    """Rate and channels to open a device with: the model's rate if it can be had, and as few channels as it
    takes.

    Raises:
        DeviceError: the device takes none; the message repeats what it says.
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
