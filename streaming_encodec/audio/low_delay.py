"""Resampling for calls: a delay of about a millisecond, and the same output for any blocks.

soxr is better, but at high quality it holds back up to 20 ms. For speech through a codec at 24 kHz, a short windowed
sinc (Kaiser window, 60 dB) is enough, evaluated at the phases that the two rates have in common.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from streaming_encodec.errors import StreamError
from streaming_encodec.samples import as_sample_rate

Pcm = NDArray[np.float32]

_ZEROS = 22
"""Zero crossings on either side, at the lower of the two rates: 0.92 ms at 24 kHz, 1.4 ms at 16 kHz."""
_CUTOFF = 0.92
"""Of the lower rate's half, where the filter is 6 dB down; 60 dB are reached at that half."""
_KAISER_BETA = 5.65
_MOST_COEFFICIENTS = 1 << 22
"""16 MB; rates with few common divisors, such as 44101 Hz with 24 kHz, take half of it."""
_MOST_TIMES = 48
"""The ratio of 24 kHz to 500 Hz. A block from a source that claims 1 Hz would fill the memory."""


class LowDelayResampler:
    """Blocks [C, n] in, blocks [C, m] out. At equal rates the output is the input.

    Raises:
        StreamError: a rate that is not a whole number of Hz, or two rates that are too far apart for a call.
    """

    def __init__(self, source_rate: int, target_rate: int, channels: int = 1) -> None:
        source_rate, target_rate = as_sample_rate(source_rate), as_sample_rate(target_rate)
        if channels < 1:
            raise StreamError(f"channels must be 1 or more, not {channels}")
        self.source_rate, self.target_rate, self.channels = source_rate, target_rate, channels
        common = math.gcd(source_rate, target_rate)
        self._up, self._down = target_rate // common, source_rate // common
        stretch = max(1.0, source_rate / target_rate)
        self._half = math.ceil(_ZEROS * stretch)
        times = max(source_rate, target_rate) / min(source_rate, target_rate)
        if times > _MOST_TIMES or 2 * self._half * self._up > _MOST_COEFFICIENTS:
            raise StreamError(
                f"{source_rate} Hz cannot become {target_rate} Hz in a call: use one of the usual rates, 8000 to 192000"
            )
        self._bank = fractional_filters(self._up, self._half, _CUTOFF / stretch)  # [up, taps]
        self.reset()

    @property
    def delay_ms(self) -> float:
        """Delay of the output against the input, computing time excluded."""
        return 0.0 if self._up == self._down else 1000 * self._half / self.source_rate

    def reset(self) -> None:
        """Start a new stream."""
        self._position = 0  # of the next output, in input samples times `up`, from the next block's beginning
        self._history = np.zeros((self.channels, 2 * self._half - 1), np.float32)

    def push(self, pcm: Pcm) -> Pcm:
        """Resample [C, n] to [C, m]: all samples of the new rate up to the last input sample.

        Raises:
            StreamError: another number of channels.
        """
        if pcm.ndim != 2 or pcm.shape[0] != self.channels:
            raise StreamError(f"expected samples [{self.channels}, n], got {list(pcm.shape)}")
        if self._up == self._down:
            return pcm
        count = pcm.shape[1]
        made = max(0, -(-(count * self._up - self._position) // self._down))
        sound = np.concatenate([self._history, pcm], axis=1, dtype=np.float32)
        at = self._position + self._down * np.arange(made)
        out: Pcm = np.zeros((self.channels, made), np.float32)
        if made:
            windows = sliding_window_view(sound, 2 * self._half, axis=1)[:, at // self._up]  # [C, made, taps]
            np.einsum("cmt,mt->cm", windows, self._bank[at % self._up], out=out)
        self._position += self._down * made - self._up * count
        self._history = sound[:, sound.shape[1] - self._history.shape[1] :].copy()
        return out

    def inputs_for(self, outputs: int) -> int:
        """Input samples that are needed for this many more output samples."""
        if self._up == self._down or outputs < 1:
            return max(0, outputs)
        last = self._position + self._down * (outputs - 1)
        return last // self._up + 1


def fractional_filters(up: int, half: int, cutoff: float) -> Pcm:
    """Filters [up, 2·half], one for each position that an output can have between two inputs: `half` of them before it
    and `half` after it. ``cutoff``: of half the inputs' rate."""
    place = np.arange(up)[:, None] / up
    time = np.arange(2 * half)[None] - 2 * half + 1 - place + half  # in input samples, within ±half
    window = np.i0(_KAISER_BETA * np.sqrt(np.maximum(0.0, 1 - (time / half) ** 2)))
    bank = np.sinc(cutoff * time) * window
    filters: Pcm = (bank / bank.sum(axis=1, keepdims=True)).astype(np.float32)
    return filters
