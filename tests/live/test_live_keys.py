"""Keys and signals while a call runs: what each does, and that a terminal gives keys at once and without echo."""

from __future__ import annotations

import io
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from device_kit import FakeBackend, FakeStream

from streaming_encodec.audio.devices.card import SoundCard
from streaming_encodec.audio.files.writer import AudioWriter
from streaming_encodec.cli.commands import demo
from streaming_encodec.cli.shared.interrupt import Interrupt
from streaming_encodec.cli.shared.keyboard import Keyboard
from streaming_encodec.cli.shared.live_command import LiveSession, change_bandwidth, next_bandwidth
from streaming_encodec.live.figures import CallFigures
from streaming_encodec.live.loop import LiveLoop
from streaming_encodec.voice.network import NetworkImpairment
from streaming_encodec.wire.packet import StreamFormat

LOADED: Any = SimpleNamespace(config=SimpleNamespace(target_bandwidths=(1.5, 3.0, 6.0, 12.0)))


class Line:
    """Silence."""

    format, packet_samples = StreamFormat("0" * 32), 320

    def send(self, pcm: np.ndarray) -> None: ...

    def on_packet(self, observer: Callable[[bytes, float], object]) -> None: ...

    def read_whole(self, count: int, now_s: float, *, certain: bool) -> np.ndarray | None:
        return None if certain else np.zeros((1, count), np.float32)

    def figures(self) -> CallFigures:
        return CallFigures()


def live_loop(card: SoundCard, **options: Any) -> LiveLoop:
    """A loop between a card and silence."""
    line = Line()
    return LiveLoop(card, line, line, line.figures, **options)


class Typist(Keyboard):
    """One key at each look."""

    def __init__(self, keys: str) -> None:
        super().__init__()
        self._keys = list(keys)

    def poll(self) -> str:
        return self._keys.pop(0) if self._keys else ""


def test_bandwidth_goes_up_and_down_the_models_ladder() -> None:
    known = (6.0, 1.5, 12.0, 3.0)
    assert [next_bandwidth(known, kbps, up=True) for kbps in (1.5, 6.0, 12.0)] == [3.0, 12.0, 12.0]
    assert [next_bandwidth(known, kbps, up=False) for kbps in (1.5, 6.0, 12.0)] == [1.5, 3.0, 6.0]


def test_keys_of_the_demo() -> None:
    call: Any = SimpleNamespace(speaker=SimpleNamespace(bandwidth=6.0), impairment=NetworkImpairment())
    for key, settings in (
        ("+", "12 kbps, 0 % loss, 0 ms jitter"),
        ("-", "6 kbps, 0 % loss, 0 ms jitter"),
        ("l", "6 kbps, 1 % loss, 0 ms jitter"),
        ("j", "6 kbps, 1 % loss, 5 ms jitter"),
        ("l", "6 kbps, 5 % loss, 5 ms jitter"),
        ("x", "6 kbps, 5 % loss, 5 ms jitter"),
    ):
        demo._on_key(key, LOADED, call)
        assert demo._settings(call) == settings
    for _ in range(4):  # from the worst back to the best
        demo._on_key("l", LOADED, call)
    assert call.impairment.loss == 0.0


def test_keys_of_talk() -> None:
    line: Any = SimpleNamespace(bandwidth=6.0)
    change_bandwidth("-", LOADED.config.target_bandwidths, line)
    assert line.bandwidth == 3.0


def test_m_mutes_and_q_ends() -> None:
    loop = live_loop(SoundCard(24_000, backend=FakeBackend()))
    others: list[str] = []
    session = LiveSession(loop, settings=lambda: "", keys="", on_key=others.append, keyboard=Typist("mz+mmq"))
    begin = time.monotonic()
    session.run(seconds=60.0)
    assert time.monotonic() - begin < 30
    assert loop.muted
    assert others == ["z", "+"]


