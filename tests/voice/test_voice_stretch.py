"""Bending time: right length, same pitch, no clicks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming_encodec.voice.stretch import Stretcher

RATE = 24_000


def tone(hertz: float, count: int, rate: int = RATE, level: float = 0.3) -> np.ndarray:
    time = np.arange(count) / rate
    return (level * np.sin(2 * np.pi * hertz * time + 0.3)).astype(np.float32)[None]


def roughness(sound: np.ndarray) -> float:
    """Largest jump of the slope: what a click is."""
    return float(np.abs(np.diff(sound, n=2)).max())


@pytest.mark.parametrize("hertz", [90.0, 143.0, 220.0, 371.0])
def test_a_voiced_sound_loses_whole_periods_and_does_not_click(hertz: float) -> None:
    sound = tone(hertz, 640)
    short = Stretcher(RATE).shorten(sound)
    removed = sound.shape[1] - short.shape[1]
    assert removed > 0
    periods = removed * hertz / RATE
    assert abs(periods - round(periods)) < 0.05
    assert roughness(short) < 1.2 * roughness(sound)


@pytest.mark.parametrize("hertz", [90.0, 143.0, 220.0, 371.0])
def test_stretching_says_whole_periods_twice(hertz: float) -> None:
    stretcher = Stretcher(RATE)
    both = tone(hertz, 640 + 320)
    past, sound = both[:, :640], both[:, 640:]
    longer = stretcher.stretch(past, sound)
    periods = (longer.shape[1] - sound.shape[1]) * hertz / RATE
    assert periods > 0.9
    assert abs(periods - round(periods)) < 0.05
    assert roughness(np.concatenate([past, longer], axis=1)) < 1.2 * roughness(both)


@pytest.mark.parametrize("most", [60, 100, 250])
def test_no_piece_is_longer_than_allowed(most: int) -> None:
    """143 Hz has periods of 168 samples at this rate: one fits, or what fits best."""
    sound = tone(143.0, 640)
    left = Stretcher(RATE).shorten(sound, force=True, most=most)
    assert most // 2 <= sound.shape[1] - left.shape[1] <= most
    assert Stretcher(RATE).shorten(sound, force=True, most=59).shape == sound.shape  # shorter than any period


def test_both_ends_stay_so_that_the_frames_around_join() -> None:
    sound = tone(150, 1280)
    for short in (Stretcher(RATE).shorten(sound), Stretcher(RATE).shorten(sound, force=True, times=3)):
        assert np.array_equal(short[:, :1], sound[:, :1]) or abs(short[0, 0] - sound[0, 0]) < 0.01
        assert np.array_equal(short[:, -40:], sound[:, -40:])
    longer = Stretcher(RATE).stretch(sound[:, :640], sound[:, 640:])
    assert np.array_equal(longer[:, -40:], sound[:, -40:])


def test_noise_is_left_alone_unless_it_is_quiet_or_must_be() -> None:
    rng = np.random.default_rng(0)
    stretcher = Stretcher(RATE)
    loud = (0.2 * rng.standard_normal((1, 640))).astype(np.float32)
    assert stretcher.shorten(loud) is loud
    assert stretcher.stretch(loud, loud) is loud
    assert stretcher.shorten(loud, force=True).shape[1] < 640
    assert stretcher.stretch(loud, loud, force=True).shape[1] > 640
    assert stretcher.shorten(loud * 0.01).shape[1] < 640
    assert stretcher.stretch(loud * 0.01, loud * 0.01).shape[1] > 640


def test_a_hurry_takes_about_half() -> None:
    sound = tone(120, 1280)
    assert 500 < Stretcher(RATE).shorten(sound, force=True, times=3).shape[1] < 800


@given(
    st.integers(0, 1300),
    st.integers(0, 700),
    st.sampled_from([8_000, 24_000, 48_000]),
    st.integers(1, 2),
    st.booleans(),
)
def test_any_shape_is_taken(count: int, past: int, rate: int, channels: int, force: bool) -> None:
    rng = np.random.default_rng(count)
    stretcher = Stretcher(rate)
    sound = rng.standard_normal((channels, count)).astype(np.float32)
    before = rng.standard_normal((channels, past)).astype(np.float32)
    short = stretcher.shorten(sound, force=force, times=2)
    longer = stretcher.stretch(before, sound, force=force)
    assert short.dtype == longer.dtype == np.float32
    assert short.shape[1] <= count <= longer.shape[1]
    assert short.shape[0] == longer.shape[0] == channels
    assert np.isfinite(short).all()
    assert np.isfinite(longer).all()


def test_silence_and_extremes_give_numbers() -> None:
    stretcher = Stretcher(RATE)
    for sound in (np.zeros((1, 640), np.float32), np.full((1, 640), 1e30, np.float32)):
        assert np.isfinite(stretcher.shorten(sound, force=True)).all()
        assert np.isfinite(stretcher.stretch(sound, sound, force=True)).all()
