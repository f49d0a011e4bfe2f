"""What happens to the microphone's sound before it is encoded: echo cancellation, noise suppression, gain."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np

from streaming_encodec.audio.devices.card import SoundCard
from streaming_encodec.audio.devices.headset import judge_output
from streaming_encodec.live.echo import EchoCanceller, KalmanEchoCanceller
from streaming_encodec.live.enhance import Enhancer
from streaming_encodec.types import Pcm


class EchoMode(StrEnum):
    """auto: where the speaker is not at the ear."""

    auto = "auto"
    on = "on"
    off = "off"


@dataclass(frozen=True, slots=True)
class CaptureSettings:
    """What is wanted; noise suppression and gain cost delay and take something from any voice."""

    echo: EchoMode = EchoMode.auto
    suppress_noise: bool = False
    adapt_gain: bool = False


class Capture:
    """From the microphone to the call, in whole frames.

    Args:
        frame_samples: the codec's hop.
        sample_rate: in Hz.
        echo: None leaves echoes as they are.
        enhancer: None leaves noise and loudness as they are.
    """

    def __init__(
        self, frame_samples: int, sample_rate: int, echo: EchoCanceller | None, enhancer: Enhancer | None = None
    ) -> None:
        self._frame, self._rate, self._echo, self._enhancer = frame_samples, sample_rate, echo, enhancer
        self._held = np.zeros((2, 0), np.float32)

    @property
    def wants_reference(self) -> bool:
        """Whether `process` looks at what was played."""
        return self._echo is not None

    @property
    def held_samples(self) -> int:
        """Of the microphone, the beginning of a frame."""
        return int(self._held.shape[1])

    @property
    def delay_ms(self) -> float:
        """What all of it costs."""
        parts = (self._echo, self._enhancer)
        return 1000 * sum(part.delay_samples for part in parts if part is not None) / self._rate

    @property
    def reduction_db(self) -> float | None:
        """Of the echo, lately; None while there was none."""
        return None if self._echo is None else self._echo.reduction_db

    def process(self, near: Pcm, far: Pcm) -> Pcm:
        """Microphone and reference [1, n] to [1, m]: the frames that they complete."""
        sound = np.concatenate([self._held, np.concatenate([near, far])], axis=1)
        whole = sound.shape[1] // self._frame * self._frame
        self._held = sound[:, whole:]
        out = sound[0, :whole]
        if self._echo is not None:
            out = self._echo.process(out, sound[1, :whole])
        if self._enhancer is not None:
            out = self._enhancer.process(out)
        return out[None]


@dataclass(frozen=True, slots=True)
class CaptureChoice:
    """What is done for the devices in use; ``capture`` None: nothing, sound passes as it is. why: of the echo, in
    words."""

    capture: Capture | None
    why: str


class CaptureChooser(Protocol):
    """Chooses for the devices that a card has open; called again when they change."""

    def __call__(self, card: SoundCard) -> CaptureChoice: ...


def capture_chooser(settings: CaptureSettings, frame_samples: int, sample_rate: int) -> CaptureChooser:
    """What the settings ask for. Raises MissingExtraError where the machine lacks what it takes."""

    def enhancer() -> Enhancer | None:
        if not settings.suppress_noise and not settings.adapt_gain:
            return None
        return Enhancer(
            sample_rate,
            frame_samples,
            suppress_noise=settings.suppress_noise,
            adapt_gain=settings.adapt_gain,
        )

    enhancer()  # what is missing is told before the call

    def choose(card: SoundCard) -> CaptureChoice:
        wanted, why = _echo_wanted(settings.echo, card)
        echo = KalmanEchoCanceller(frame_samples, sample_rate) if wanted else None
        enhances = enhancer()
        if echo is None and enhances is None:
            return CaptureChoice(None, why)
        return CaptureChoice(Capture(frame_samples, sample_rate, echo, enhances), why)

    return choose


def _echo_wanted(mode: EchoMode, card: SoundCard) -> tuple[bool, str]:
    if mode is not EchoMode.auto:
        return mode is EchoMode.on, "as asked for"
    if card.output_device is None:
        return False, "there is no speaker"
    at_the_ear, why = judge_output(card.output_device)
    return not at_the_ear, why
