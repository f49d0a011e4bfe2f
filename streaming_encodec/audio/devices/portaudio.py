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

from streaming_encodec.audio.devices.devices import Device, DeviceStream
from streaming_encodec.audio.devices.port import Kind, Port, SharedFile
from streaming_encodec.audio.devices.portaudio_process import WAKE
from streaming_encodec.audio.devices.wakeup import Wakeup
from streaming_encodec.errors import DeviceError

HOW_TO_GET_PORTAUDIO = (
    "install it with `apt install libportaudio2` (Debian, Ubuntu), `dnf install portaudio` (Fedora) or "
    "`brew install portaudio` (macOS)"
)

_COMMAND = (sys.executable, "-m", "streaming_encodec.audio.devices.portaudio_process")
_BEGIN_S = 30.0
_ANSWER_S = 5.0
_GOODBYE_S = 0.5
"""How long a process may take to start, to answer, and to close a device. PortAudio itself waits up to ten minutes for
a JACK server that has ended."""


class PortAudio:
    """The devices that PortAudio finds.

    command: starts the process. goodbye_s: how long a device may take to close before its process is killed.
    """

    def __init__(self, command: Sequence[str] = _COMMAND, goodbye_s: float = _GOODBYE_S) -> None:
        self._command, self._goodbye_s = command, goodbye_s
        self.wakeup = Wakeup()
        self._process: _Process | None = None
        self._coming: _Process | None = None

    def devices(self) -> list[Device]:
        """All devices of all host interfaces. Raises DeviceError if PortAudio is missing or broken."""
        try:
            return [Device(**device) for device in self._ask("devices")]
        except _RefusedError as error:
            raise DeviceError(f"PortAudio cannot list the devices: {error}") from error

    def version(self) -> str:
        """PortAudio's version. Raises DeviceError if it is missing or broken."""
        return str(self._ask("version"))

    def refusal(self, device: Device, kind: Kind, sample_rate: int, channels: int) -> str | None:
        """Why the device cannot be opened with these settings; None if it can."""
        try:
            self._ask("refusal", kind=kind, device=device.index, sample_rate=sample_rate, channels=channels)
        except _RefusedError as error:
            return str(error)
        return None

    def open(
        self, device: Device, kind: Kind, sample_rate: int, channels: int, clock: Callable[[], float]
    ) -> DeviceStream:
        """Open it and start its callbacks. Raises DeviceError: busy, gone, or refused."""
        process = self._running()
        shared = SharedFile(Port.size(kind, sample_rate, channels))
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
        """Search again for devices. PortAudio lists them only when it starts, so another process is started, and used
        once it is ready; open devices continue."""
        if self._coming is None or not self._coming.may_still_begin():
            self._coming = _Process(self._command, self.wakeup)

    def _ask(self, what: str, **more: Any) -> Any:
        return self._running().ask(what, **more)

    def _running(self) -> _Process:
        """The process to ask. Waits for the first only: a call does not wait for a new one."""
        if self._process is None:
            process = _Process(self._command, self.wakeup)
            process.wait_until_begun()
            self._process = process
        if self._coming is not None and self._coming.has_begun():
            self._process, self._coming = self._coming, None
        if not self._process.alive:
            self.refresh()
            raise DeviceError("PortAudio has ended and is being restarted: try again")
        return self._process


class _RefusedError(Exception):
    """PortAudio refused a request."""


class _Process:
    """A PortAudio process; it is killed when the last reference to this object is gone."""

    def __init__(self, command: Sequence[str], wakeup: Wakeup) -> None:
        inherits = (wakeup.number,) if os.name == "posix" else ()
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
        # Not a method, which would hold a reference to self.
        listening = (self._process, self._answers, wakeup)
        threading.Thread(target=_listen, args=listening, name="streaming-encodec-card", daemon=True).start()
        self._finalizer = weakref.finalize(self, _end, self._process)

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def ask(self, what: str, *, within_s: float = _ANSWER_S, **more: Any) -> Any:
        """The answer to a request. Raises _RefusedError; or DeviceError without an answer, and kills the process."""
        with self._lock:
            answer = self._answer(json.dumps({"ask": what, **more}), within_s) if self.alive else None
        if answer is None:
            self.end()
            raise DeviceError("PortAudio does not answer, or has ended: is the audio service of this system running?")
        if "refused" in answer:
            raise _RefusedError(answer["refused"])
        return answer["is"]

    def _answer(self, request: str, within_s: float) -> dict[str, Any] | None:
        with suppress(OSError):  # it has just ended: then there is no answer either
            assert self._process.stdin is not None
            self._process.stdin.write(request.encode() + b"\n")
            self._process.stdin.flush()
        return self._next(within_s)

    def wait_until_begun(self) -> None:
        """Wait until it is ready. Raises DeviceError, which says what to do."""
        hello = self._next(_BEGIN_S)
        if hello == {}:
            return
        self.end()
        if hello is None:
            raise DeviceError("PortAudio does not start: is the audio service of this system running?")
        if "missing" in hello:
            raise DeviceError(f"PortAudio is not on this machine: {HOW_TO_GET_PORTAUDIO}")
        raise DeviceError(f"PortAudio cannot start ({hello['broken']}): is the audio service of this system running?")

    def may_still_begin(self) -> bool:
        """Whether it may still become ready."""
        return self.alive and time.monotonic() - self._since < _BEGIN_S

    def has_begun(self) -> bool:
        """Whether it is ready, without waiting. Kills a process that failed to start."""
        hello = self._next(0.0)
        if hello:
            self.end()
        return hello == {}

    def end(self) -> None:
        """Kill the process."""
        self._finalizer()

    def _next(self, within_s: float) -> dict[str, Any] | None:
        with suppress(queue.Empty):
            return self._answers.get(timeout=within_s)
        return None


def _listen(
    process: subprocess.Popen[bytes], answers: queue.SimpleQueue[dict[str, Any] | None], wakeup: Wakeup
) -> None:
    """Pass on the answers of the process, until it ends."""
    assert process.stdout is not None
    with process.stdout as said:
        for line in said:
            if line == WAKE:
                wakeup.set()
            else:
                answers.put(json.loads(line))
    answers.put(None)
    wakeup.set()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    if process.stdin is not None:
        with suppress(OSError):  # unwritten bytes
            process.stdin.close()
    with suppress(subprocess.TimeoutExpired):  # blocked in the kernel
        process.wait(_GOODBYE_S)


class _Stream:
    """An open device of a PortAudio process."""

    def __init__(self, process: _Process, number: int, port: Port, goodbye_s: float) -> None:
        self._process, self._number, self.port, self._goodbye_s = process, number, port, goodbye_s

    @property
    def active(self) -> bool:
        """Whether it still runs."""
        return not self.port.ended and self._process.alive

    def close(self) -> None:
        """Close it; if that takes too long, its process is killed, with all of its devices."""
        with suppress(DeviceError, _RefusedError):
            self._process.ask("close", within_s=self._goodbye_s, stream=self._number)
