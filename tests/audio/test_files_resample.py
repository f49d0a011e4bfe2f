"""Streaming resampling: the same as all at once, however it is cut."""

import numpy as np
import pytest
import soxr
from hypothesis import given
from hypothesis import strategies as st

from streaming_encodec.audio.resample import StreamResampler, mix_channels
from streaming_encodec.errors import StreamError


def noise(samples: int, channels: int) -> np.ndarray:
    return np.random.default_rng(samples).standard_normal((channels, samples)).astype(np.float32)


@given(
    rates=st.sampled_from([(44_100, 24_000), (48_000, 24_000), (16_000, 24_000), (24_000, 24_000), (8000, 48_000)]),
    channels=st.integers(1, 2),
    sizes=st.lists(st.integers(0, 3000), max_size=6),
)
def test_cuts_do_not_matter(rates: tuple[int, int], channels: int, sizes: list[int]) -> None:
    sound = noise(sum(sizes), channels)
    resampler = StreamResampler(*rates, channels)
    for _ in range(2):  # the second time after a flush: nothing is left of the first
        pieces = [resampler.push(part) for part in np.split(sound, np.cumsum(sizes), axis=1)]
        got = np.concatenate([*pieces, resampler.flush()], axis=1)
        want = sound if rates[0] == rates[1] else soxr.resample(sound.T, *rates, quality="HQ").T
        np.testing.assert_array_equal(got, want)


def test_delay_is_what_is_owed() -> None:
    resampler = StreamResampler(48_000, 24_000)
    out = resampler.push(noise(4800, 1))
    assert resampler.delay_samples == pytest.approx(2400 - out.shape[1], abs=1)
    assert StreamResampler(24_000, 24_000).delay_samples == 0


def test_refuses_what_it_cannot_do() -> None:
    with pytest.raises(StreamError, match="must be positive"):
        StreamResampler(0, 24_000)
    with pytest.raises(StreamError, match=r"\[2, n\]"):
        StreamResampler(48_000, 24_000, 2).push(noise(10, 1))
    with pytest.raises(StreamError, match="cannot be made 2"):
        mix_channels(noise(10, 6), 2)
