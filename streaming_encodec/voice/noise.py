"""Comfort noise: measured in six bands, sent as six bytes, made again from white noise.

Listeners take dead silence for a broken line, so pauses are filled with noise of the room's level and colour. RFC 3389
does so with a level and reflection coefficients; bands are easier to average and cannot become unstable.

The noise of a seed is the same on every machine, and in JavaScript: it begins with whole numbers, is computed in
float64, and is rounded to a grid that hides the last bits of the transform.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from streaming_encodec.types import Pcm
from streaming_encodec.wire.header import NO_NOISE, NOISE_BANDS, NOISE_FLOOR_DB

BAND_EDGES_HZ = (0.0, 500.0, 1000.0, 2000.0, 4000.0, 8000.0, float("inf"))
"""Edges of the six bands; a rate with nothing in the upper ones says `NOISE_FLOOR_DB` there."""


_MOST_UNSEEN = 16  # frames, two thirds of a second of one in three
_GRID = 2.0**20
"""Steps of the noise in full scale: 120 dB below it."""


class NoiseMeter:
    """Levels of the six bands of one frame, in whole decibels below full scale."""

    def __init__(self, sample_rate: int, frame_samples: int) -> None:
        self._window = np.hanning(frame_samples)
        frequencies = np.fft.rfftfreq(frame_samples, 1 / sample_rate)
        self._band_of_bin = np.searchsorted(BAND_EDGES_HZ[1:-1], frequencies, side="right")
        # One-sided spectrum to mean square: twice, over the window's energy and the length (Parseval).
        self._to_power = 2 / (float(np.sum(self._window**2)) * frame_samples)

    def measure(self, pcm: Pcm) -> tuple[int, ...]:
        """pcm: ``[C, frame_samples]`` or ``[frame_samples]``. Returns six levels, 0 (full scale) to 127 (nothing)."""
        return levels_of(self.band_powers(pcm))

    def band_powers(self, pcm: Pcm) -> npt.NDArray[np.float64]:
        """Mean square of each of the six bands, float64 ``[6]``."""
        powers: npt.NDArray[np.float64] = self.bands_of_many([pcm])[0]
        return powers

    def bands_of_many(self, frames: Sequence[Pcm]) -> npt.NDArray[np.float64]:
        """`band_powers` of each frame, ``[n, 6]``."""
        mono = [pcm if pcm.ndim == 1 else pcm[0] if pcm.shape[0] == 1 else pcm.mean(axis=0) for pcm in frames]
        spectra = np.fft.rfft(np.stack(mono) * self._window)
        energies = np.abs(spectra) ** 2 * self._to_power
        return np.array([np.bincount(self._band_of_bin, each, NOISE_BANDS) for each in energies], np.float64)


def levels_of(powers: npt.NDArray[np.float64]) -> tuple[int, ...]:
    """Mean squares as whole decibels below full scale."""
    decibels = -10 * np.log10(np.maximum(powers, 1e-13))
    return tuple(int(v) for v in np.clip(np.rint(decibels), 0, NOISE_FLOOR_DB))


class ComfortNoise:
    """An endless stream of noise whose colour may change at any time; seeded, so that a replay sounds the same.

    Made by overlap-add of shaped white noise, half a block at a time, so that levels change smoothly.
    """

    def __init__(self, sample_rate: int, block_samples: int = 640, seed: int = 0) -> None:
        self._hop = max(16, block_samples // 2)
        size = 2 * self._hop
        self._seed, self._drawn = np.uint32(seed & 0xFFFFFFFF), 0
        self._window = np.sin(np.pi * (np.arange(size) + 0.5) / size)
        frequencies = np.fft.rfftfreq(size, 1 / sample_rate)
        self._band_of_bin = np.searchsorted(BAND_EDGES_HZ[1:-1], frequencies, side="right")
        counts = np.maximum(np.bincount(self._band_of_bin, minlength=NOISE_BANDS), 1)
        self._share = counts / len(frequencies)  # what each band has of white noise
        self._overlap = np.zeros(self._hop)
        self._ready = np.zeros(0, dtype=np.float32)

    def make(self, count: int, levels: tuple[int, ...]) -> Pcm:
        """The next ``count`` samples ``[count]`` with these six levels (decibels below full scale)."""
        while self._ready.shape[0] < count:
            self._ready = np.concatenate([self._ready, self._next_hop(levels)])
        out, self._ready = self._ready[:count], self._ready[count:]
        return out

    def _next_hop(self, levels: tuple[int, ...]) -> Pcm:
        powers = np.array([0.0 if v >= NOISE_FLOOR_DB else 10 ** (-v / 10) for v in levels])
        white = self._white(2 * self._hop)
        gains = np.sqrt(powers / self._share)[self._band_of_bin]
        # sin² windows of two neighbours sum to one in power, as the blocks are independent.
        block = np.fft.irfft(np.fft.rfft(white) * gains, 2 * self._hop) * self._window
        out = self._overlap + block[: self._hop]
        self._overlap = block[self._hop :]
        return (np.rint(out * _GRID) / _GRID).astype(np.float32)

    def _white(self, count: int) -> npt.NDArray[np.float64]:
        """Uniform numbers of variance 1: each a mixture of its place and the seed, whose bits look random.

        The finaliser of MurmurHash3 (Austin Appleby, public domain), twice.
        """
        bits = np.arange(self._drawn, self._drawn + count, dtype=np.uint32)
        self._drawn = (self._drawn + count) & 0x7FFFFFFF
        bits = _mixed(_mixed(bits) ^ _mixed(np.full(1, self._seed) + np.uint32(1)))
        return (bits.astype(np.float64) / 2**32 - 0.5) * math.sqrt(12)


def _mixed(bits: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    bits = (bits ^ (bits >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    bits = (bits ^ (bits >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return bits ^ (bits >> np.uint32(16))


class BackgroundEstimator:
    """The room behind the voice, from decoded frames: follows quieter frames fast, louder ones slowly.

    Frames are looked at when somebody asks, or when some have come: a look at each of them costs more.
    """

    RISE_PER_LOOK = 1.03
    """For one look in three at 75 frames a second, 3.2 dB a second: slower than any word."""

    def __init__(self, sample_rate: int, frame_samples: int) -> None:
        self._meter = NoiseMeter(sample_rate, frame_samples)
        self._powers: npt.NDArray[np.float64] | None = None
        self._unseen: list[Pcm] = []
        self._floor = 1e-13
        self._ceiling = 10 ** (-50 / 10)  # a room louder than this is a voice that has not paused yet

    def update(self, pcm: Pcm) -> None:
        """Learn from one decoded frame ``[C, frame_samples]``, which must stay as it is."""
        self._unseen.append(pcm)
        if len(self._unseen) >= _MOST_UNSEEN:
            self._learn()

    def _learn(self) -> None:
        if not self._unseen:
            return
        for powers in np.maximum(self._meter.bands_of_many(self._unseen), self._floor):
            if self._powers is None:
                self._powers = powers
            else:
                self._powers = np.minimum(self._powers * self.RISE_PER_LOOK, 0.8 * self._powers + 0.2 * powers)
        self._unseen = []

    def levels(self) -> tuple[int, ...]:
        """Six levels for `ComfortNoise.make`; silence before the first frame."""
        self._learn()
        if self._powers is None:
            return NO_NOISE
        return levels_of(np.minimum(self._powers, self._ceiling))
