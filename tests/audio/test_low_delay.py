"""The resampler of calls: any cut, the delay it reports, and how much it lets through."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming_encodec.audio.low_delay import LowDelayResampler
from streaming_encodec.errors import StreamError

RATES = st.sampled_from([8000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000])


def tone(hz: float, rate: int, count: int, delay_s: float = 0.0) -> np.ndarray:
    return np.sin(2 * np.pi * hz * (np.arange(count) / rate - delay_s)).astype(np.float32)[None]


@given(RATES, RATES, st.lists(st.integers(0, 700), max_size=8), st.integers(1, 2))
def test_output_does_not_depend_on_cuts(source: int, target: int, cuts: list[int], channels: int) -> None:
    sound = np.random.default_rng(0).standard_normal((channels, sum(cuts))).astype(np.float32)
    whole = LowDelayResampler(source, target, channels).push(sound)
    resampler, at, parts = (
        LowDelayResampler(source, target, channels),
        0,
        [np.zeros((channels, 0), np.float32)],
    )
    for cut in cuts:
        parts.append(resampler.push(sound[:, at : at + cut]))
        at += cut
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=1e-5)
    assert whole.shape[1] == -(-sound.shape[1] * target // source)  # all of the new rate up to the last


@given(RATES, RATES, st.lists(st.integers(0, 400), min_size=1, max_size=6), st.integers(1, 2))
def test_the_matrix_is_the_filter_of_each_output(source: int, target: int, cuts: list[int], channels: int) -> None:
    rows, each = LowDelayResampler(source, target, channels), LowDelayResampler(source, target, channels)
    each._matrix = None
    random = np.random.default_rng(1)
    for cut in cuts:
        sound = random.standard_normal((channels, cut)).astype(np.float32)
        np.testing.assert_allclose(rows.push(sound), each.push(sound), atol=1e-5)


@given(RATES, RATES, st.integers(0, 500), st.integers(1, 900))
def test_inputs_for_is_the_least_that_gives_so_many_outputs(source: int, target: int, first: int, wanted: int) -> None:
    def after(more: int) -> int:
        resampler = LowDelayResampler(source, target)
        resampler.push(np.zeros((1, first), np.float32))
        needed = resampler.inputs_for(wanted)
        return resampler.push(np.zeros((1, max(0, needed + more)), np.float32)).shape[1]

    assert after(0) >= wanted
    assert after(-1) < wanted


@pytest.mark.parametrize(("source", "target"), [(48_000, 24_000), (24_000, 48_000), (44_100, 24_000), (16_000, 24_000)])
def test_a_tone_comes_out_as_it_went_in_but_for_the_reported_delay(source: int, target: int) -> None:
    resampler = LowDelayResampler(source, target)
    out = resampler.push(tone(3000, source, source // 2))
    wanted = tone(3000, target, out.shape[1], resampler.delay_ms / 1000)
    assert np.abs(out - wanted)[:, 200:].max() < 2e-3
    assert resampler.delay_ms < 1.5


def test_48_to_24_khz_costs_less_than_a_millisecond() -> None:
    assert LowDelayResampler(48_000, 24_000).delay_ms < 1
    assert LowDelayResampler(24_000, 48_000).delay_ms < 1
    assert LowDelayResampler(24_000, 24_000).delay_ms == 0


def test_what_the_lower_rate_cannot_hold_is_taken_out() -> None:
    out = LowDelayResampler(48_000, 24_000).push(tone(14_000, 48_000, 24_000))
    assert np.abs(out[:, 100:]).max() < 2e-3  # -54 dB; an alias would be at 10 kHz


def test_wrong_arguments_say_so() -> None:
    with pytest.raises(StreamError, match="must be positive"):
        LowDelayResampler(0, 24_000)
    with pytest.raises(StreamError, match=r"expected samples \[1, n\]"):
        LowDelayResampler(48_000, 24_000).push(np.zeros((2, 5), np.float32))
