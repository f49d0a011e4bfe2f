"""Time stretching: more or fewer samples of the same sound, without clicks and at the same pitch.

A piece one pitch period long is left out or repeated, with a crossfade at the join (WSOLA; Verhelst and Roelands 1993;
WebRTC NetEq's accelerate and preemptive expand). The join is where the two pieces correlate best, so that a voiced
sound loses whole periods. Where nothing correlates well, the sound stays as it is, unless ``force`` says otherwise.

The search is in whole numbers of 16 bits, whose sums are exact in any order: the same place on every machine, and in
JavaScript too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streaming_encodec.types import Pcm

_FULL_SCALE = 32768.0


@dataclass(frozen=True, slots=True)
class StretchSettings:
    """Lags and thresholds.

    shortest_ms, longest_ms: piece left out or repeated, a pitch period from 400 Hz to 67 Hz.
    overlap_ms: crossfade.
    similar: normalised correlation above which a join is inaudible. quiet_db: level below which any join is.
    """

    shortest_ms: float = 2.5
    longest_ms: float = 13.0
    overlap_ms: float = 4.0
    similar: float = 0.85
    quiet_db: float = -45.0


class Stretcher:
    """Shortens and stretches blocks of sound ``[C, n]``. Holds no sound: the past is handed in."""

    def __init__(self, sample_rate: int, settings: StretchSettings | None = None) -> None:
        self.settings = settings or StretchSettings()
        self._shortest = max(1, round(self.settings.shortest_ms * sample_rate / 1000))
        self._longest = max(self._shortest + 1, round(self.settings.longest_ms * sample_rate / 1000))
        self._overlap = max(2, round(self.settings.overlap_ms * sample_rate / 1000))
        self._fade_in = np.linspace(0, 1, self._overlap + 2, dtype=np.float32)[1:-1]
        self._quiet_power = 10 ** (self.settings.quiet_db / 10)

    @property
    def history_samples(self) -> int:
        """Past samples that `stretch` needs."""
        return self._longest

    def shorten(self, sound: Pcm, *, force: bool = False, times: int = 1, most: int | None = None) -> Pcm:
        """``sound`` ``[C, n]`` less up to ``times`` pieces of one period each, none longer than ``most``.

        Without ``force`` a piece is left out only where the join is inaudible. The first and the last sample stay, so
        that the sound joins on both sides.
        """
        at, most = 0, self._longest if most is None else min(most, self._longest)
        for _ in range(times):
            longest = min(most, sound.shape[1] - at - self._overlap)
            if longest < self._shortest:
                break
            lag, similar = self._best_lag(sound[:, at:], longest)
            if not (force or similar):
                break
            sound = self._without(sound, at, lag)
            at += self._overlap
        return sound

    def stretch(self, past: Pcm, sound: Pcm, *, force: bool = False) -> Pcm:
        """``sound`` ``[C, n]`` with one period more in front, of itself and of the ``past`` ``[C, h]`` before it."""
        longest = min(self._longest, past.shape[1])
        if longest < self._shortest or sound.shape[1] < self._overlap:
            return sound
        joined = np.concatenate([past[:, past.shape[1] - longest :], sound], axis=1)
        # To go back by `lag` from the border is to leave out a negative piece: the same search, backwards.
        lag, similar = self._best_lag_back(joined, longest)
        if not (force or similar):
            return sound
        again = joined[:, longest - lag :]  # [C, lag + n]: starts a period earlier
        head = sound[:, : self._overlap] * (1 - self._fade_in) + again[:, : self._overlap] * self._fade_in
        return np.concatenate([head, again[:, self._overlap :]], axis=1)

    def _without(self, sound: Pcm, at: int, lag: int) -> Pcm:
        w = self._overlap
        join = sound[:, at : at + w] * (1 - self._fade_in) + sound[:, at + lag : at + lag + w] * self._fade_in
        return np.concatenate([sound[:, :at], join, sound[:, at + lag + w :]], axis=1)

    def _best_lag(self, sound: Pcm, longest: int) -> tuple[int, bool]:
        mono = sound.mean(axis=0)
        return self._search(mono[: self._overlap], mono[self._shortest : longest + self._overlap], self._shortest)

    def _best_lag_back(self, joined: Pcm, border: int) -> tuple[int, bool]:
        mono = joined.mean(axis=0)
        reference = mono[border : border + self._overlap]
        window = mono[: border - self._shortest + self._overlap]
        start, similar = self._search(reference, window, 0)
        return border - start, similar

    def _search(self, reference: Pcm, window: Pcm, first: int) -> tuple[int, bool]:
        """Where in ``window`` the reference fits best (plus ``first``), and whether a join there is inaudible."""
        w = reference.shape[0]
        sought, place = _in_16_bits(reference), _in_16_bits(window)
        energy = np.convolve(place**2, np.ones(w), mode="valid")
        products = np.correlate(place, sought, mode="valid")
        own = float(sought @ sought)
        likeness = products / np.sqrt(np.maximum(energy * own, 1.0))
        best = int(np.argmax(likeness))
        loudest = max(own, float(energy.max())) / w / _FULL_SCALE**2
        return first + best, bool(likeness[best] >= self.settings.similar or loudest <= self._quiet_power)


def _in_16_bits(sound: Pcm) -> npt.NDArray[np.float64]:
    return np.rint(sound.astype(np.float64) * _FULL_SCALE)
