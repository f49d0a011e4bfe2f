"""PortAudio's streams where the sound server no longer answers, answers late, or refuses."""

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from streaming_encodec.audio import portaudio
from streaming_encodec.audio.devices import Device
from streaming_encodec.audio.portaudio import PortAudio
from streaming_encodec.errors import DeviceError

DEVICE = Device(0, "headset", "JACK", 1, 1, 24_000)


class Stream:
    """Closes when ``answered`` is set."""

    active = True
    refuses = False

    def __init__(self, answered: threading.Event) -> None:
        self.answered, self.closed = answered, 0

    def start(self) -> None:
        if self.refuses:
            raise OSError("Device unavailable")

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


def test_a_server_that_answers_late_has_sound_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exit handler, which would wait too, is taken away only while somebody waits."""
    at_exit: list[str] = []
    atexit = SimpleNamespace(register=lambda _: at_exit.append("back"), unregister=lambda _: at_exit.append("away"))
    monkeypatch.setattr(portaudio, "atexit", atexit)
    monkeypatch.setattr(portaudio, "_GOODBYE_S", 0.01)
    answered = threading.Event()
    streams = [Stream(answered) for _ in range(3)]
    backend = backend_of(streams)
    first, second = opened(backend), opened(backend)
    first.close()
    second.close()
    assert not backend.can_refresh()
    assert at_exit == ["away"]
    answered.set()
    closing = backend._closing
    assert closing is not None
    closing.join(20)
    assert [stream.closed for stream in streams] == [1, 1, 0]  # the second one's turn came after the first
    assert backend.can_refresh()
    assert opened(backend).active
    assert at_exit == ["away", "back"]


def test_a_stream_that_does_not_start_is_closed() -> None:
    answered = threading.Event()
    answered.set()
    stream = Stream(answered)
    stream.refuses = True
    with pytest.raises(DeviceError, match="Device unavailable"):
        opened(backend_of([stream]))
    assert stream.closed == 1


def test_portaudio_that_does_not_begin_anew_is_an_error_and_is_tried_again() -> None:
    did: list[str] = []

    def initialize() -> None:
        did.append("begin")
        if did.count("begin") < 3:
            raise OSError("Unanticipated host error")

    backend = backend_of([])
    backend._library._terminate = lambda: did.append("end")
    backend._library._initialize = initialize
    for _ in range(2):
        with pytest.raises(DeviceError, match=r"Unanticipated host error.*audio service"):
            backend.refresh()
    backend.refresh()
    assert did == ["end", "begin", "begin", "begin"]  # what has ended cannot be ended again
    backend.refresh()
    assert did[4:] == ["end", "begin"]
