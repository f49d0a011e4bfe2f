"""The model that ships with the package: size, layout, calm on hostile sounds, and that it codes speech."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from transformers import EncodecModel as Reference

from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.streaming.decoder import StreamingDecoder
from streaming_encodec.streaming.encoder import StreamingEncoder
from streaming_encodec.training.losses import MelLoss

ASSETS = Path(str(files("streaming_encodec"))) / "assets"
FOLDER = ASSETS / "voice-24khz"


@pytest.fixture(scope="module")
def model() -> EncodecModel:
    return EncodecModel.from_pretrained("voice-24khz")


@pytest.fixture(scope="module")
def speech() -> torch.Tensor:
    samples, rate = soundfile.read(ASSETS / "speech.flac", dtype="float32")
    assert rate == 24000
    return torch.from_numpy(samples[: 4 * 24000])[None, None]


def test_it_is_small_and_has_the_rates_promised(model: EncodecModel) -> None:
    assert sum(p.numel() for p in model.parameters()) <= 5_000_000
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 12_000_000
    config = model.config
    assert (config.sampling_rate, config.hop_length, config.audio_channels) == (24000, 320, 1)
    assert config.use_causal_conv
    assert config.streams_by_sample
    assert [config.num_codebooks_for(b) for b in config.target_bandwidths] == [2, 4, 8, 16]


def test_its_card_names_data_licences_and_limits() -> None:
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    for word in ("Apache-2.0", "CC-BY", "festvox-ru", "Seed", "Hardware", "Limits", "PESQ", "STOI"):
        assert word in card, word


def test_transformers_loads_it_as_its_own(model: EncodecModel, speech: torch.Tensor) -> None:
    reference = Reference.from_pretrained(FOLDER).float().eval()
    with torch.no_grad():
        ours = model.encode(speech, bandwidth=6.0).audio_codes
        theirs = reference.encode(speech, bandwidth=6.0).audio_codes
        decoded = reference.decode(ours, [None]).audio_values
        expected = model.decode(ours).audio_values
    assert float((ours == theirs).float().mean()) > 0.99
    assert torch.allclose(decoded, expected, atol=1e-3)


def test_speech_survives_and_each_bandwidth_is_better_than_the_one_below(
    model: EncodecModel, speech: torch.Tensor
) -> None:
    mel = MelLoss(24000, (1024,))
    with torch.no_grad():
        decoded = [model(speech, bandwidth=bandwidth).audio_values for bandwidth in (1.5, 3.0, 6.0, 12.0)]
        errors = [float((y - speech).pow(2).mean() / speech.pow(2).mean()) for y in decoded]
        distances = [float(mel(y, speech)) for y in decoded]
    assert errors == sorted(errors, reverse=True)
    assert errors[2] < 0.5
    assert errors[0] < 0.9
    assert distances[2] < distances[0] < 1.1
    levels = [float(y.pow(2).mean().sqrt() / speech.pow(2).mean().sqrt()) for y in decoded]
    assert all(0.4 < level < 1.3 for level in levels)


@pytest.mark.parametrize("kbps", [1.5, 12.0])
@pytest.mark.parametrize("kind", ["silence", "square", "noise", "clipped"])
def test_hostile_sounds_stay_finite_and_bounded_through_the_stream(model: EncodecModel, kind: str, kbps: float) -> None:
    t = np.arange(2 * 24000) / 24000
    sounds = {
        "silence": np.zeros(len(t)),
        "square": np.sign(np.sin(2 * np.pi * 220 * t) + 1e-9),
        "noise": np.random.default_rng(0).uniform(-1, 1, len(t)),
        "clipped": np.clip(20 * np.sin(2 * np.pi * 97 * t * (1 + t)), -1, 1),
    }
    encoder = StreamingEncoder(model, bandwidth=kbps, frames_per_step=5)
    decoder = StreamingDecoder(model, frames_per_step=5)
    x = sounds[kind].astype(np.float32)
    codes = np.concatenate([encoder.push(x), encoder.flush()], axis=-1)
    y = np.concatenate([decoder.push(codes), decoder.flush()], axis=-1)
    assert np.isfinite(y).all()
    assert np.abs(y).max() < 12.0
    if kind == "silence":
        assert np.sqrt(np.mean(y[:, 4800:] ** 2)) < 0.003
