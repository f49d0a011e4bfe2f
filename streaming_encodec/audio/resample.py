"""Streaming conversion of sample rate and number of channels."""

import numpy as np
import soxr

from streaming_encodec.errors import StreamError
from streaming_encodec.samples import as_sample_rate
from streaming_encodec.types import Pcm

MAX_RATIO = 100
"""Largest ratio of two sample rates. A larger one comes from a damaged header: the filter would need gigabytes."""


def mix_channels(pcm: Pcm, channels: int) -> Pcm:
    """Fit `pcm` [C, n] to `channels`: many to one by their mean, one to many by repetition.

    Raises:
        StreamError: there is no evident conversion, as from 6 channels to 2.
    """
    have = pcm.shape[0]
    if have == channels:
        return pcm
    if channels == 1:
        mono: Pcm = pcm.mean(axis=0, keepdims=True, dtype=np.float32)
        return mono
    if have == 1:
        return np.repeat(pcm, channels, axis=0)
    raise StreamError(f"{have} channels cannot be made {channels}; mix the sound down to {channels} or 1 first")


class StreamResampler:
    """Blocks in, blocks out, at another rate; the output does not depend on how the input was cut.

    At equal rates the output is the input. The quality names are soxr's; `HQ` holds back up to 40 ms,
    which is fine for a file and too much for a call.
    """

    def __init__(self, source_rate: int, target_rate: int, channels: int = 1, quality: str = "HQ") -> None:
        source_rate, target_rate = as_sample_rate(source_rate), as_sample_rate(target_rate)
        if max(source_rate, target_rate) > MAX_RATIO * min(source_rate, target_rate):
            raise StreamError(f"{source_rate} Hz and {target_rate} Hz are more than a factor of {MAX_RATIO} apart")
        self.source_rate = source_rate
        self.target_rate = target_rate
        self.channels = channels
        self._soxr = (
            None
            if source_rate == target_rate
            else soxr.ResampleStream(source_rate, target_rate, channels, dtype="float32", quality=quality)
        )

    @property
    def delay_samples(self) -> float:
        """Output samples that are still due for the input so far."""
        return 0.0 if self._soxr is None else float(self._soxr.delay())

    def push(self, pcm: Pcm) -> Pcm:
        """Resample [C, n] to [C, m]; m varies from call to call and may be 0."""
        return self._run(pcm, last=False)

    def flush(self) -> Pcm:
        """Return the samples that are still due, and start a new stream."""
        rest = self._run(np.zeros((self.channels, 0), np.float32), last=True)
        if self._soxr is not None:
            self._soxr.clear()
        return rest

    def _run(self, pcm: Pcm, last: bool) -> Pcm:
        if pcm.ndim != 2 or pcm.shape[0] != self.channels:
            raise StreamError(f"expected samples [{self.channels}, n], got {list(pcm.shape)}")
        if self._soxr is None:
            return pcm
        frames = np.ascontiguousarray(pcm.T, dtype=np.float32)
        out: Pcm = self._soxr.resample_chunk(frames, last=last).T
        return out
