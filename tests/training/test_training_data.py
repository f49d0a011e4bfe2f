"""Draws of training segments, and their roughening."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from streaming_encodec.errors import FileFormatError
from streaming_encodec.training.augment import add_noise, add_reverb, at_speed, augment, band_limit
from streaming_encodec.training.config import AugmentConfig
from streaming_encodec.training.dataset import ClipStore, SegmentSource, load_split

from .conftest import voice_like

PLAIN = AugmentConfig(gain_db=(0.0, 0.0), noise_chance=0.0, band_limit_chance=0.0, reverb_chance=0.0, speed_chance=0.0)


def source_of(root: Path, samples: int = 4800, weights: dict[str, float] | None = None, seed: int = 1) -> SegmentSource:
    store = ClipStore(root, 24000, cache_mb=8)
    return SegmentSource(store, load_split(root, "train"), samples, weights or {}, AugmentConfig(), seed)


def test_a_step_always_draws_the_same_and_another_step_or_seed_something_else(tiny_data: Path) -> None:
    first = source_of(tiny_data)
    first.batch(3, 4)
    again = source_of(tiny_data)
    assert np.array_equal(first.batch(7, 4), again.batch(7, 4))
    assert not np.array_equal(first.batch(7, 4), first.batch(8, 4))
    assert not np.array_equal(first.batch(7, 4), source_of(tiny_data, seed=2).batch(7, 4))


def test_only_training_clips_are_drawn(tiny_data: Path) -> None:
    assert {clip.source for clip in load_split(tiny_data, "train")} == {"a", "b"}
    assert len(load_split(tiny_data, "valid")) == 2


def test_segments_longer_than_a_clip_are_padded_with_silence(tiny_data: Path) -> None:
    store = ClipStore(tiny_data, 24000, cache_mb=8)
    batch = SegmentSource(store, load_split(tiny_data, "train"), 72000, {}, PLAIN, 1).batch(0, 2)
    assert batch.shape == (2, 72000)
    assert batch.dtype == np.float32
    assert all((row == 0).sum() >= 11000 for row in batch)


def test_source_weights_decide_how_often_a_source_is_drawn(tiny_data: Path) -> None:
    clips = load_split(tiny_data, "train")
    store = ClipStore(tiny_data, 24000, cache_mb=8)
    source = SegmentSource(store, clips, 60000, {"a": 1.0, "b": 3.0}, PLAIN, 1)  # whole clips, so that they are known
    known = {round(float(np.abs(store.read(clip)).sum()), 1): clip.source for clip in clips}
    drawn = [known[round(float(np.abs(row).sum()), 1)] for step in range(40) for row in source.batch(step, 5)]
    assert 0.65 < drawn.count("b") / len(drawn) < 0.85


def test_unknown_source_weights_and_an_empty_set_are_refused(tiny_data: Path) -> None:
    with pytest.raises(FileFormatError, match="nobody"):
        source_of(tiny_data, weights={"nobody": 1.0})
    with pytest.raises(FileFormatError, match="no clips"):
        SegmentSource(ClipStore(tiny_data, 24000, 1), [], 100, {}, PLAIN, 1)


def test_a_data_set_at_another_rate_is_refused(tiny_data: Path) -> None:
    with pytest.raises(FileFormatError, match="16000"):
        ClipStore(tiny_data, 16000, 1).read(load_split(tiny_data, "train")[0])


def test_the_cache_stays_within_its_budget(tiny_data: Path) -> None:
    store = ClipStore(tiny_data, 24000, cache_mb=0)
    clips = load_split(tiny_data, "train")
    first = [store.read(clip) for clip in clips]
    assert all(np.array_equal(one, store.read(clip)) for one, clip in zip(first, clips, strict=True))
    assert len(store._cache) == 1


@pytest.mark.parametrize("speed", [0.8, 1.0, 1.25])
def test_speed_moves_the_pitch_by_its_factor(speed: float) -> None:
    tone = np.sin(2 * np.pi * 400 * np.arange(16000) / 24000).astype(np.float32)
    played = at_speed(tone, speed, 12000)
    assert played.shape == (12000,)
    spectrum = np.abs(np.fft.rfft(played * np.hanning(12000)))
    assert spectrum.argmax() * 2 == pytest.approx(400 * speed, abs=3)


def test_a_drawn_speed_is_within_its_range_and_fills_the_segment(tiny_data: Path) -> None:
    store, clips = ClipStore(tiny_data, 24000, 8), load_split(tiny_data, "train")
    fast = dataclasses.replace(PLAIN, speed_chance=1.0, speed=(1.2, 1.25))
    batch = SegmentSource(store, clips, 24000, {}, fast, 1).batch(0, 6)
    assert batch.shape == (6, 24000)
    assert all(np.abs(row[-500:]).max() > 1e-3 for row in batch)


def test_augmented_sound_is_bounded_and_finite() -> None:
    loud = AugmentConfig(gain_db=(20.0, 30.0), noise_chance=1.0, band_limit_chance=1.0, reverb_chance=1.0)
    for seed in range(5):
        y = augment(voice_like(0.5, seed), 24000, loud, np.random.default_rng(seed))
        assert y.shape == (12000,)
        assert np.isfinite(y).all()
        assert 0.5 < np.abs(y).max() <= 1.0 + 1e-6


def test_gain_is_in_its_range_and_both_polarities_occur() -> None:
    x = voice_like(0.5, 1)
    config = AugmentConfig(gain_db=(-6.0, -6.0), noise_chance=0.0, band_limit_chance=0.0, reverb_chance=0.0)
    ratios = [augment(x, 24000, config, np.random.default_rng(s))[100] / x[100] for s in range(12)]
    assert np.allclose(np.abs(ratios), 10 ** (-6 / 20), rtol=1e-4)
    assert {r > 0 for r in ratios} == {
        True,
        False,
    }


@pytest.mark.parametrize("snr_db", [5.0, 20.0])
def test_noise_has_the_level_asked_for(snr_db: float) -> None:
    x = voice_like(1.0, 2)
    noise = add_noise(x, snr_db, np.random.default_rng(0)) - x
    assert 10 * np.log10(np.mean(x**2) / np.mean(noise**2)) == pytest.approx(snr_db, abs=0.3)


def test_band_limit_removes_what_is_above_and_keeps_what_is_below() -> None:
    x = np.random.default_rng(0).standard_normal(24000).astype(np.float32)
    power = np.abs(np.fft.rfft(band_limit(x, 4000.0, 24000))) ** 2
    before = np.abs(np.fft.rfft(x)) ** 2
    assert power[4500:].sum() < 1e-6 * before[4500:].sum()
    assert power[:3900].sum() == pytest.approx(before[:3900].sum(), rel=0.02)


def test_reverb_keeps_the_direct_sound_and_adds_a_tail() -> None:
    click = np.zeros(12000, dtype=np.float32)
    click[100] = 1.0
    wet = add_reverb(click, 0.3, 24000, np.random.default_rng(0))
    assert wet[100] == pytest.approx(1.0, abs=1e-3)
    assert np.abs(wet[:100]).max() < 1e-5
    assert np.abs(wet[200:1000]).mean() > 10 * np.abs(wet[6000:7300]).mean() > 0
