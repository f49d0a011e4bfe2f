"""PortAudio in a process of its own: `python -m streaming_encodec.audio.devices.portaudio_process`.

When a sound server ends or a device is unplugged, PortAudio can loop endlessly (its issue 1037, in all versions up to
19.7), wait for minutes, or abort its process; and it sees new devices only when it starts. A process of its own can be
killed and restarted while everything else continues.

Requests and answers are JSON, one a line; sound passes through memory that both processes map (see `port`). The
`Wakeup` whose number is the argument wakes the thread that waits for the microphone; if it can't be inherited
(Windows), a line `!` among the answers does.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from streaming_encodec.audio.devices.port import Port, SharedFile
from streaming_encodec.audio.devices.ring import Block

WAKE = b"!\n"


class Server:
    """Answers requests about one PortAudio. ``wake``: called by a microphone's callback."""

    def __init__(self, sd: Any, wake: Callable[[], None]) -> None:
        self._sd, self._wake = sd, wake
        self._streams: list[Any] = []

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The result of a request, or why it was refused."""
        try:
            return {"is": getattr(self, f"_{request.pop('ask')}")(**request)}
        except (self._sd.PortAudioError, ValueError) as error:
            return {"refused": str(error).splitlines()[0] if str(error) else type(error).__name__}

    def _version(self) -> str:
        return str(self._sd.get_portaudio_version()[1])

    def _devices(self) -> list[dict[str, Any]]:
        hosts, devices = self._sd.query_hostapis(), self._sd.query_devices()
        default_input, default_output = (
            _jack_itself(number, kind, hosts, devices)
            for number, kind in zip(self._sd.default.device, ("input", "output"), strict=True)
        )
        return [
            {
                "index": device["index"],
                "name": device["name"],
                "host": hosts[device["hostapi"]]["name"],
                "input_channels": device["max_input_channels"],
                "output_channels": device["max_output_channels"],
                "sample_rate": round(device["default_samplerate"]),
                "is_default_input": device["index"] == default_input,
                "is_default_output": device["index"] == default_output,
            }
            for device in devices
        ]

    def _refusal(self, kind: str, device: int, sample_rate: int, channels: int) -> None:
        check = self._sd.check_input_settings if kind == "input" else self._sd.check_output_settings
        check(device=device, channels=channels, dtype="float32", samplerate=sample_rate)

    def _open(self, kind: str, device: int, sample_rate: int, channels: int, memory: str) -> int:
        port = Port("input" if kind == "input" else "output", sample_rate, channels, memory=SharedFile.map(memory))

        def on_input(block: Block, count: int, time: Any, status: Any) -> None:
            if port.take_block(block, time.currentTime - time.inputBufferAdcTime, bool(status)):
                self._wake()

        def on_output(block: Block, count: int, time: Any, status: Any) -> None:
            port.fill_block(block, time.outputBufferDacTime - time.currentTime, bool(status))

        make = self._sd.RawInputStream if kind == "input" else self._sd.RawOutputStream  # bytes: no numpy in here
        stream = make(
            device=device,
            samplerate=sample_rate,
            channels=channels,
            dtype="float32",
            blocksize=0,  # the device's own blocks: any other size costs a block more of delay
            latency="low",
            callback=on_input if kind == "input" else on_output,
            finished_callback=port.end,
        )
        try:
            stream.start()
        except Exception:
            stream.close()
            raise
        self._streams.append(stream)
        return len(self._streams) - 1

    def _close(self, stream: int) -> None:
        self._streams[stream].close()


def _jack_itself(number: int, kind: str, hosts: Any, devices: Any) -> int:
    """The default device; JACK's own where it is ALSA's plug-in for JACK, which knows less of the delay.

    That plug-in (Debian's libasound2-plugins) is there while a JACK server runs, and PortAudio asks ALSA first.
    """
    alsa = next((host for host in hosts if host["name"] == "ALSA"), None)
    jack = next((host for host in hosts if host["name"].startswith("JACK")), None)
    if alsa is None or jack is None or number not in alsa["devices"] or devices[number]["name"] != "jack":
        return number
    return int(jack[f"default_{kind}_device"])


def main() -> None:
    """Answer until the input ends."""
    # Ctrl-C reaches all processes of a terminal; this one ends when its parent has closed the devices or is gone.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    wakeup = int(sys.argv[1]) if len(sys.argv) > 1 else None
    answers = os.dup(1)
    os.dup2(2, 1)  # what a library prints must not mix with the answers
    try:
        import sounddevice as sd
    except Exception as error:  # whatever the cause: the parent process reports it
        missing = isinstance(error, OSError)
        os.write(answers, json.dumps({"missing" if missing else "broken": str(error)}).encode() + b"\n")
        return
    os.write(answers, b"{}\n")

    def wake() -> None:
        with suppress(BlockingIOError):  # it is set already
            os.write(wakeup, b"!") if wakeup is not None else os.write(answers, WAKE)

    server = Server(sd, wake)
    for line in sys.stdin:
        os.write(answers, json.dumps(server.answer(json.loads(line))).encode() + b"\n")
    os._exit(0)  # PortAudio's shutdown may wait for a server that is gone


if __name__ == "__main__":
    with suppress(BrokenPipeError):
        main()
