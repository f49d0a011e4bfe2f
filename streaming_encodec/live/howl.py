"""A guard against howling: a loop from loudspeaker to microphone turns any sound into a rising tone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Pcm = NDArray[np.float32]

_WINDOW_S = 0.043
_LOUD = 10 ** (-22 / 20)  # RMS; quieter tones are music or a kettle
_TONAL = 0.75  # share of the power within one peak: speech stays below half but for moments
_TONE_S = 0.45  # longer than any vowel at one pitch
_FULL = 10 ** (-5 / 20)  # RMS that no voice holds for a second
_FULL_S = 1.0
_SILENT_S = 1.0
_RISE_PER_S = 0.35
_AFTER = 0.5  # what remains of the loudness after each howl


class HowlGuard:
    """Listens to what goes to the speaker; silences it for a second at a howl, and lets it come back softer.

    A howl is a loud tone that stays where it is, or full scale that does not end.
    """

    def __init__(self, sample_rate: int) -> None:
        self._rate = sample_rate
        self._size = round(_WINDOW_S * sample_rate)
        self._window = np.hanning(self._size)
        self._heard: Pcm = np.zeros(0, np.float32)
        self._tone_s = self._full_s = self._silent_s = 0.0
        self._bin = -1
        self._gain = self._ceiling = 1.0
        self.caught = 0
        """Howls so far."""

    @property
    def active(self) -> bool:
        """Whether the sound is being held down right now."""
        return self._gain < self._ceiling

    def process(self, pcm: Pcm) -> Pcm:
        """[1, n] on its way to the speaker; the same, or turned down."""
        self._heard = np.concatenate([self._heard, pcm[0]])
        while len(self._heard) >= self._size:
            self._judge(self._heard[: self._size])
            self._heard = self._heard[self._size :]
        seconds = pcm.shape[1] / self._rate
        begin = self._gain
        if self._silent_s > 0:
            self._silent_s -= seconds
            self._gain = 0.0
        else:
            self._gain = min(self._ceiling, self._gain + _RISE_PER_S * seconds)
        if begin == self._gain == 1.0:
            return pcm
        ramp = np.linspace(begin, self._gain, pcm.shape[1], dtype=np.float32)
        out: Pcm = pcm * ramp
        return out

    def _judge(self, sound: Pcm) -> None:
        loudness = float(np.sqrt(np.mean(sound**2)))
        self._full_s = self._full_s + _WINDOW_S if loudness > _FULL else 0.0
        powers = np.abs(np.fft.rfft(sound * self._window)) ** 2
        peak = int(np.argmax(powers))
        share = float(powers[max(0, peak - 2) : peak + 3].sum() / (powers.sum() + 1e-20))
        stays = abs(peak - self._bin) <= 1
        self._bin = peak
        tone = loudness > _LOUD and share > _TONAL and stays
        self._tone_s = self._tone_s + _WINDOW_S if tone else 0.0
        if self._tone_s >= _TONE_S or self._full_s >= _FULL_S:
            self.caught += 1
            self._tone_s = self._full_s = 0.0
            self._silent_s = _SILENT_S
            self._ceiling = max(0.1, self._ceiling * _AFTER)
