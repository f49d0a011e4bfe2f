"""What a linear filter leaves of an echo, turned down by frequency: late reverberation, a small loudspeaker's
distortion, and what the filter has not learned yet.

The gains follow Wiener's rule over Bark bands. How much the filter leaves is learned from the quietest moments of its
rest against the echo that it predicts (J.-M. Valin, "On adjusting the learning rate in frequency domain echo
cancellation with double-talk", 2007, calls the ratio leakage); what it may have missed it says itself. The gains are
applied as a short symmetric filter, whose half is all the delay there is.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from streaming_encodec.live.linear_echo import LinearEcho
from streaming_encodec.types import Pcm

Powers = NDArray[np.float32]

_DELAY_S = 64 / 24_000
"""Half of the filter that applies the gains: with less, neighbouring bands blur."""
_REVERBERATION_S = 0.8
"""Until the echo that goes on after the predicted one has fallen by 60 dB."""
_OVER = 14.0
"""The rest fluctuates around its mean: so many times of it are taken away."""
_NEPER = math.log(10) / 10
"""Power of a decibel, as a logarithm to the base e."""
_SOFTEST = 10 ** (-40 / 20)
_FIRST_LEAK_DB, _LEAST_LEAK_DB, _MOST_LEAK_DB = -6.0, -60.0, 6.0
_LEAK_FALLS = 0.2
"""Of the difference, in each frame whose rest is quieter than the leakage says."""
_LEAK_RISES_DB_PER_S = 4.0
"""Slow: while somebody speaks here, the rest is louder for another reason."""
_OPEN = 0.7
"""How far a gain that rises comes within a frame; one that falls is there at once."""
_ACTIVE = 1e-7
"""Power of the predicted echo, by bin, from which the leakage can be learned."""


class ResidualEchoSuppressor:
    """Frame by frame, with a delay of `delay_samples`.

    Args:
        frame_samples: of each call.
        sample_rate: in Hz.
    """

    def __init__(self, frame_samples: int, sample_rate: int) -> None:
        self._frame, frame_s = frame_samples, frame_samples / sample_rate
        self.delay_samples = round(_DELAY_S * sample_rate)
        self._window = np.hanning(2 * frame_samples + 1)[:-1].astype(np.float32)
        self._bands = _bark_bands(2 * frame_samples, sample_rate)  # the first bin of each
        sizes = np.diff([*self._bands, frame_samples + 1])
        self._band_of = np.repeat(np.arange(len(sizes)), sizes)
        self._active = (_ACTIVE * sizes * frame_samples).astype(np.float32)
        self._decay = np.float32(10 ** (-6 * frame_s / _REVERBERATION_S))
        self._rise_db = _LEAK_RISES_DB_PER_S * frame_s
        self._responses = self._make_responses()
        self._ramp = np.linspace(0, 1, frame_samples, dtype=np.float32)
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        bands, half = len(self._bands), self.delay_samples
        self._sounds = np.zeros((2, 2 * self._frame), np.float32)  # the last two frames of rest and echo
        self._tail = np.zeros(bands, np.float32)
        self._leak_db = np.full(bands, _FIRST_LEAK_DB, np.float32)
        self._gains = np.ones(bands, np.float32)
        self._filter = np.zeros(2 * half + 1, np.float32)
        self._filter[half] = 1
        self._past = np.zeros(2 * half, np.float32)

    def _make_responses(self) -> Pcm:
        """The short filter that passes one band, for each of them: [bands, 2 · delay + 1]."""
        half, bands = self.delay_samples, len(self._bands)
        passes = (np.arange(bands)[:, None] == self._band_of).astype(np.float64)
        responses = np.roll(np.fft.irfft(passes), half, axis=1)[:, : 2 * half + 1]
        tapered: Pcm = (responses * np.hanning(2 * half + 3)[1:-1]).astype(np.float32)
        return tapered

    def process(self, linear: LinearEcho) -> Pcm:
        """What the linear canceller gave; returns [n], later by the delay."""
        self._follow(linear)
        new = self._gains @ self._responses
        sound = np.concatenate([self._past, linear.rest])
        self._past = sound[self._frame :]
        # The filters are symmetric: their correlation is their convolution, without a copy.
        out: Pcm = np.correlate(sound, self._filter, "valid")
        out += self._ramp * (np.correlate(sound, new, "valid") - out)
        self._filter = new
        return out

    def _follow(self, linear: LinearEcho) -> None:
        """Bring tail, leakage and gains up to this frame."""
        n = self._frame
        self._sounds[:, :n] = self._sounds[:, n:]
        self._sounds[0, n:], self._sounds[1, n:] = linear.rest, linear.echo
        spectra = np.fft.rfft(self._sounds * self._window)
        powers = spectra.real**2
        powers += spectra.imag**2
        rest, echo = np.add.reduceat(powers, self._bands, axis=1).astype(np.float32, copy=False)
        rest += np.float32(1e-9)
        echo += np.float32(1e-10)
        self._tail = np.maximum(echo, self._tail * self._decay)
        above_db = 10 * np.log10(rest / self._tail) - self._leak_db
        step = np.minimum(np.maximum(above_db, _LEAK_FALLS * above_db), self._rise_db)
        step *= self._tail > self._active
        self._leak_db = np.minimum(np.maximum(self._leak_db + step, _LEAST_LEAK_DB), _MOST_LEAK_DB)
        left = np.exp(_NEPER * self._leak_db) * (_OVER * self._tail) + np.add.reduceat(linear.missed, self._bands)
        wanted = np.minimum(np.maximum(1 - left / rest, _SOFTEST), 1)
        self._gains = np.minimum(wanted, self._gains + _OPEN * (wanted - self._gains))


def _bark_bands(size: int, sample_rate: int) -> NDArray[np.int64]:
    """The first bin of each band, of about one Bark (Traunmüller 1990), in a spectrum of so many samples."""
    hertz = np.fft.rfftfreq(size, 1 / sample_rate)
    bark = np.floor(26.81 * hertz / (1960 + hertz) + 0.03)
    return np.flatnonzero(np.diff(bark, prepend=-2))
