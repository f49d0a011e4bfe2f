"""Devices through PortAudio (the `sounddevice` package). The library is loaded when it is first asked."""

from __future__ import annotations

import atexit
import threading
from typing import Any

from streaming_encodec.audio.devices import Callback, Device, DeviceStream, Kind
from streaming_encodec.audio.ring import Block
from streaming_encodec.errors import DeviceError

HOW_TO_GET_PORTAUDIO = (
    "install it with `apt install libportaudio2` (Debian, Ubuntu), `dnf install portaudio` (Fedora) or "
    "`brew install portaudio` (macOS)"
)

_GOODBYE_S = 0.5
"""PortAudio waits up to ten minutes for a JACK server that has ended to say goodbye; a call doesn't."""


class PortAudio:
    """The devices that PortAudio finds."""

    def __init__(self) -> None:
        self._library: Any = None
        self._closing: threading.Thread | None = None  # the last that did not end at once
        self._has_ended = False  # between an end that went well and a beginning that did not

    def devices(self) -> list[Device]:
        """All devices of all host interfaces. Raises DeviceError where PortAudio is missing or broken."""
        sd = self._load()
        try:
            hosts = sd.query_hostapis()
            found = sd.query_devices()
            default_input, default_output = sd.default.device
        except sd.PortAudioError as error:
            raise DeviceError(f"PortAudio cannot list the devices: {_reason(error)}") from error
        return [
            Device(
                index=device["index"],
                name=device["name"],
                host=hosts[device["hostapi"]]["name"],
                input_channels=device["max_input_channels"],
                output_channels=device["max_output_channels"],
                sample_rate=round(device["default_samplerate"]),
                is_default_input=device["index"] == default_input,
                is_default_output=device["index"] == default_output,
            )
            for device in found
        ]

    def version(self) -> str:
        """What PortAudio calls itself. Raises DeviceError where it is missing."""
        return str(self._load().get_portaudio_version()[1])

    def refusal(self, device: Device, kind: Kind, sample_rate: int, channels: int) -> str | None:
        """Why the device cannot be opened so; None if it can."""
        sd = self._load()
        check = sd.check_input_settings if kind == "input" else sd.check_output_settings
        try:
            check(device=device.index, channels=channels, dtype="float32", samplerate=sample_rate)
        except (sd.PortAudioError, ValueError) as error:
            return _reason(error)
        return None

    def open(self, device: Device, kind: Kind, sample_rate: int, channels: int, callback: Callback) -> DeviceStream:
        """Open it and let it call back. Raises DeviceError: busy, gone, or refuses."""
        sd = self._load()
        self._check_answers()

        def on_input(block: Block, count: int, time: Any, status: Any) -> None:
            callback(block, time.currentTime - time.inputBufferAdcTime, bool(status))

        def on_output(block: Block, count: int, time: Any, status: Any) -> None:
            callback(block, time.outputBufferDacTime - time.currentTime, bool(status))

        make = sd.InputStream if kind == "input" else sd.OutputStream
        stream = None
        try:
            stream = make(
                device=device.index,
                samplerate=sample_rate,
                channels=channels,
                dtype="float32",
                blocksize=0,  # the device's own blocks: any other size costs a block more of delay
                latency="low",
                callback=on_input if kind == "input" else on_output,
            )
            stream.start()
        except (sd.PortAudioError, ValueError) as error:
            if stream is not None:
                self.goodbye(stream)
            raise DeviceError(
                f"the audio {kind} {device.name!r} cannot be opened ({_reason(error)}): is another program "
                "using it? close that, or choose another device (`streaming-encodec devices`)"
            ) from error
        return _Stream(stream, self)

    def refresh(self) -> None:
        """Have PortAudio look again: it lists devices only when it starts. Raises DeviceError where it can't."""
        sd = self._load()
        self._check_answers()
        # sounddevice has no public way; its documentation names these two for the purpose.
        try:
            if not self._has_ended:
                sd._terminate()
                self._has_ended = True
            sd._initialize()
            self._has_ended = False
        except sd.PortAudioError as error:
            raise DeviceError(
                f"PortAudio cannot begin anew ({_reason(error)}): is the audio service of this system running?"
            ) from error

    def can_refresh(self) -> bool:
        """Whether `refresh` is worth closing all streams for: not while one is still being closed."""
        return not self._is_stuck()

    def goodbye(self, stream: Any) -> None:
        """Close a stream, but do not wait for an audio server that will never answer."""
        before = self._closing if self._is_stuck() else None
        closing = threading.Thread(
            target=_close_after, args=(before, stream), name="streaming-encodec-close", daemon=True
        )
        closing.start()
        if before is None:  # one that waits is enough
            closing.join(_GOODBYE_S)
            if not closing.is_alive():
                return
            # It would say goodbye at the end of the program, and wait again.
            atexit.unregister(self._library._exit_handler)
        self._closing = closing

    def _is_stuck(self) -> bool:
        """Whether a stream that was closed long ago is still not closed; some only take their time."""
        if self._closing is None:
            return False
        if self._closing.is_alive():
            return True
        self._closing = None
        atexit.register(self._library._exit_handler)
        return False

    def _check_answers(self) -> None:
        if self._is_stuck():
            raise DeviceError(
                "PortAudio still waits for a device or an audio server that went away: "
                "if sound does not come back by itself, start the program again"
            )

    def _load(self) -> Any:
        if self._library is None:
            try:
                import sounddevice
            except OSError as error:
                raise DeviceError(f"PortAudio is not on this machine: {HOW_TO_GET_PORTAUDIO}") from error
            self._library = sounddevice
        return self._library


class _Stream:
    """A stream of PortAudio's that is closed without waiting for long."""

    def __init__(self, stream: Any, backend: PortAudio) -> None:
        self._stream, self._backend = stream, backend

    @property
    def active(self) -> bool:
        return bool(self._stream.active)

    def close(self) -> None:
        self._backend.goodbye(self._stream)


def _close_after(before: threading.Thread | None, stream: Any) -> None:
    if before is not None:
        before.join()
    stream.close()


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
