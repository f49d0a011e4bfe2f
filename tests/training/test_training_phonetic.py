"""The loss that hears words, against Hugging Face's Whisper with the same weights."""

from __future__ import annotations

import dataclasses
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import WhisperConfig
from transformers.audio_utils import mel_filter_bank
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from streaming_encodec.errors import ConfigError, FileFormatError
from streaming_encodec.training.config import LossConfig, TrainConfig
from streaming_encodec.training.curves import read_rows
from streaming_encodec.training.loop import TrainingRun
from streaming_encodec.training.phonetic import PhoneticLoss, read_ctranslate2

SECONDS = 0.64
LAYERS, WIDTH, HEADS, FRAMES, MELS = 2, 32, 4, 64, 80


def write_ctranslate2(path: Path, tensors: dict[str, np.ndarray], version: int = 6) -> None:
    """The file format of CTranslate2, as its documentation and its files show it."""

    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    kinds = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4}
    data = struct.pack("<I", version) + text("WhisperSpec") + struct.pack("<II", 3, len(tensors))
    for name, value in tensors.items():
        data += text(name) + struct.pack(f"<B{value.ndim}I", value.ndim, *value.shape)
        data += struct.pack("<BI", kinds[value.dtype.name], value.nbytes) + value.tobytes()
    path.write_bytes(data + struct.pack("<I", 0))


@pytest.fixture(scope="module")
def oracle() -> WhisperEncoder:
    torch.manual_seed(3)
    settings = WhisperConfig(
        d_model=WIDTH, encoder_layers=LAYERS, encoder_attention_heads=HEADS, encoder_ffn_dim=4 * WIDTH,
        num_mel_bins=MELS, max_source_positions=FRAMES // 2, dropout=0.0, attention_dropout=0.0,
    )  # fmt: skip
    encoder = WhisperEncoder(settings).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return encoder


