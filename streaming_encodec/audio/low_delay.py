"""Resampling for calls: a delay of about a millisecond, and the same output for any blocks.

soxr is better, but at high quality it holds back up to 20 ms. For speech through a codec at 24 kHz, a short windowed
sinc (Kaiser window, 60 dB) is enough, evaluated at the phases that the two rates have in common. Those phases come
round, so many outputs in a row are one matrix product; where the rates have little in common and the matrix would be
large, each output has a filter of its own.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from streaming_encodec.errors import StreamError
from streaming_encodec.samples import as_sample_rate
from streaming_encodec.types import Pcm

_ZEROS = 22
"""Zero crossings on either side, at the lower of the two rates: 0.92 ms at 24 kHz, 1.4 ms at 16 kHz."""
_CUTOFF = 0.92
"""Of the lower rate's half, where the filter is 6 dB down; 60 dB are reached at that half."""
_KAISER_BETA = 5.65
_MOST_COEFFICIENTS = 1 << 22
"""16 MB; rates with few common divisors, such as 44101 Hz with 24 kHz, take half of it."""
_ROW_OUTPUTS = 48
"""Outputs in a row of the product: more would multiply by more zeros, fewer would copy more of the input."""
_MOST_ROW_NUMBERS = 1 << 17
"""Of the product's matrix."""
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
        # A row has the outputs of some whole rounds of the phases.
        rounds = max(1, round(_ROW_OUTPUTS / self._up))
        self._row_inputs, self._row_outputs = rounds * self._down, rounds * self._up
        self._matrix = self._make_matrix()
        self.reset()

    def _make_matrix(self) -> Pcm | None:
        """[inputs that a row of outputs needs, outputs in a row]; None where it would be too large."""
        taps = 2 * self._half
        width = taps + (self._down * (self._row_outputs - 1)) // self._up
        if self._up == self._down or width * self._row_outputs > _MOST_ROW_NUMBERS:
            return None
        matrix = np.zeros((width, self._row_outputs), np.float32)
        for output in range(self._row_outputs):
            first, phase = divmod(self._down * output, self._up)
            matrix[first : first + taps, output] = self._bank[phase]
        return matrix

    @property
    def delay_ms(self) -> float:
        """Delay of the output against the input, computing time excluded."""
        return 0.0 if self._up == self._down else 1000 * self._half / self.source_rate

    def reset(self) -> None:
        """Start a new stream."""
        self._position = 0  # of the next output, in input samples times `up`, from the next block's beginning
        self._output = 0  # number of the next output in its round of phases
        # Beside what the filter covers: from where the round began.
        self._history = np.zeros((self.channels, 2 * self._half - 1 + self._down), np.float32)

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
        out = self._rows(sound, made) if self._matrix is not None else self._each(sound, made)
        self._position += self._down * made - self._up * count
        self._output = (self._output + made) % self._up
        self._history = sound[:, sound.shape[1] - self._history.shape[1] :].copy()
        return out

    def _rows(self, sound: Pcm, made: int) -> Pcm:
        """By the matrix: each row of outputs from the inputs that it needs, which overlap those of the next."""
        if not made:
            return np.zeros((self.channels, 0), np.float32)
        assert self._matrix is not None
        width = len(self._matrix)
        begin = self._down + (self._position - self._down * self._output) // self._up
        rows = -(-(self._output + made) // self._row_outputs)
        lacking = begin + (rows - 1) * self._row_inputs + width - sound.shape[1]
        if lacking > 0:  # for outputs of the last row that are not due yet
            sound = np.concatenate([sound, np.zeros((self.channels, lacking), np.float32)], axis=1)
        out = np.empty((self.channels, rows * self._row_outputs), np.float32)
        for channel in range(self.channels):
            # `as_strided` would take longer than the product.
            strides = (self._row_inputs * sound.itemsize, sound.itemsize)
            inputs: Pcm = np.ndarray((rows, width), np.float32, sound[channel], begin * sound.itemsize, strides)
            np.dot(inputs, self._matrix, out=out[channel].reshape(rows, self._row_outputs))
        return np.ascontiguousarray(out[:, self._output : self._output + made])

    def _each(self, sound: Pcm, made: int) -> Pcm:
        """Each output by its own filter."""
        out: Pcm = np.zeros((self.channels, made), np.float32)
        if made:
            at = self._position + self._down * np.arange(made)
            windows = sliding_window_view(sound, 2 * self._half, axis=1)[
                :, self._down + at // self._up
            ]  # [C, made, taps]
            np.einsum("cmt,mt->cm", windows, self._bank[at % self._up], out=out)
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
