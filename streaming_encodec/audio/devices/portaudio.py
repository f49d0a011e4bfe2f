"""Devices through PortAudio (the `sounddevice` package), in a process of its own: `portaudio_process` says why."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from streaming_encodec.audio.devices.bell import Bell
from streaming_encodec.audio.devices.devices import Device, DeviceStream
from streaming_encodec.audio.devices.port import Kind, Port, SharedFile
from streaming_encodec.audio.devices.portaudio_process import WAKE
from streaming_encodec.errors import DeviceError

HOW_TO_GET_PORTAUDIO = (
    "install it with `apt install libportaudio2` (Debian, Ubuntu), `dnf install portaudio` (Fedora) or "
    "`brew install portaudio` (macOS)"
)

_COMMAND = (sys.executable, "-m", "streaming_encodec.audio.devices.portaudio_process")
_BEGIN_S = 30.0
_ANSWER_S = 5.0
_GOODBYE_S = 0.5
"""How long a process may take to begin, to answer, and to close a device. PortAudio waits up to ten minutes for a JACK
server that has ended to say goodbye; a call doesn't."""


class PortAudio:
    """The devices that PortAudio finds.

    command: of the process. goodbye_s: how long a device may take to close before its process is ended.
    """

    def __init__(self, command: Sequence[str] = _COMMAND, goodbye_s: float = _GOODBYE_S) -> None:
        self._command, self._goodbye_s = command, goodbye_s
        self.bell = Bell()
        self._process: _Process | None = None
        self._coming: _Process | None = None

    def devices(self) -> list[Device]:
        """All devices of all host interfaces. Raises DeviceError where PortAudio is missing or broken."""
        try:
            return [Device(**device) for device in self._ask("devices")]
        except _RefusedError as error:
            raise DeviceError(f"PortAudio cannot list the devices: {error}") from error

    def version(self) -> str:
        """What PortAudio calls itself. Raises DeviceError where it is missing or broken."""
        return str(self._ask("version"))

    def refusal(self, device: Device, kind: Kind, sample_rate: int, channels: int) -> str | None:
        """Why the device cannot be opened so; None if it can."""
        try:
            self._ask("refusal", kind=kind, device=device.index, sample_rate=sample_rate, channels=channels)
        except _RefusedError as error:
            return str(error)
        return None

    def open(
        self, device: Device, kind: Kind, sample_rate: int, channels: int, clock: Callable[[], float]
    ) -> DeviceStream:
        """Open it and let it call back. Raises DeviceError: busy, gone, or refuses."""
        process = self._running()
        shared = SharedFile(Port.size(sample_rate, channels))
        port = Port(kind, sample_rate, channels, memory=shared.memory, clock=clock)
        try:
            number = process.ask(
                "open",
                kind=kind,
                device=device.index,
                sample_rate=sample_rate,
                channels=channels,
                memory=str(shared.path),
            )
        except _RefusedError as error:
            raise DeviceError(
                f"the audio {kind} {device.name!r} cannot be opened ({error}): is another program "
                "using it? close that, or choose another device (`streaming-encodec devices`)"
            ) from error
        finally:
            shared.unlink()
        return _Stream(process, number, port, self._goodbye_s)

    def refresh(self) -> None:
        """Have PortAudio look again: it lists devices only when it begins, so another one does, and is asked once it
        can be; what is open goes on."""
        if self._coming is None or not self._coming.may_still_begin():
            self._coming = _Process(self._command, self.bell)

    def _ask(self, what: str, **more: Any) -> Any:
        return self._running().ask(what, **more)

    def _running(self) -> _Process:
        """Waits for the first only: in a call nobody waits for one that begins."""
        if self._process is None:
            process = _Process(self._command, self.bell)
            process.wait_until_begun()
            self._process = process
        if self._coming is not None and self._coming.has_begun():
            self._process, self._coming = self._coming, None
        if not self._process.alive:
            self.refresh()
            raise DeviceError("PortAudio has ended and begins again: try once more")
        return self._process


class _RefusedError(Exception):
    """What PortAudio says to a wish."""


