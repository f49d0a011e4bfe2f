"""A long adaptive filter that learns the way from loudspeaker to microphone, and takes away the echo that it predicts.

A Kalman filter in the frequency domain: the filter's coefficients are the state, what is said in the room is the
noise. It learns fast where the far end is louder than the room and hardly moves while somebody speaks here, so it needs
no detector of double talk. G. Enzner, P. Vary, "Frequency-domain adaptive Kalman filter for acoustic echo control in
hands-free telephones", Signal Processing 86 (2006); in parts: F. Kuech, E. Mabande, G. Enzner, "State-space
architecture of the partitioned-block-based acoustic echo controller", ICASSP 2014.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streaming_encodec.types import Pcm

Spectrum = NDArray[np.complex64]
Powers = NDArray[np.float32]

TAIL_S = 0.2
"""Length of the filter: the delay that remains between reference and microphone, and most of a room's reverberation."""
_FORGET = 0.999
"""Of the filter from frame to frame: what it loses is uncertainty again, so it follows a room in which things move."""
_UNCERTAIN = 0.3
_FALLS_DB_PER_S = 60.0
"""How uncertain each coefficient is at first, and how much less the later ones are: a room's response decays."""
_NOISE_SMOOTH = 0.9
_QUIETEST = 1e-8
_CONSTRAINED = 4
"""Parts whose time domain is set right in each frame, in turn. All of them would cost as much as the rest."""
_FORGET_FRAMES = 8
"""What is forgotten is taken into account at once for so many frames."""
_WORSE = 1.5
_WORSE_S = 0.4
"""A filter that makes the microphone louder by so much for so long starts anew: the way has changed."""


class LinearEcho(NamedTuple):
    """One frame: what remains of the microphone [n], the echo that was predicted [n], and by frequency the power of the
    echo that the filter knows it may have missed [n + 1]."""

    rest: Pcm
    echo: Pcm
    missed: Powers


class LinearCanceller:
    """Frame by frame, without delay.

    Args:
        frame_samples: of each call.
        sample_rate: in Hz.
    """

    def __init__(self, frame_samples: int, sample_rate: int) -> None:
        self._frame = frame_samples
        self._parts = math.ceil(TAIL_S * sample_rate / frame_samples)
        frame_s = frame_samples / sample_rate
        falls = 10 ** (-_FALLS_DB_PER_S / 10 * frame_s * np.arange(self._parts))
        self._first_uncertainty = np.repeat(_UNCERTAIN * falls[:, None], frame_samples + 1, axis=1).astype(np.float32)
        self._worse_frames = round(_WORSE_S / frame_s)
        self._products = np.empty((self._parts, frame_samples + 1), np.complex64)
        self._work = np.empty((self._parts, frame_samples + 1), np.float32)
        self.restarts = 0
        """How often the filter started anew by itself."""
        self.reset()

    def reset(self) -> None:
        """Forget the room."""
        bins, parts = self._frame + 1, self._parts
        # Spectra of the reference, their conjugates and their powers, each at two places, so that the last frames lie
        # beside each other wherever the newest is.
        self._far = np.zeros((2 * parts, bins), np.complex64)
        self._conjugate, self._loud = np.zeros_like(self._far), np.zeros((2 * parts, bins), np.float32)
        self._newest = self._turn = self._worse = self._frames = 0
        # The reference's last two frames, and parts of the filter in time, whose second half is silent.
        self._windows = np.zeros((1 + min(_CONSTRAINED, parts), 2 * self._frame), np.float32)
        self._rest = np.zeros(2 * self._frame, np.float32)  # what remains of the microphone, after a frame of silence
        self._noise = np.full(bins, _QUIETEST * self._frame, np.float32)
        self._forget_filter()

    def _forget_filter(self) -> None:
        self._filter = np.zeros((self._parts, self._frame + 1), np.complex64)
        self._uncertainty = self._first_uncertainty.copy()

    def process(self, near: Pcm, far: Pcm) -> LinearEcho:
        """Microphone and reference, both [n]."""
        n = self._frame
        self._take(far)
        last = slice(self._newest, self._newest + self._parts)
        # Part p of the filter meets the reference of p frames ago.
        np.multiply(self._far[last], self._filter, out=self._products)
        echo = np.fft.irfft(self._products.sum(0))[n:].astype(np.float32)
        self._rest[n:] = near - echo
        error = np.fft.rfft(self._rest).astype(np.complex64, copy=False)
        missed = self._learn(last, error)
        rest: Pcm = self._rest[n:].copy()
        self._watch(near, rest)
        return LinearEcho(rest, echo, missed)

    def _take(self, far: Pcm) -> None:
        """Put the reference's spectrum where it belongs, and keep some of the filter's parts in the first half of their
        window; in the second they would wrap around. Numpy's transforms cost as much for each call as for five rows, so
        they go together."""
        n, parts = self._frame, self._parts
        turned = self._filter[self._turn : self._turn + _CONSTRAINED]
        self._turn = self._turn + _CONSTRAINED if self._turn + _CONSTRAINED < parts else 0
        windows = self._windows[: 1 + len(turned)]
        windows[1:, :n] = np.fft.irfft(turned)[:, :n]
        windows[0, :n] = windows[0, n:]
        windows[0, n:] = far
        spectra = np.fft.rfft(windows).astype(np.complex64, copy=False)
        turned[...] = spectra[1:]
        self._newest = (self._newest - 1) % parts
        both = slice(self._newest, None, parts)
        self._far[both] = spectra[0]
        self._conjugate[both] = spectra[0].conj()
        self._loud[both] = _power(spectra[0])

    def _learn(self, last: slice, error: Spectrum) -> Powers:
        w, p, work = self._filter, self._uncertainty, self._work
        self._frames += 1
        if self._frames % _FORGET_FRAMES == 0:
            forget = np.float32(_FORGET ** (2 * _FORGET_FRAMES))
            p *= forget
            p += (1 - forget) * _power(w)
        self._noise *= np.float32(_NOISE_SMOOTH)
        self._noise += np.float32(1 - _NOISE_SMOOTH) * _power(error)
        np.multiply(self._loud[last], p, out=work)
        # Half of the window of two frames is zero, so half of each power reaches the error.
        missed: Powers = np.float32(0.5) * work.sum(0)
        of_all = 1 / (missed + self._noise + np.float32(_QUIETEST))
        # The gain is p · of_all. What is known of each coefficient grows by the share of its own in what was missed.
        np.multiply(self._conjugate[last], error * of_all, out=self._products)
        self._products *= p
        w += self._products
        work *= p
        work *= np.float32(0.5) * of_all
        p -= work
        np.maximum(p, 0, out=p)
        return missed

    def _watch(self, near: Pcm, rest: Pcm) -> None:
        worse = float(np.dot(rest, rest)) > _WORSE * float(np.dot(near, near)) + _QUIETEST * self._frame
        self._worse = self._worse + 1 if worse else 0
        if self._worse >= self._worse_frames:
            self._worse = 0
            self.restarts += 1
            self._forget_filter()


def _power(spectrum: Spectrum) -> Powers:
    power: Powers = spectrum.real**2
    power += spectrum.imag**2
    return power