@pytest.fixture(scope="module")
def weights(oracle: WhisperEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The oracle's weights as CTranslate2 lays them out: queries, keys and values in one matrix."""
    held = {name: value.detach().numpy() for name, value in oracle.state_dict().items()}
    tensors = {"decoder/scale": np.array(3, np.int8), "encoder/num_heads": np.array(HEADS, np.int16)}
    tensors["encoder/position_encodings/encodings"] = held["embed_positions.weight"]
    for conv in ("conv1", "conv2"):
        tensors |= {f"encoder/{conv}/{part}": held[f"{conv}.{part}"] for part in ("weight", "bias")}
    for i in range(LAYERS):
        theirs, ours = f"layers.{i}.", f"encoder/layer_{i}/"
        projections = [f"{theirs}self_attn.{name}_proj" for name in "qkv"]
        tensors[ours + "self_attention/linear_0/weight"] = np.concatenate([held[p + ".weight"] for p in projections])
        none = np.zeros(WIDTH, np.float32)  # keys have no bias
        tensors[ours + "self_attention/linear_0/bias"] = np.concatenate(
            [held.get(p + ".bias", none) for p in projections]
        )
        names = {"self_attention/linear_1": "self_attn.out_proj", "ffn/linear_0": "fc1", "ffn/linear_1": "fc2"}
        for name, their_name in names.items():
            tensors |= {f"{ours}{name}/{part}": held[f"{theirs}{their_name}.{part}"] for part in ("weight", "bias")}
        for name, their_name in {
            "self_attention/layer_norm": "self_attn_layer_norm",
            "ffn/layer_norm": "final_layer_norm",
        }.items():
            tensors[f"{ours}{name}/gamma"] = held[f"{theirs}{their_name}.weight"]
            tensors[f"{ours}{name}/beta"] = held[f"{theirs}{their_name}.bias"]
    folder = tmp_path_factory.mktemp("whisper")
    write_ctranslate2(folder / "model.bin", tensors)
    return folder


def test_the_layers_are_whispers(oracle: WhisperEncoder, weights: Path) -> None:
    loss = PhoneticLoss(24_000, LAYERS, weights)
    log_mel = torch.randn(2, MELS, FRAMES)
    theirs = oracle((log_mel + 4.0) / 4.0).last_hidden_state
    ours = loss.states(log_mel)[-1] * oracle.layer_norm.weight + oracle.layer_norm.bias
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_the_filters_are_whispers(weights: Path) -> None:
    theirs = mel_filter_bank(201, MELS, 0.0, 8000.0, 16_000, norm="slaney", mel_scale="slaney")
    assert np.allclose(PhoneticLoss(24_000, 0, weights).bank, theirs.T, atol=1e-7)


def test_a_tone_is_as_loud_at_any_sample_rate(weights: Path) -> None:
    def heard(rate: int) -> torch.Tensor:
        wave = 0.3 * torch.sin(2 * torch.pi * 1000.0 * torch.arange(int(SECONDS * rate)) / rate)
        return PhoneticLoss(rate, 0, weights).log_mel(wave[None, None])[0, :, 10].amax()

    assert heard(24_000) == pytest.approx(float(heard(16_000)), abs=0.01)


def test_equal_sounds_are_heard_alike_and_others_are_not(weights: Path) -> None:
    loss = PhoneticLoss(24_000, LAYERS, weights)
    sound = 0.1 * torch.randn(3, 1, 15360)
    assert float(loss(sound, sound)) == pytest.approx(0.0, abs=1e-9)
    near, far = loss(sound + 0.003 * torch.randn_like(sound), sound), loss(0.1 * torch.randn_like(sound), sound)
    assert 0.0 < float(near) < float(far)


def test_only_the_chosen_clips_learn_and_silence_does_no_harm(weights: Path) -> None:
    loss = PhoneticLoss(24_000, LAYERS, weights)
    output, target = 0.1 * torch.randn(4, 1, 15360), torch.zeros(4, 1, 15360)
    target[:2] = 0.1 * torch.randn(2, 1, 15360)
    value, gradient = loss.judge(output, target, torch.tensor([True, False, True, False]))
    assert value > 0.0
    assert bool(gradient.isfinite().all())
    assert [bool(row.any()) for row in gradient] == [True, False, True, False]
    none, gradient = loss.judge(output, target, torch.zeros(4, dtype=torch.bool))
    assert none == 0.0
    assert not bool(gradient.any())
    _, gradient = loss.judge(torch.zeros_like(output), target, torch.ones(4, dtype=torch.bool))
    assert bool(gradient.isfinite().all())


def test_bfloat16_points_where_float32_does(weights: Path) -> None:
    loss = PhoneticLoss(24_000, LAYERS, weights)
    output, target = 0.1 * torch.randn(4, 1, 15360, requires_grad=True), 0.1 * torch.randn(4, 1, 15360)
    exact = torch.autograd.grad(loss(output, target), output)[0]
    value, rough = loss.judge(output.detach(), target, torch.ones(4, dtype=torch.bool))
    assert value == pytest.approx(float(loss(output.detach(), target)), rel=0.02)
    assert float(torch.cosine_similarity(exact.flatten(), rough.flatten(), 0)) > 0.98


@pytest.mark.parametrize("damage", ["version", "cut", "int8", "nonsense"])
def test_a_file_that_is_no_model_says_so(damage: str, weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    whole = (weights / "model.bin").read_bytes()
    if damage == "version":
        path.write_bytes(struct.pack("<I", 9) + whole[4:])
    elif damage == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "int8":
        write_ctranslate2(path, {"encoder/conv1/weight": np.zeros((4, 4), np.int8)})
    else:
        path.write_bytes(b"\x06\0\0\0" + bytes(range(256)))
    with pytest.raises(FileFormatError, match=r"model\.bin"):
        read_ctranslate2(path, "encoder/")


def test_more_layers_than_there_are_is_an_error(weights: Path) -> None:
    with pytest.raises(ConfigError, match="2 layers"):
        PhoneticLoss(24_000, LAYERS + 1, weights)


def test_segments_longer_than_the_recogniser_hears_are_an_error() -> None:
    with pytest.raises(ConfigError, match="30 s"):
        TrainConfig(segment_seconds=31.0, loss=LossConfig(phonetic=1.0))


def test_a_run_learns_from_it_and_says_so(tiny_config: TrainConfig, weights: Path, tmp_path: Path) -> None:
    """Replicas share it, the log has it, and clips of more codebooks than ``phonetic_counts`` don't."""
    heard = {"phonetic": 4.0, "phonetic_layers": LAYERS, "phonetic_model": str(weights)}
    logs = {}
    for name, counts, replicas in (("few", 8, 1), ("shared", 8, 2), ("none", 0, 1)):
        loss = dataclasses.replace(tiny_config.loss, **heard, phonetic_counts=counts)
        run = TrainingRun(
            dataclasses.replace(tiny_config, out=str(tmp_path / name), loss=loss, replicas=replicas, steps=3)
        )
        logs[name] = [row["phonetic"] for row in run.run()]
        written = [float(row["phonetic"]) for row in read_rows(tmp_path / name / "log.csv")]
        assert written[0] == pytest.approx(logs[name][0], rel=1e-4)
    assert min(logs["few"]) > 0.0
    assert logs["shared"] == pytest.approx(logs["few"], rel=0.05)
    assert logs["none"] == [0.0, 0.0, 0.0]


def test_its_own_whisper_is_named_when_missing(tiny_config: TrainConfig, tmp_path: Path) -> None:
    loss = dataclasses.replace(tiny_config.loss, phonetic=1.0, phonetic_model=str(tmp_path / "nowhere"))
    with pytest.raises(FileFormatError, match="nowhere"):
        TrainingRun(dataclasses.replace(tiny_config, loss=loss))
