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

Pcm = NDArray[np.float32]
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
        self.restarts = 0
        """How often the filter started anew by itself."""
        self.reset()

    def reset(self) -> None:
        """Forget the room."""
        bins = self._frame + 1
        self._far = np.zeros((self._parts, bins), np.complex64)  # spectra of the reference, newest at `_newest`
        self._newest = self._turn = self._worse = 0
        self._before = np.zeros(self._frame, np.float32)
        self._noise = np.full(bins, _QUIETEST * self._frame, np.float32)
        self._forget_filter()

    def _forget_filter(self) -> None:
        self._filter = np.zeros_like(self._far)
        self._uncertainty = self._first_uncertainty.copy()

    def process(self, near: Pcm, far: Pcm) -> LinearEcho:
        """Microphone and reference, both [n]."""
        n = self._frame
        self._newest = (self._newest - 1) % self._parts
        self._far[self._newest] = np.fft.rfft(np.concatenate([self._before, far]))
        self._before = far
        # Part p of the filter meets the reference of p frames ago.
        x = np.concatenate([self._far[self._newest :], self._far[: self._newest]])
        echo = np.fft.irfft((x * self._filter).sum(0))[n:].astype(np.float32, copy=False)
        rest: Pcm = near - echo
        missed = self._learn(x, rest)
        self._watch(near, rest)
        return LinearEcho(rest, echo, missed)

    def _learn(self, x: Spectrum, rest: Pcm) -> Powers:
        n, w, p = self._frame, self._filter, self._uncertainty
        error = np.fft.rfft(np.concatenate([np.zeros(n, np.float32), rest])).astype(np.complex64, copy=False)
        loud = x.real**2
        loud += x.imag**2
        p *= np.float32(_FORGET**2)
        p += np.float32(1 - _FORGET**2) * (w.real**2 + w.imag**2)
        self._noise *= np.float32(_NOISE_SMOOTH)
        self._noise += np.float32(1 - _NOISE_SMOOTH) * (error.real**2 + error.imag**2)
        # Half of the window of two frames is zero, so half of each power reaches the error.
        missed: Powers = np.float32(0.5) * (loud * p).sum(0)
        gain = p / (missed + self._noise + np.float32(_QUIETEST))
        w += np.conj(x) * error * gain
        gain *= loud
        gain *= np.float32(-0.5)
        gain += np.float32(1)
        p *= np.maximum(gain, np.float32(0), out=gain)
        self._constrain()
        return missed

    def _constrain(self) -> None:
        """Keep the filter's parts in the first half of their window; in the second they would wrap around."""
        turn = [(self._turn + i) % self._parts for i in range(min(_CONSTRAINED, self._parts))]
        self._turn = (turn[-1] + 1) % self._parts
        response = np.fft.irfft(self._filter[turn])
        response[:, self._frame :] = 0
        self._filter[turn] = np.fft.rfft(response)

    def _watch(self, near: Pcm, rest: Pcm) -> None:
        worse = float(np.dot(rest, rest)) > _WORSE * float(np.dot(near, near)) + _QUIETEST * self._frame
        self._worse = self._worse + 1 if worse else 0
        if self._worse >= self._worse_frames:
            self._worse = 0
            self.restarts += 1
            self._forget_filter()