class _Process:
    """A process with a PortAudio; ended with the last that holds it."""

    def __init__(self, command: Sequence[str], bell: Bell) -> None:
        inherits = (bell.number,) if os.name == "posix" else ()
        try:
            self._process = subprocess.Popen(
                [*command, *map(str, inherits)],
                pass_fds=inherits,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
        except OSError as error:
            raise DeviceError(f"no process for sound devices ({error}): is {command[0]} Python?") from error
        self._answers: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._lock, self._since = threading.Lock(), time.monotonic()
        # Not a method, which would keep this alive: so the process ends with who uses it.
        listening = (self._process, self._answers, bell)
        threading.Thread(target=_listen, args=listening, name="streaming-encodec-card", daemon=True).start()
        self._finalizer = weakref.finalize(self, _end, self._process)

    @property
    def alive(self) -> bool:
        """Whether it can still be asked."""
        return self._process.poll() is None

    def ask(self, what: str, *, within_s: float = _ANSWER_S, **more: Any) -> Any:
        """Its answer. Raises _RefusedError, or DeviceError where it has none: then it is ended."""
        with self._lock:
            answer = self._answer(json.dumps({"ask": what, **more}), within_s) if self.alive else None
        if answer is None:
            self.end()
            raise DeviceError("PortAudio does not answer, or has ended: is the audio service of this system running?")
        if "refused" in answer:
            raise _RefusedError(answer["refused"])
        return answer["is"]

    def _answer(self, request: str, within_s: float) -> dict[str, Any] | None:
        with suppress(OSError):  # it has ended just now: then there is no answer either
            assert self._process.stdin is not None
            self._process.stdin.write(request.encode() + b"\n")
            self._process.stdin.flush()
        return self._next(within_s)

    def wait_until_begun(self) -> None:
        """Raises DeviceError where that fails, and says what to do."""
        hello = self._next(_BEGIN_S)
        if hello == {}:
            return
        self.end()
        if hello is None:
            raise DeviceError("PortAudio does not begin: is the audio service of this system running?")
        if "missing" in hello:
            raise DeviceError(f"PortAudio is not on this machine: {HOW_TO_GET_PORTAUDIO}")
        raise DeviceError(f"PortAudio cannot begin ({hello['broken']}): is the audio service of this system running?")

    def may_still_begin(self) -> bool:
        """Whether it is worth waiting for."""
        return self.alive and time.monotonic() - self._since < _BEGIN_S

    def has_begun(self) -> bool:
        """Whether it can be asked; looks only. One that failed is not alive from then on."""
        hello = self._next(0.0)
        if hello:
            self.end()
        return hello == {}

    def end(self) -> None:
        """End it, whatever it does."""
        self._finalizer()

    def _next(self, within_s: float) -> dict[str, Any] | None:
        with suppress(queue.Empty):
            return self._answers.get(timeout=within_s)
        return None


def _listen(process: subprocess.Popen[bytes], answers: queue.SimpleQueue[dict[str, Any] | None], bell: Bell) -> None:
    """Pass on what the process says, until it ends."""
    assert process.stdout is not None
    with process.stdout as said:
        for line in said:
            if line == WAKE:
                bell.ring()
            else:
                answers.put(json.loads(line))
    answers.put(None)
    bell.ring()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    if process.stdin is not None:
        with suppress(OSError):  # what was not yet written
            process.stdin.close()
    with suppress(subprocess.TimeoutExpired):  # the system itself holds it
        process.wait(_GOODBYE_S)


class _Stream:
    """An open device of a process."""

    def __init__(self, process: _Process, number: int, port: Port, goodbye_s: float) -> None:
        self._process, self._number, self.port, self._goodbye_s = process, number, port, goodbye_s

    @property
    def active(self) -> bool:
        """Whether it still runs."""
        return not self.port.ended and self._process.alive

    def close(self) -> None:
        """Stop it; where that does not work within a moment, its process ends, with all that it has open."""
        with suppress(DeviceError, _RefusedError):
            self._process.ask("close", within_s=self._goodbye_s, stream=self._number)
