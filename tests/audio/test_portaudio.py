"""PortAudio's streams where the sound server no longer answers."""

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from streaming_encodec.audio.devices import Device
from streaming_encodec.audio.portaudio import PortAudio
from streaming_encodec.errors import DeviceError

DEVICE = Device(0, "headset", "JACK", 1, 1, 24_000)


class Stream:
    """Closes when ``answered`` is set."""

    active = True

    def __init__(self, answered: threading.Event) -> None:
        self.answered, self.closed = answered, 0

    def start(self) -> None: ...

    def close(self) -> None:
        self.closed += 1
        self.answered.wait(20)


def backend_of(streams: list[Stream]) -> PortAudio:
    rest = iter(streams)
    backend = PortAudio()
    backend._library = SimpleNamespace(  # what it uses of `sounddevice`
        InputStream=lambda **_: next(rest),
        PortAudioError=OSError,
        _exit_handler=lambda: None,
        _terminate=lambda: pytest.fail("PortAudio ends with streams that wait"),
    )
    return backend


def opened(backend: PortAudio) -> Any:
    return backend.open(DEVICE, "input", 24_000, 1, lambda *_: None)


def test_a_server_that_never_answers_is_not_waited_for() -> None:
    answered = threading.Event()
    streams = [Stream(answered), Stream(answered)]
    backend = backend_of(streams)
    first, second = opened(backend), opened(backend)
    begin = time.monotonic()
    first.close()
    second.close()
    assert time.monotonic() - begin < 10
    assert [stream.closed for stream in streams] == [1, 0]  # one that waits is enough
    for attempt in (backend.refresh, lambda: opened(backend)):
        with pytest.raises(DeviceError, match="start the program again"):
            attempt()
    answered.set()


def test_a_server_that_answers_is_waited_for() -> None:
    answered = threading.Event()
    answered.set()
    streams = [Stream(answered), Stream(answered)]
    backend = backend_of(streams)
    stream = opened(backend)
    assert stream.active
    stream.close()
    opened(backend).close()
    assert [stream.closed for stream in streams] == [1, 1]
