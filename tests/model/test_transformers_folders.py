"""Folders that cross over: what older transformers wrote is read, and what is written its `AutoProcessor` reads."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import oracles
import pytest
import torch
import transformers
from transformers.models.encodec.configuration_encodec import EncodecConfig as TheirConfig

from streaming_encodec import EncodecModel, StreamingDecoder, StreamingEncoder
from streaming_encodec.errors import CheckpointError
from streaming_encodec.model.config import EncodecConfig
from streaming_encodec.model.find import fingerprint


def _as_until_4_51(config: Any) -> int:
    return int(1000 * config.target_bandwidths[-1] // (config.frame_rate * 10))


@pytest.fixture
def older(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers that counts codebooks as it did: 10 bits a code, whatever the codebooks' size."""
    monkeypatch.setattr(TheirConfig, "num_quantizers", property(_as_until_4_51))


@pytest.mark.usefixtures("older")
@pytest.mark.parametrize(("size", "held"), [(16, 8), (512, 8), (1024, 8), (2048, 8), (16384, 8)])
def test_a_folder_of_an_older_transformers_holds_what_it_holds(size: int, held: int, tmp_path: Path) -> None:
    draft = oracles.tiny_config(codebook_size=size)
    kbps = held * draft.frame_rate * 10 / 1000
    config = oracles.tiny_config(codebook_size=size, target_bandwidths=(kbps / 4, kbps / 2, kbps))
    oracle = oracles.hf_model(config, 3, torch.float32).eval()
    oracle.save_pretrained(tmp_path)
    model = EncodecModel.from_pretrained(tmp_path)
    assert len(oracle.quantizer.layers) == len(model.quantizer.codebooks) == model.config.num_quantizers == held
    x = oracles.samples((2, config.audio_channels, 400), 1, torch.float32)
    for bandwidth in config.target_bandwidths:
        with torch.no_grad():
            theirs, ours = oracle.encode(x, bandwidth=bandwidth), model.encode(x, bandwidth=bandwidth)
            assert torch.equal(ours.audio_codes, theirs.audio_codes)
            sound = oracle.decode(theirs.audio_codes, theirs.audio_scales)[0]
            torch.testing.assert_close(model.decode(ours).audio_values, sound, rtol=0, atol=1e-5)
    encoder, decoder = StreamingEncoder(model, kbps), StreamingDecoder(model)
    assert decoder.push(encoder.push(np.zeros(400, np.float32))).shape[1] > 0
    model.save_pretrained(tmp_path / "again")
    again = EncodecModel.from_pretrained(tmp_path / "again")
    assert fingerprint(again) == fingerprint(model)
    assert again.config.num_quantizers == held


def test_any_other_number_of_codebooks_is_a_file_that_does_not_fit(tmp_path: Path) -> None:
    EncodecModel(oracles.tiny_config()).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for factor in (0.5, 2):
        wrong = {**config, "target_bandwidths": [factor * b for b in config["target_bandwidths"]]}
        (tmp_path / "config.json").write_text(json.dumps(wrong))
        with pytest.raises(CheckpointError, match="does not fit its configuration"):
            EncodecModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("small", [oracles.tiny_config(), oracles.tiny_segment_config()], ids=["24 kHz", "48 kHz"])
def test_auto_processor_makes_the_inputs(small: EncodecConfig, tmp_path: Path) -> None:
    EncodecModel(small).save_pretrained(tmp_path)
    processor = transformers.AutoProcessor.from_pretrained(tmp_path)
    assert isinstance(processor, transformers.EncodecFeatureExtractor)
    assert (processor.sampling_rate, processor.feature_size) == (small.sampling_rate, small.audio_channels)
    assert (processor.chunk_length_s, processor.overlap) == (small.chunk_length_s, small.overlap)
    sound = np.zeros((small.audio_channels, 1000), np.float32).squeeze()
    inputs = processor(raw_audio=sound, sampling_rate=small.sampling_rate, return_tensors="pt")
    assert inputs["input_values"].shape[:2] == (1, small.audio_channels)


def test_the_bundled_model_has_one_too() -> None:
    folder = files("streaming_encodec").joinpath("assets", "voice-24khz")
    processor = transformers.AutoProcessor.from_pretrained(str(folder))
    assert (processor.sampling_rate, processor.feature_size) == (24_000, 1)
