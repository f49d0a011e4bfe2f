"""What happens to the microphone's sound on its way into a call, in the loop that runs one."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from device_kit import Clock, FakeBackend

from streaming_encodec.audio.devices.card import SoundCard
from streaming_encodec.audio.devices.devices import Device
from streaming_encodec.cli.shared.live_view import History, panel
from streaming_encodec.errors import MissingExtraError
from streaming_encodec.live.capture import CaptureSettings, EchoMode, capture_chooser
from streaming_encodec.live.enhance import Enhancer
from streaming_encodec.live.figures import CallFigures
from streaming_encodec.live.loop import LiveLoop
from streaming_encodec.wire.packet import StreamFormat

RATE, FRAME, BLOCK = 24_000, 320, 256


class Line:
    """Keeps what is said; plays noise."""

    format, packet_samples = StreamFormat("0" * 32), 2 * FRAME

    def __init__(self) -> None:
        self.said: list[np.ndarray] = []
        self._random = np.random.default_rng(1)

    def send(self, pcm: np.ndarray) -> None:
        self.said.append(pcm.copy())

    def on_packet(self, observer: Callable[[bytes, float], object]) -> None: ...

    def read_whole(self, count: int, now_s: float, *, certain: bool) -> np.ndarray:
        return (0.1 * self._random.standard_normal((1, count))).astype(np.float32)

    def figures(self) -> CallFigures:
        return CallFigures(buffer_ms=1.0)


class Scene:
    """A loop with a speaker of this name, whose microphone hears what is played two blocks later."""

    def __init__(self, settings: CaptureSettings | None, output: str = "Built-in Speaker") -> None:
        self.clock, self.line = Clock(), Line()
        self.backend = FakeBackend(
            all=[
                Device(0, "Built-in Microphone", "Fake", 1, 0, RATE, is_default_input=True),
                Device(1, output, "Fake", 0, 1, RATE, is_default_output=True),
            ]
        )
        self.card = SoundCard(RATE, backend=self.backend, clock=self.clock)
        chooser = None if settings is None else capture_chooser(settings, FRAME, RATE)
        self.loop = LiveLoop(
            self.card, self.line, self.line, self.line.figures, choose_capture=chooser, clock=self.clock
        )
        self._echo = [np.zeros((BLOCK, 1), np.float32)] * 2

    def turn(self, seconds: float) -> None:
        for _ in range(round(seconds * RATE / BLOCK)):
            self.clock.now += BLOCK / RATE
            speaker = self.backend.stream("output")
            speaker.turn(BLOCK)
            self._echo.append(0.5 * speaker.heard.pop())
            self.backend.stream("input").turn(self._echo.pop(0))
            self.loop.step()

    @property
    def said(self) -> np.ndarray:
        return np.concatenate(self.line.said, axis=1)[0]


def loudness(sound: np.ndarray) -> float:
    return float(np.sqrt(np.mean(sound[-RATE:] ** 2)))


@pytest.mark.parametrize(
    ("settings", "output"),
    [(CaptureSettings(), "USB Headset"), (CaptureSettings(EchoMode.off), "Built-in Speaker")],
    ids=["headset", "off"],
)
def test_with_a_headset_not_a_bit_changes(settings: CaptureSettings, output: str) -> None:
    scene, plain = Scene(settings, output), Scene(None, output)
    scene.turn(3.0)
    plain.turn(3.0)
    np.testing.assert_array_equal(scene.said, plain.said)
    assert len(scene.said) > 2.9 * RATE
    assert scene.loop.delays() == plain.loop.delays()
    assert not scene.card._speaker.port.played.written  # type: ignore[union-attr]


def test_with_a_loudspeaker_the_others_do_not_hear_themselves() -> None:
    scene, plain = Scene(CaptureSettings()), Scene(None)
    scene.turn(5.0)
    plain.turn(5.0)
    assert loudness(scene.said) < 0.03 * loudness(plain.said)
    assert len(scene.said) == len(plain.said)  # no packet leaves later than without
    delays = scene.loop.delays()
    assert delays.echo_ms == pytest.approx(64 / 24)
    look = History().look(5.0, scene.loop)
    assert "dB, 2.7 ms (Built-in Speaker is no headset by its name)" in look.echo
    assert look.echo in str(panel(look, "", ""))


def test_another_speaker_is_judged_anew() -> None:
    """The loudspeaker is unplugged, and a headset takes its place."""
    scene = Scene(CaptureSettings())
    scene.turn(2.0)
    assert scene.loop.choice is not None
    assert scene.loop.choice.capture is not None
    scene.backend.stream("output").active = False
    scene.backend.all[1] = Device(1, "USB Headset", "Fake", 0, 1, RATE, is_default_output=True)
    scene.turn(3.0)
    assert scene.card.lost == ()
    assert scene.loop.choice.capture is None
    assert "USB Headset" in scene.loop.choice.why


def test_a_loudspeaker_that_comes_back_is_learned_anew() -> None:
    scene, plain = Scene(CaptureSettings()), Scene(None)
    for each in (scene, plain):
        each.turn(2.0)
    before = scene.loop.choice
    for each in (scene, plain):
        each.backend.stream("output").active = False
        each.turn(7.0)
    assert scene.loop.choice is not before
    assert loudness(scene.said) < 0.03 * loudness(plain.said)


def test_noise_suppression_and_gain_keep_the_packets_whole() -> None:
    scene = Scene(CaptureSettings(EchoMode.off, suppress_noise=True, adapt_gain=True))
    scene.turn(2.0)
    assert {pcm.shape for pcm in scene.line.said} == {(1, 2 * FRAME)}
    assert scene.loop.delays().echo_ms == pytest.approx(14.0, abs=0.2)


def test_the_delay_of_noise_suppression_is_what_it_says() -> None:
    sound = np.random.default_rng(0).standard_normal(RATE // FRAME * FRAME).astype(np.float32)
    sound = np.convolve(0.1 * sound, np.hanning(64), "same").astype(np.float32)
    for suppress in (True, False):
        enhancer = Enhancer(RATE, FRAME, suppress_noise=suppress, adapt_gain=not suppress)
        out = np.concatenate([enhancer.process(part) for part in np.split(sound, len(sound) // FRAME)])
        assert out.shape == sound.shape
        likeness = np.correlate(out, sound[:-2000], "valid")
        assert abs(int(np.argmax(np.abs(likeness))) - enhancer.delay_samples) <= 12


def test_without_the_library_one_line_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    found: Any = builtins.__import__

    def refuse(name: str, *arguments: Any, **more: Any) -> Any:
        if name == "pywebrtc_audio":
            raise ImportError("no wheel for this system")
        return found(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    capture_chooser(CaptureSettings(), FRAME, RATE)  # echo cancellation needs it not
    with pytest.raises(MissingExtraError, match="pip install pywebrtc-audio"):
        capture_chooser(CaptureSettings(suppress_noise=True), FRAME, RATE)