@pytest.mark.skipif(sys.platform == "win32", reason="a terminal of this kind is Unix's")
def test_a_terminal_gives_keys_at_once_and_is_itself_again_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    import termios

    master, slave = os.openpty()
    with os.fdopen(slave, "r") as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        before = termios.tcgetattr(terminal)
        with Keyboard() as keyboard:
            assert keyboard.poll() == ""
            os.write(master, b"+m")  # no line end
            assert keyboard.poll() == "+m"
            echo = termios.tcgetattr(terminal)[3] & termios.ECHO
            assert not echo
        assert termios.tcgetattr(terminal) == before
    os.close(master)


class Signals(Keyboard):
    """A look after which somebody sends signals."""

    def __init__(self, *numbers: int) -> None:
        super().__init__()
        self._numbers = numbers

    def poll(self) -> str:
        for number in self._numbers:
            assert signal.getsignal(number) is not signal.SIG_DFL, "it would end the tests"
            signal.raise_signal(number)
        return super().poll()


ENDS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


@pytest.fixture
def handlers() -> Iterator[None]:
    """The signals' handlers are as they were, whatever the test did."""
    before = [(number, signal.getsignal(number)) for number in ENDS]
    for number in ENDS:
        if signal.getsignal(number) is signal.SIG_IGN:  # the tests may run under `nohup`
            signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before:
        signal.signal(number, handler)


def record(path: Path, keyboard: Keyboard) -> LiveSession:
    """A session that records what it hears, until the keyboard ends it."""
    with AudioWriter(path, 24_000) as writer:
        loop = live_loop(SoundCard(24_000, backend=FakeBackend()), on_output=writer.write)
        session = LiveSession(loop, settings=lambda: "", keys="", on_key=lambda _: None, keyboard=keyboard)
        session.run(seconds=60.0)
    return session


@pytest.mark.parametrize("number", ENDS)
def test_whatever_ends_the_program_the_recording_is_kept(number: int, tmp_path: Path, handlers: None) -> None:
    before = [signal.getsignal(end) for end in ENDS]
    twice = (number, number) if number != signal.SIGINT else (number,)  # a closed terminal says so twice
    session = record(tmp_path / "call.wav", Signals(*twice))
    assert session.facts()["seconds"] < 30
    assert soundfile.info(tmp_path / "call.wav").frames > 0
    assert os.listdir(tmp_path) == ["call.wav"]
    assert [signal.getsignal(end) for end in ENDS] == before


def test_one_more_ctrl_c_is_in_a_hurry(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        record(tmp_path / "call.wav", Signals(signal.SIGINT, signal.SIGINT))
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(sys.platform == "win32", reason="`nohup` and its signal are Unix's")
def test_what_nohup_ignores_stays_ignored(handlers: None) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with Interrupt() as interrupt:
        signal.raise_signal(signal.SIGHUP)
        assert not interrupt.requested


@pytest.mark.skipif(sys.platform == "win32", reason="a terminal of this kind is Unix's")
def test_a_terminal_that_is_closed_does_not_cost_the_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, handlers: None
) -> None:
    """Nothing can be painted any more, and nobody's settings put back."""
    master, slave = os.openpty()

    class Closed(Signals):
        def poll(self) -> str:
            os.close(master)
            return super().poll()

    with os.fdopen(slave, "r+b", buffering=0) as raw, io.TextIOWrapper(raw, write_through=True) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setenv("TERM", "xterm")
        record(tmp_path / "call.wav", Closed(signal.SIGHUP))
        monkeypatch.undo()
    assert os.listdir(tmp_path) == ["call.wav"]


class LeavesStarving(Keyboard):
    """Ends at the first look; while the session is being undone the card takes more than there is."""

    def __init__(self, speaker: FakeStream) -> None:
        super().__init__()
        self._speaker = speaker

    def poll(self) -> str:
        return "q"

    def __exit__(self, *exception: Any) -> None:
        for _ in range(10):
            self._speaker.turn(2_400)
        super().__exit__(*exception)


def test_what_the_card_misses_after_the_end_does_not_count() -> None:
    backend = FakeBackend()
    card = SoundCard(24_000, backend=backend)
    keyboard = LeavesStarving(backend.stream("output"))
    session = LiveSession(live_loop(card), settings=lambda: "", keys="", on_key=print, keyboard=keyboard)
    facts = session.run(seconds=60.0)
    assert card.counts.underruns > 0
    assert facts["underruns"] == 0
