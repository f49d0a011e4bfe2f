"""Exported graphs on ONNX Runtime alone: the stream's output, in a process that cannot import torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from strategies import random_samples, small_config

import streaming_encodec as se
from streaming_encodec.call.stream_format import stream_format
from streaming_encodec.engines.onnx.codec import OrtDecoder, OrtEncoder
from streaming_encodec.engines.onnx.export import export
from streaming_encodec.errors import CheckpointError, ConfigError, FileFormatError, StreamError
from streaming_encodec.model.find import fingerprint

_ALONE = """
import sys
from importlib.abc import MetaPathFinder

class NoTorch(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "onnx", "huggingface_hub", "transformers"):
            raise ImportError(f"{name} is not here")

sys.meta_path.insert(0, NoTorch())
import numpy as np
from streaming_encodec.engines.onnx.codec import OrtDecoder, OrtEncoder

folder, sizes = sys.argv[1], [int(size) for size in sys.argv[2].split(",")]
given = np.load(f"{folder}.npz")
encoder, decoder = OrtEncoder(folder, None), OrtDecoder(folder)
encoder.bandwidth = float(given["kbps"])
codes, sound, at = [], [], 0
for size in sizes:
    codes.append(encoder.push(given["pcm"][:, at : at + size]))
    sound.append(decoder.push(codes[-1]))
    at += size
