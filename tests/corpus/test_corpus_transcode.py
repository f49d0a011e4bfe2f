"""Files through the codec as library functions."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from cli_kit import noise
from ecdc_kit import read_ecdc_header

from streaming_encodec import BandwidthError, ConfigError, EncodecModel, decode_file, encode_file, stream_file
from streaming_encodec.audio.files.writer import SOUND_ENDINGS
from streaming_encodec.errors import FileFormatError


def sound_of(path: Path) -> np.ndarray:
    return soundfile.read(path, dtype="float32", always_2d=True)[0].T


@pytest.mark.parametrize("kind", ["mono_model", "segment_model"])
def test_a_file_there_and_back_is_the_offline_model(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    folder = request.getfixturevalue(kind)
    model = EncodecModel.from_pretrained(folder)
    rate, channels = model.config.sampling_rate, model.config.audio_channels
    source = noise(tmp_path / "in.wav", 70_000, rate, channels)
    encoded = encode_file(source, tmp_path / "a.ecdc", folder, engine="eager")
    decoded = decode_file(tmp_path / "a.ecdc", tmp_path / "a.wav", model, engine="eager")
    assert encoded.model == folder.name == decoded.model == decoded.named_model
    assert (encoded.samples, decoded.samples) == (70_000, 70_000)
    assert (encoded.bandwidth_kbps, encoded.num_codebooks) == (6.0, decoded.num_codebooks)
    assert encoded.size_bytes == (tmp_path / "a.ecdc").stat().st_size
    with torch.no_grad():
        want = model(torch.from_numpy(sound_of(source))[None], bandwidth=6.0).audio_values[0].numpy()
    # A tie between two codes may fall otherwise in another block shape: most samples, not all.
    assert np.isclose(sound_of(tmp_path / "a.wav"), want.clip(-1, 1), atol=2e-4).mean() > 0.9


@pytest.mark.parametrize("kind", ["mono_model", "segment_model"])
def test_a_streamed_file_is_the_encoded_one_decoded(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    folder = request.getfixturevalue(kind)
    config = EncodecModel.from_pretrained(folder).config
    source = noise(tmp_path / "in.wav", 60_001, config.sampling_rate, config.audio_channels)
    encode_file(source, tmp_path / "a.ecdc", folder, bandwidth=3.0)
    decode_file(tmp_path / "a.ecdc", tmp_path / "a.wav", folder)
    streamed = stream_file(source, tmp_path / "b.wav", folder, bandwidth=3.0, start="exact", block_samples=777)
    assert streamed.samples == 60_001
    assert streamed.start == ("exact" if kind == "mono_model" else "segments")
    assert 0 < streamed.times.count <= streamed.frames
    close = np.isclose(sound_of(tmp_path / "a.wav"), sound_of(tmp_path / "b.wav"), atol=2e-4)
    assert close.mean() > 0.9


@pytest.mark.parametrize("ending", SOUND_ENDINGS)
def test_every_format_that_is_written(mono_model: Path, speech: Path, tmp_path: Path, ending: str) -> None:
    encode_file(speech, tmp_path / "a.ecdc", mono_model)
    for made in (
        decode_file(tmp_path / "a.ecdc", tmp_path / f"decoded{ending}", mono_model),
        stream_file(speech, tmp_path / f"streamed{ending}", mono_model),
    ):
        assert made.samples == 40_001
    # And each is read again as a source.
    again = encode_file(tmp_path / f"decoded{ending}", tmp_path / "b.ecdc", mono_model)
    assert again.source.samples >= 40_001  # MP3 may hold a little more


def test_progress_begins_at_nothing_and_ends_at_all(mono_model: Path, speech: Path, tmp_path: Path) -> None:
    for work in (
        lambda progress: encode_file(speech, tmp_path / "a.ecdc", mono_model, progress=progress),
        lambda progress: decode_file(tmp_path / "a.ecdc", tmp_path / "a.wav", mono_model, progress=progress),
        lambda progress: stream_file(speech, tmp_path / "b.wav", mono_model, progress=progress),
    ):
        seen: list[tuple[int, int | None]] = []
        work(lambda done, total, seen=seen: seen.append((done, total)))
        assert seen[0] == (0, 40_001)
        assert seen == sorted(seen)
        assert seen[-1] == (40_001, 40_001)


def test_a_stop_leaves_a_valid_file(mono_model: Path, segment_model: Path, tmp_path: Path) -> None:
    source = noise(tmp_path / "in.wav", 200_000, 48_000, 2)
    for model, name in ((mono_model, "mono"), (segment_model, "segments")):
        whole, part = tmp_path / f"{name}.ecdc", tmp_path / f"{name}-part.ecdc"
        encode_file(source, whole, model)
        stopped = encode_file(source, part, model, stop=lambda: True)
        assert 0 < stopped.samples < 200_000 / 2
        assert read_ecdc_header(part).samples == stopped.samples
        assert decode_file(part, tmp_path / "part.wav", model).samples == stopped.samples
        decoded = decode_file(whole, tmp_path / "a.wav", model, stop=lambda: True)
        assert 0 < decoded.samples == soundfile.info(tmp_path / "a.wav").frames < 100_000
        streamed = stream_file(source, tmp_path / "b.wav", model, stop=lambda: True)
        assert streamed.samples == 480 == soundfile.info(tmp_path / "b.wav").frames


def test_bad_input_is_one_error_and_leaves_nothing(mono_model: Path, speech: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(FileFormatError, match="cannot be read"):
        encode_file(tmp_path / "nix.wav", out / "a.ecdc", tmp_path / "no model")
    with pytest.raises(FileFormatError, match=r"use \.ecdc"):
        encode_file(speech, out / "a.wav", tmp_path / "no model")
    with pytest.raises(FileFormatError, match="is the input"):
        stream_file(speech, speech, tmp_path / "no model")
    with pytest.raises(BandwidthError, match=r"1\.5, 3, 6 kbps, not 5"):
        encode_file(speech, out / "a.ecdc", mono_model, bandwidth=5.0)
    with pytest.raises(ConfigError, match="model_name"):
        encode_file(speech, out / "a.ecdc", EncodecModel.from_pretrained(mono_model))
    encode_file(speech, tmp_path / "a.ecdc", EncodecModel.from_pretrained(mono_model), model_name="mine")
    with pytest.raises(FileFormatError, match="'mine', which is none of the published"):
        decode_file(tmp_path / "a.ecdc", out / "a.wav")
    assert os.listdir(out) == []


def test_no_torch_until_a_model_is_opened() -> None:
    program = (
        "import sys, streaming_encodec.corpus.local, streaming_encodec.corpus.encode; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
