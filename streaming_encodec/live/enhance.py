"""Noise suppression and automatic gain, by the library of WebRTC (the package `pywebrtc-audio`)."""

from __future__ import annotations

import math

import numpy as np

from streaming_encodec.errors import MissingExtraError
from streaming_encodec.types import Pcm

_CELL_S = 0.010
_SUPPRESSOR_S, _GAIN_S = 0.0074, 0.0014
"""Measured at 24 kHz, by cross-correlation."""


class Enhancer:
    """Blocks in, blocks of the same lengths out.

    The library works in 10 ms, the codec in frames of another length: so that no frame ever waits, all is late by the
    difference.

    Args:
        sample_rate: in Hz.
        frame_samples: all blocks are multiples of it.
        suppress_noise, adapt_gain: what to do.

    Raises:
        MissingExtraError: the package can't be loaded here.
    """

    def __init__(self, sample_rate: int, frame_samples: int, *, suppress_noise: bool, adapt_gain: bool) -> None:
        try:
            from pywebrtc_audio import AudioProcessor
        except ImportError as error:
            raise MissingExtraError(
                f"noise suppression and automatic gain need pywebrtc-audio, which can't be loaded ({error}): "
                "pip install pywebrtc-audio, or leave out --noise-suppression and --gain"
            ) from error
        self._processor = AudioProcessor(
            sample_rate=sample_rate, noise_suppression=suppress_noise, auto_gain_control=adapt_gain
        )
        self._cell = round(_CELL_S * sample_rate)
        waits = self._cell - math.gcd(self._cell, frame_samples)
        self._in: Pcm = np.zeros(0, np.float32)
        self._out: Pcm = np.zeros(waits, np.float32)
        self.delay_samples = waits + round((_SUPPRESSOR_S if suppress_noise else _GAIN_S) * sample_rate)

    def process(self, pcm: Pcm) -> Pcm:
        """[n] to [n], later by the delay."""
        sound = np.concatenate([self._in, pcm])
        whole = len(sound) // self._cell * self._cell
        self._in = sound[whole:]
        self._out = np.concatenate([self._out, self._processor.process(sound[:whole])])
        out, self._out = self._out[: len(pcm)], self._out[len(pcm) :]
        return out