np.savez(f"{folder}.out.npz", codes=np.concatenate(codes, 1), sound=np.concatenate(sound, 1))
assert "torch" not in sys.modules
"""

CONFIGS = {
    "causal": {},
    "trimmed and shallow": {"trim_right_ratio": 0.5, "num_lstm_layers": 1, "use_conv_shortcut": False},
    "not causal, stereo": {"use_causal_conv": False, "audio_channels": 2, "num_lstm_layers": 0},
}


def make_model(**values: object) -> se.EncodecModel:
    torch.manual_seed(11)
    return se.EncodecModel(small_config(upsampling_ratios=(4, 3), **values))


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("frames_per_step", [1, 3])
def test_graphs_alone_give_the_streams_output(tmp_path: Path, name: str, frames_per_step: int) -> None:
    model = make_model(**CONFIGS[name])
    config = model.config
    folder = tmp_path / "codec"
    export(model, folder, frames_per_step)
    kbps = config.target_bandwidths[1]
    total = 30 * config.hop_length + 5
    sizes = [1, 0, 160, 7, 7, total - 175]
    pcm = random_samples(config, 1, total, 3)[0].float().numpy()
    np.savez(tmp_path / "codec.npz", pcm=pcm, kbps=kbps)
    subprocess.run([sys.executable, "-c", _ALONE, str(folder), ",".join(map(str, sizes))], check=True, timeout=120)

    got = np.load(tmp_path / "codec.out.npz")
    encoder = se.StreamingEncoder(model, kbps, frames_per_step=frames_per_step)
    decoder = se.StreamingDecoder(model, frames_per_step=frames_per_step)
    codes = encoder.push(pcm)
    assert codes.shape[1] >= 24
    assert got["codes"].shape == codes.shape
    assert np.mean(got["codes"] == codes) > 0.99
    sound = decoder.push(got["codes"])
    assert got["sound"].shape == sound.shape
    np.testing.assert_allclose(got["sound"], sound, atol=1e-4 * max(1.0, float(np.abs(sound).max())))


def test_the_output_does_not_depend_on_the_cut(tmp_path: Path) -> None:
    model = make_model()
    export(model, tmp_path / "codec")
    pcm = random_samples(model.config, 1, 20 * model.config.hop_length, 1)[0, 0].float().numpy()
    encoder, decoder = OrtEncoder(tmp_path / "codec", None), OrtDecoder(tmp_path / "codec")
    whole = encoder.push(pcm)
    encoder.reset()
    pieces = np.concatenate([encoder.push(block) for block in np.array_split(pcm, 33)], axis=1)
    assert np.array_equal(whole, pieces)
    sound = decoder.push(whole)
    decoder.reset()
    assert np.array_equal(np.concatenate([decoder.push(c[:, None]) for c in whole.T], axis=1), sound)
    # Concealment's way in: latents that stand for codes.
    decoder.reset()
    assert np.array_equal(decoder.push_latent(decoder.latent(whole), len(whole)), sound)


def test_bad_input_is_refused_and_leaves_the_stream_alone(tmp_path: Path) -> None:
    model = make_model()
    export(model, tmp_path / "codec")
    encoder, decoder = OrtEncoder(tmp_path / "codec", None), OrtDecoder(tmp_path / "codec")
    pcm = np.ones(3 * model.config.hop_length, np.float32)
    for bad in (np.full(9, np.nan), np.ones(9, np.int16), np.ones((2, 9))):
        with pytest.raises(StreamError):
            encoder.push(bad)
    for bad in (np.full((1, 1), 16), np.full((1, 1), -1), np.ones((9, 1), int), np.ones((1, 1))):
        with pytest.raises(StreamError):
            decoder.push(bad)
    assert np.array_equal(encoder.push(pcm), OrtEncoder(tmp_path / "codec", None).push(pcm))
    with pytest.raises(ConfigError, match="choose"):
        encoder.bandwidth = 5.5


def test_the_json_names_what_a_program_needs(tmp_path: Path) -> None:
    model = make_model()
    export(model, tmp_path / "codec", frames_per_step=2)
    config = json.loads((tmp_path / "codec" / "codec.json").read_text())
    assert config["model"] == fingerprint(model)
    assert config["hop_length"] == 12
    assert config["encoder"]["inputs_per_step"] == 24
    assert config["decoder"]["outputs_per_step"] == 24
    assert {"name": "layers.0.history", "shape": [6, 1]} in config["encoder"]["state"]
    assert [entry["num_codebooks"] for entry in config["bandwidths"]] == [1, 2, 4]
    assert sum(part["num_codebooks"] for part in config["quantizer"]) == 4
    export(model, tmp_path / "codec")  # over an earlier export


def test_the_other_end_of_a_call_names_the_model(tmp_path: Path) -> None:
    model = make_model()
    export(model, tmp_path / "codec")
    named = stream_format(model).model
    assert OrtDecoder(tmp_path / "codec", model=named).config["model"] == named
    OrtEncoder(tmp_path / "codec", None, model=named)
    # A config.json may spell a number either way.
    assert stream_format(make_model(trim_right_ratio=1)) == stream_format(model)


def test_an_export_that_fails_leaves_what_was_there_and_can_be_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, fresh, old = make_model(), tmp_path / "fresh", tmp_path / "old"
    export(model, old)
    (old / "quantizer.9.onnx").write_bytes(b"of a model with more of them")
    before = {file.name: file.read_bytes() for file in old.iterdir()}

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    for folder in (fresh, old):
        with monkeypatch.context() as patch:
            patch.setattr("streaming_encodec.engines.onnx.export.save_file", full)
            with pytest.raises(FileFormatError, match=f"{folder}: cannot be written: No space left"):
                export(model, folder, frames_per_step=3)
        assert {file.name: file.read_bytes() for file in old.iterdir()} == before
        assert folder.exists() == (folder is old)
        assert set(export(model, folder)) == set(folder.iterdir())
        assert OrtEncoder(folder, None).push(np.zeros(24, np.float32)).shape == (1, 2)


def test_wrong_folders_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="streaming-encodec export"):
        OrtDecoder(tmp_path / "nothing")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    model = make_model()
    with pytest.raises(StreamError, match="new folder"):
        export(model, tmp_path / "mine")

    one, other = tmp_path / "one", tmp_path / "other"
    export(model, one)
    export(make_model(num_filters=6), other)
    with pytest.raises(CheckpointError, match="wanted is 0123"):
        OrtDecoder(one, model="0123")
    (one / "decoder.onnx").write_bytes((other / "decoder.onnx").read_bytes())
    with pytest.raises(CheckpointError, match="export the model again"):
        OrtDecoder(one)
    (one / "decoder.onnx").write_bytes(b"garbage")
    with pytest.raises(CheckpointError, match="its checksum is another"):
        OrtDecoder(one)
    (one / "decoder.onnx").unlink()
    with pytest.raises(CheckpointError, match="missing"):
        OrtDecoder(one)
    (one / "tensors.safetensors").write_bytes(b"garbage")
    with pytest.raises(CheckpointError, match="damaged"):
        OrtDecoder(one)
    config = json.loads((one / "codec.json").read_text())
    (one / "codec.json").write_text(json.dumps(config | {"format": "streaming-encodec-steps-0"}))
    with pytest.raises(CheckpointError, match="this version reads"):
        OrtDecoder(one)
    with pytest.raises(StreamError, match="float32"):
        export(model.double(), tmp_path / "new")
