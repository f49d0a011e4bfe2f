"""Keys while a call runs: what each does, and that a terminal gives them at once and without echo."""

from __future__ import annotations

import os
import sys
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from device_kit import FakeBackend

from streaming_encodec.audio.card import SoundCard
from streaming_encodec.cli import demo, talk
from streaming_encodec.cli.keyboard import Keyboard
from streaming_encodec.cli.live_run import LiveSession, next_bandwidth
from streaming_encodec.live.line import LineFigures
from streaming_encodec.live.loop import LiveLoop
from streaming_encodec.voice.detour import Detour

LOADED: Any = SimpleNamespace(config=SimpleNamespace(target_bandwidths=(1.5, 3.0, 6.0, 12.0)))


class Line:
    """Silence."""

    sample_rate, packet_samples, frame_samples = 24_000, 320, 320

    def send(self, pcm: np.ndarray) -> None: ...

    def read(self, count: int, now: float) -> np.ndarray:
        return np.zeros((1, count), np.float32)

    def figures(self) -> LineFigures:
        return LineFigures()

    def close(self) -> None: ...


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
    line: Any = SimpleNamespace(bandwidth=6.0, detour=Detour())
    for key, settings in (
        ("+", "12 kbps, 0 % loss, 0 ms jitter"),
        ("-", "6 kbps, 0 % loss, 0 ms jitter"),
        ("l", "6 kbps, 1 % loss, 0 ms jitter"),
        ("j", "6 kbps, 1 % loss, 5 ms jitter"),
        ("l", "6 kbps, 5 % loss, 5 ms jitter"),
        ("x", "6 kbps, 5 % loss, 5 ms jitter"),
    ):
        demo._on_key(key, LOADED, line)
        assert demo._settings(line) == settings
    for _ in range(4):  # from the worst back to the best
        demo._on_key("l", LOADED, line)
    assert line.detour.loss == 0.0


def test_keys_of_talk() -> None:
    line: Any = SimpleNamespace(bandwidth=6.0)
    talk._on_key("-", LOADED, line)
    assert line.bandwidth == 3.0


def test_m_mutes_and_q_ends() -> None:
    loop = LiveLoop(SoundCard(FakeBackend(), 24_000), Line())
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
