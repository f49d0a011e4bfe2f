"""Acoustic feedback: a loop from loudspeaker to microphone turns any sound into a rising tone, a howl."""

from __future__ import annotations

import math

import numpy as np

from streaming_encodec.types import Pcm

_WINDOW_S = 0.043
_LOUD = 10 ** (-22 / 20)  # RMS; quieter tones are music or a device's beep
_TONAL = 0.75  # share of the power within one peak: speech stays below half but for moments
_TONE_S = 0.45  # longer than any vowel at one pitch
_FULL = 10 ** (-5 / 20)  # RMS that no voice holds for a second
_FULL_S = 1.0
_SILENT_S = 1.0
_RISE_PER_S = 0.35
_AFTER = 0.5  # what remains of the loudness after each howl
_SOFTEST = 0.1
_CALM_S = 60.0
_MOST_CALMS = 10
"""The loudness comes back one step after a minute without a howl, after the second howl after two minutes, and so on: a
single beep is soon forgotten, a room that howls again each time waits longer and longer."""


class FeedbackSuppressor:
    """Watches what goes to the loudspeaker; silences it for a second at a howl, then lets it come back softer.

    A howl is a loud tone that stays where it is, or full scale that does not end. Minutes without one give the loudness
    back.
    """

    def __init__(self, sample_rate: int) -> None:
        self._rate = sample_rate
        self._size = round(_WINDOW_S * sample_rate)
        self._window = np.hanning(self._size)
        self._heard: Pcm = np.zeros(0, np.float32)
        self._tone_s = self._full_s = self._silent_s = self._calm_s = 0.0
        self._bin = -1
        self._ceiling = 1.0
        self.gain = 1.0
        """What is left of the loudness at present: 1 is all of it, 0 silence."""
        self.caught = 0
        """Howls so far."""

    def process(self, pcm: Pcm) -> Pcm:
        """[1, n] on its way to the loudspeaker; gives the same, or it turned down."""
        self._heard = np.concatenate([self._heard, pcm[0]])
        while len(self._heard) >= self._size:
            self._judge(self._heard[: self._size])
            self._heard = self._heard[self._size :]
        seconds = pcm.shape[1] / self._rate
        begin = self.gain
        self._calm_down(seconds)
        if self._silent_s > 0:
            self._silent_s -= seconds
            self.gain = 0.0
        else:
            self.gain = min(self._ceiling, self.gain + _RISE_PER_S * seconds)
        if begin == self.gain == 1.0:
            return pcm
        ramp = np.linspace(begin, self.gain, pcm.shape[1], dtype=np.float32)
        out: Pcm = pcm * ramp
        return out

    def _calm_down(self, seconds: float) -> None:
        self._calm_s += seconds
        if self._ceiling < 1 and self._calm_s >= _CALM_S * min(self.caught, _MOST_CALMS):
            self._calm_s = 0.0
            self._ceiling = min(1.0, self._ceiling / _AFTER)

    def _judge(self, sound: Pcm) -> None:
        loudness = math.sqrt(float(np.dot(sound, sound)) / len(sound))
        self._full_s = self._full_s + _WINDOW_S if loudness > _FULL else 0.0
        self._tone_s = self._tone_s + _WINDOW_S if loudness > _LOUD and self._is_one_tone(sound) else 0.0
        if self._tone_s >= _TONE_S or self._full_s >= _FULL_S:
            self.caught += 1
            self._tone_s = self._full_s = self._calm_s = 0.0
            self._silent_s = _SILENT_S
            self._ceiling = max(_SOFTEST, self._ceiling * _AFTER)

    def _is_one_tone(self, sound: Pcm) -> bool:
        """Where the last loud window had it, too."""
        powers = np.abs(np.fft.rfft(sound * self._window)) ** 2
        peak = int(np.argmax(powers))
        share = float(powers[max(0, peak - 2) : peak + 3].sum() / (powers.sum() + 1e-20))
        stays = abs(peak - self._bin) <= 1
        self._bin = peak
        return share > _TONAL and stays
