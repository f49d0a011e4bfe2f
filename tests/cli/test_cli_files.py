"""`stream`, `encode`, `decode`, `info`, `models` on good input."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from cli_kit import CLIP, Run, noise
from ecdc_kit import read_ecdc_header
from original_encodec import save_th, small_original

from streaming_encodec.call.stream_format import stream_format
from streaming_encodec.model.encodec import EncodecModel


def sound_of(path: Path) -> np.ndarray:
    sound, _ = soundfile.read(path, dtype="float32", always_2d=True)
    return sound.T


@pytest.mark.parametrize("start", ["silence", "exact"])
def test_block_sizes_give_the_same_file(run: Run, mono_model: Path, speech: Path, tmp_path: Path, start: str) -> None:
    short = tmp_path / "short.wav"
    sound, rate = soundfile.read(speech, start=12_000, stop=17_001)
    soundfile.write(short, sound, rate)
    files = []
    for block in (1, 160, 480, 4096):
        out = tmp_path / f"{block}.wav"
        assert run("stream", short, out, "-m", mono_model, "--block-samples", block, "--start", start).code == 0
        files.append(out.read_bytes())
    assert len(set(files)) == 1
    assert np.abs(sound_of(out)).max() > 0.01  # and not silence


def test_exact_start_is_the_offline_model(run: Run, mono_model: Path, speech: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.wav"
    result = run("stream", speech, out, "-m", mono_model, "--start", "exact", "-b", 3, "--json")
    model = EncodecModel.from_pretrained(mono_model)
    with torch.no_grad():
        want = model(torch.from_numpy(sound_of(speech))[None], bandwidth=3.0).audio_values[0].numpy()
    assert sound_of(out).shape == want.shape
    np.testing.assert_allclose(sound_of(out), want.clip(-1, 1), atol=2e-4)
    facts = result.json
    assert facts["samples"] == 40_001
    assert facts["frames"] == 126
    assert (facts["num_codebooks"], facts["bandwidth_kbps"]) == (4, 3.0)
    assert facts["weights"] == "trained"
    assert facts["interrupted"] is False
    assert 0 < facts["compute_ms_p50"] <= facts["compute_ms_p99"] <= facts["compute_ms_max"]
    assert facts["real_time_factor"] > 0
    assert facts["delay_samples"] == 320


def test_segments_are_the_offline_model(run: Run, segment_model: Path, tmp_path: Path) -> None:
    sound = noise(tmp_path / "in.wav", 100_000, 48_000, 2)
    outs = []
    for block in (480, 70_000):
        out = tmp_path / f"{block}.flac"
        facts = run("stream", sound, out, "-m", segment_model, "--block-samples", block, "--json").json
        assert facts["delay_samples"] == 48_000
        outs.append(sound_of(out))
    np.testing.assert_array_equal(*outs)
    with torch.no_grad():
        want = EncodecModel.from_pretrained(segment_model)(torch.from_numpy(sound_of(sound))[None], bandwidth=6.0)
    np.testing.assert_allclose(outs[0], want.audio_values[0].numpy().clip(-1, 1), atol=2e-4)


def test_any_rate_and_channels(run: Run, mono_model: Path, tmp_path: Path) -> None:
    for number, (rate, channels) in enumerate([(8000, 1), (44_100, 2), (48_000, 6)]):
        source = noise(tmp_path / "in.wav", rate, rate, channels)
        out = tmp_path / f"{number}.wav"
        facts = run("stream", source, out, "-m", mono_model, "--json").json
        assert facts["samples"] == pytest.approx(24_000, abs=2)
        assert sound_of(out).shape == (1, facts["samples"])


@pytest.mark.parametrize("samples", [0, 1, 100, 319, 320, 2239])
def test_sound_shorter_than_the_start(run: Run, mono_model: Path, tmp_path: Path, samples: int) -> None:
    source = noise(tmp_path / "in.wav", samples)
    for start in ("silence", "exact"):
        out = tmp_path / f"{start}.wav"
        facts = run("stream", source, out, "-m", mono_model, "--start", start, "--json").json
        assert facts["frames"] == -(-samples // 320)
        assert sound_of(out).shape == (1, samples)
    ecdc, out = tmp_path / "a.ecdc", tmp_path / "a.wav"
    assert run("encode", source, ecdc, "-m", mono_model).code == 0
    assert run("decode", ecdc, out, "-m", mono_model).code == 0
    assert sound_of(out).shape == (1, samples)


def test_encode_and_decode(run: Run, mono_model: Path, speech: Path, tmp_path: Path) -> None:
    ecdc, out = tmp_path / "a.ecdc", tmp_path / "a.wav"
    facts = run("encode", speech, ecdc, "-m", mono_model, "-b", 6, "--json").json
    assert facts["bytes"] == ecdc.stat().st_size
    assert facts["model"] == "small-24khz"
    header = len('{"m": "small-24khz", "al": 40001, "nc": 8, "lm": false, "ar": "kernel-1"}') + 9
    assert facts["bytes"] == header + 126 * 10
    facts = run("decode", ecdc, out, "-m", mono_model, "--json").json
    assert facts["samples"] == 40_001
    with torch.no_grad():
        model = EncodecModel.from_pretrained(mono_model)
        want = model(torch.from_numpy(sound_of(speech))[None], bandwidth=6.0).audio_values[0].numpy()
    # A tie between two codes may fall otherwise in another block shape: most samples, not all.
    close = np.isclose(sound_of(out), want.clip(-1, 1), atol=2e-4)
    assert close.mean() > 0.9


def test_a_file_says_whose_arithmetic_found_its_codes(
    run: Run, mono_model: Path, segment_model: Path, speech: Path, tmp_path: Path
) -> None:
    ecdc = tmp_path / "a.ecdc"
    for engine, said in (("auto", "kernel-1"), ("onnx", "onnx"), ("eager", None)):
        facts = run("encode", speech, ecdc, "-m", mono_model, "--engine", engine, "--json").json
        assert facts["arithmetic"] == (said or "layers")
        assert read_ecdc_header(ecdc).arithmetic == said
        assert run("info", ecdc, "--json").json["arithmetic"].startswith(said or "layers")
    stereo = noise(tmp_path / "in.wav", 60_000, 48_000, 2)
    run("encode", stereo, ecdc, "-m", segment_model)
    assert read_ecdc_header(ecdc).arithmetic is None


def test_encode_and_decode_by_segments(run: Run, segment_model: Path, tmp_path: Path) -> None:
    source = noise(tmp_path / "in.wav", 100_000, 48_000, 2)
    ecdc, out = tmp_path / "a.ecdc", tmp_path / "a.wav"
    assert run("encode", source, ecdc, "-m", segment_model).code == 0
    assert run("decode", ecdc, out, "-m", segment_model).code == 0
    with torch.no_grad():
        want = EncodecModel.from_pretrained(segment_model)(torch.from_numpy(sound_of(source))[None], bandwidth=6.0)
    np.testing.assert_allclose(sound_of(out), want.audio_values[0].numpy().clip(-1, 1), atol=2e-4)


def test_default_model_runs_on_the_bundled_clip(run: Run, tmp_path: Path) -> None:
    short = tmp_path / "short.wav"
    sound, rate = soundfile.read(CLIP, stop=6000)
    soundfile.write(short, sound, rate)
    result = run("stream", short, tmp_path / "out.wav", "--json")
    assert result.json["model"] == "voice-24khz"
    # Weights that cannot be relied on are called so.
    assert result.json["weights"] == "preview"
    assert "is a preview" in result.err


def test_tables_for_people(run: Run, mono_model: Path, speech: Path, tmp_path: Path) -> None:
    table = run("stream", speech, tmp_path / "out.wav", "-m", mono_model).out
    for word in ("frames", "bitrate", "delay", "p50", "p99", "max", "real-time factor"):
        assert word in table
    assert "small-24khz" in run("encode", speech, tmp_path / "a.ecdc", "-m", mono_model).out
    assert "small-24khz" in run("decode", tmp_path / "a.ecdc", tmp_path / "b.wav", "-m", mono_model).out
    assert "facebook/encodec_24khz" in run("models").out


def test_info(run: Run, mono_model: Path, speech: Path, tmp_path: Path) -> None:
    facts = run("info", speech, "--json").json
    assert (facts["kind"], facts["sample_rate"], facts["samples"]) == ("sound", 24_000, 40_001)
    run("encode", speech, tmp_path / "a.ecdc", "-m", mono_model)
    facts = run("info", tmp_path / "a.ecdc", "--json").json
    assert (facts["kind"], facts["model"], facts["seconds"]) == ("ecdc", "small-24khz", 40_001 / 24_000)
    shutil.copytree(mono_model, tmp_path / "small2-24khz")
    run("encode", speech, tmp_path / "b.ecdc", "-m", tmp_path / "small2-24khz")
    assert run("info", tmp_path / "b.ecdc", "--json").json["seconds"] == 40_001 / 24_000, (
        "no digit of the name is a rate"
    )
    facts = run("info", mono_model, "--json").json
    assert (facts["kind"], facts["bandwidths_kbps"], facts["streams_by"]) == (
        "model",
        [1.5, 3.0, 6.0],
        "samples",
    )
    assert "24000" in run("info", speech).out


def test_info_tells_the_fingerprint_of_a_model_in_every_form(run: Run, mono_model: Path, tmp_path: Path) -> None:
    fingerprint = stream_format(EncodecModel.from_pretrained(mono_model)).model
    run("export", mono_model, tmp_path / "exported")
    for form in (mono_model, tmp_path / "exported"):
        facts = run("info", form, "--json").json
        assert (facts["fingerprint"], facts["num_codebooks"], facts["sample_rate"]) == (fingerprint, 8, 24_000), form
        assert fingerprint in run("info", form).out
    original = small_original(24_000)
    th = run("info", save_th(original, tmp_path / "model.th"), "--json").json
    assert th["fingerprint"] == stream_format(EncodecModel.from_pretrained(tmp_path / "model.th")).model
    bundled = run("info", "voice-24khz", "--json").json
    assert bundled["fingerprint"] == stream_format(EncodecModel.from_pretrained("voice-24khz")).model


def test_models(run: Run) -> None:
    names = [model["name"] for model in run("models", "--json").json["models"]]
    assert names[:2] == ["voice-24khz", "facebook/encodec_24khz"]
