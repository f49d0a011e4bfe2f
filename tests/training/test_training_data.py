"""Draws of training segments, and their roughening."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import soundfile

from streaming_encodec.errors import FileFormatError
from streaming_encodec.training.augment import add_noise, add_reverb, at_speed, augment, band_limit, microphone, mix
from streaming_encodec.training.config import AugmentConfig
from streaming_encodec.training.dataset import ClipStore, Sampling, SegmentSource, draw_weights, load_split
from streaming_encodec.training.recipe import Clip

from .conftest import voice_like

PLAIN = AugmentConfig(
    gain_db=(0.0, 0.0), noise_chance=0.0, band_limit_chance=0.0, reverb_chance=0.0, speed_chance=0.0,
    scene_chance=0.0, microphone_chance=0.0,
)  # fmt: skip


def source_of(root: Path, samples: int = 4800, weights: dict[str, float] | None = None, seed: int = 1) -> SegmentSource:
    store = ClipStore(root, 24000, cache_mb=8)
    sampling = Sampling(source_weights=weights or {})
    return SegmentSource(store, load_split(root, "train"), samples, sampling, AugmentConfig(), seed)


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
    batch = SegmentSource(store, load_split(tiny_data, "train"), 72000, Sampling(), PLAIN, 1).batch(0, 2)
    assert batch.shape == (2, 72000)
    assert batch.dtype == np.float32
    assert all((row == 0).sum() >= 11000 for row in batch)


def test_source_weights_decide_how_often_a_source_is_drawn(tiny_data: Path) -> None:
    clips = load_split(tiny_data, "train")
    store = ClipStore(tiny_data, 24000, cache_mb=8)
    weights = Sampling(source_weights={"b": 6.0})  # twice as many clips are of a
    source = SegmentSource(store, clips, 60000, weights, PLAIN, 1)  # whole clips, so that they are known
    known = {round(float(np.abs(store.read(clip)).sum()), 1): clip.source for clip in clips}
    drawn = [known[round(float(np.abs(row).sum()), 1)] for step in range(40) for row in source.batch(step, 5)]
    assert 0.65 < drawn.count("b") / len(drawn) < 0.85


def test_unknown_source_weights_and_an_empty_set_are_refused(tiny_data: Path) -> None:
    with pytest.raises(FileFormatError, match="nobody"):
        source_of(tiny_data, weights={"nobody": 1.0})
    with pytest.raises(FileFormatError, match="no clips"):
        SegmentSource(ClipStore(tiny_data, 24000, 1), [], 100, Sampling(), PLAIN, 1)


def clip_of(speaker: str, seconds: float, bandwidth_hz: int | None = None, content: str = "speech") -> Clip:
    return Clip(f"{speaker}.flac", seconds, "s", "MIT", speaker, "train", content, bandwidth_hz)


def test_speakers_are_drawn_evenly_and_one_with_little_sound_less() -> None:
    clips = [clip_of("anna", 600.0), clip_of("anna", 1200.0), clip_of("bert", 100.0), clip_of("carl", 10.0)]
    assert draw_weights(clips, Sampling(speaker_seconds=40.0)) == pytest.approx([40 / 3, 80 / 3, 40.0, 10.0])


def test_wideband_clips_are_drawn_more_often() -> None:
    clips = [clip_of("anna", 50.0, 7900), clip_of("bert", 50.0, 11000), clip_of("carl", 50.0)]
    assert draw_weights(clips, Sampling(wideband_factor=3.0)) == pytest.approx([30.0, 90.0, 30.0])


def test_noise_is_mixed_into_speech_and_never_coded_alone(tiny_data: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    speech = clip_of("anna", 1.0)
    scene = clip_of("rain", 1.0, content="noise")
    soundfile.write(tmp_path / speech.file, voice_like(1.0, 1), 24000, subtype="PCM_16")
    soundfile.write(tmp_path / scene.file, rng.uniform(-0.5, 0.5, 24000), 24000, subtype="PCM_16")
    always = dataclasses.replace(PLAIN, scene_chance=1.0, scene_snr_db=(10.0, 10.0), microphone_chance=0.0)
    never = dataclasses.replace(always, scene_chance=0.0)
    store = ClipStore(tmp_path, 24000, 8)

    def high_band(config: AugmentConfig) -> float:
        batch = SegmentSource(store, [speech, scene], 24000, Sampling(), config, 1).batch(0, 4)
        return float((np.abs(np.fft.rfft(batch)[:, 8000:]) ** 2).mean())

    assert high_band(always) > 20 * high_band(never)
    with pytest.raises(FileFormatError, match="no clips"):
        SegmentSource(store, [scene], 24000, Sampling(), always, 1)


@pytest.mark.parametrize("snr_db", [5.0, 30.0])
def test_a_scene_lies_as_far_below_the_voice_as_asked(snr_db: float) -> None:
    x, scene = voice_like(1.0, 2), voice_like(1.0, 3)
    noise = mix(x, scene, snr_db) - x
    assert 10 * np.log10(np.mean(x**2) / np.mean(noise**2)) == pytest.approx(snr_db, abs=0.3)


def test_a_microphone_colours_within_its_bounds_and_smoothly() -> None:
    x = np.random.default_rng(0).standard_normal(24000).astype(np.float32)
    y = microphone(x, 6.0, 24000, np.random.default_rng(1))
    response_db = 20 * np.log10(np.abs(np.fft.rfft(y)[60:-1]) / np.abs(np.fft.rfft(x)[60:-1]))
    assert np.abs(response_db).max() < 6.1
    assert response_db.std() > 1.0
    assert np.abs(np.diff(response_db)).max() < 0.2


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
    batch = SegmentSource(store, clips, 24000, Sampling(), fast, 1).batch(0, 6)
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
    config = dataclasses.replace(PLAIN, gain_db=(-6.0, -6.0))
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
