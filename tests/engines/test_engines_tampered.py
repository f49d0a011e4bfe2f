"""Exported folders that were tampered with or damaged: refused when they are loaded, or they run."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mutations import TEXTS, mutations, refusal
from safetensors.numpy import load_file, save_file
from strategies import random_model, small_config

from streaming_encodec.engines.onnx.codec import OrtDecoder, OrtEncoder
from streaming_encodec.engines.onnx.export import export
from streaming_encodec.errors import CheckpointError, ConfigError

CONFIG = small_config(num_lstm_layers=1, pad_mode="constant")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    export(random_model(CONFIG, 0, torch.float32), tmp_path / "codec", frames_per_step=2)
    return tmp_path / "codec"


def _config(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "codec.json").read_text())
    return config


def _runs(folder: Path) -> None:
    """Encode and decode some frames with each bandwidth that the folder names."""
    encoder, decoder = OrtEncoder(folder, None), OrtDecoder(folder)
    sound = 0.1 * np.random.default_rng(0).standard_normal((1, 5 * CONFIG.hop_length)).astype(np.float32)
    for entry in encoder.config["bandwidths"]:
        encoder.bandwidth = entry["kbps"]
        heard = decoder.push(encoder.push(sound))
        assert heard.shape[0] == 1
        assert np.isfinite(heard).all()


def test_what_was_exported_runs_and_has_checksums(folder: Path) -> None:
    _runs(folder)
    sums = _config(folder)["sha256"]
    assert set(sums) == {path.name for path in folder.iterdir()} - {"codec.json"}


@pytest.mark.parametrize("checked", [True, False], ids=["with checksums", "of an earlier version"])
def test_a_tampered_description(checked: bool, folder: Path) -> None:
    config = _config(folder)
    if not checked:
        del config["sha256"]
    refused, texts = 0, [*TEXTS, *mutations(config, 500)]
    for text in texts:
        (folder / "codec.json").write_text(text, encoding="utf-8", errors="replace")
        refused += refusal(lambda: _runs(folder), CheckpointError) is not None
    print(f"\n{refused} of {len(texts)} tampered codec.json refused, the others ran")
    assert refused > len(texts) / 2


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hop_length", 0), ("channels", 2), ("frames_per_step", 1), ("num_codebooks", 3), ("codebook_size", 17),
        ("latent_size", 9), ("bits_per_codebook", 5), ("tensors", "../tensors.safetensors"), ("model", "x"),
        ("bandwidths", []), ("quantizer", []), ("encoder", None), ("sampling_rate", "24000"), ("sha256", {}),
    ],
)  # fmt: skip
def test_a_field_that_does_not_fit(field: str, value: Any, folder: Path) -> None:
    (folder / "codec.json").write_text(json.dumps({**_config(folder), field: value}))
    with pytest.raises(CheckpointError, match="export"):
        OrtEncoder(folder, None)
    with pytest.raises(CheckpointError, match="export"):
        OrtDecoder(folder)


def test_files_of_other_names_are_not_opened(folder: Path) -> None:
    for name in ("../encoder.onnx", "/dev/zero", "decoder.onnx", "", "encoder.onnx\x00"):
        config = _config(folder)
        config["encoder"]["file"] = name
        (folder / "codec.json").write_text(json.dumps(config))
        with pytest.raises(CheckpointError, match="file is"):
            OrtEncoder(folder, None)


def test_a_flipped_bit_is_found(folder: Path) -> None:
    rng, flips = random.Random(0), 0
    for name in _config(folder)["sha256"]:
        whole = (folder / name).read_bytes()
        for _ in range(25):
            data, at = bytearray(whole), rng.randrange(len(whole))
            data[at] ^= 1 << rng.randrange(8)
            (folder / name).write_bytes(data)
            with pytest.raises(CheckpointError, match=f"{name} is not as it was written"):
                _runs(folder)
            flips += 1
        (folder / name).write_bytes(whole)
    _runs(folder)
    print(f"\n{flips} of {flips} flipped bits found")


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t[..., :-1], lambda t: t.astype(np.float64), lambda t: t * np.float32(np.nan), lambda t: t[None],
        lambda t: np.full_like(t, np.inf), lambda t: t.astype(np.int32), None,
    ],
)  # fmt: skip
def test_tensors_of_another_kind(change: Any, folder: Path) -> None:
    config = _config(folder)
    del config["sha256"]
    (folder / "codec.json").write_text(json.dumps(config))
    tensors = load_file(folder / "tensors.safetensors")
    for name in ("codebooks", next(name for name in tensors if name.startswith("encoder.layers"))):
        changed = {**tensors}
        if change is None:
            del changed[name]
        else:
            changed[name] = np.ascontiguousarray(change(tensors[name]))
        save_file(changed, folder / "tensors.safetensors")
        with pytest.raises(CheckpointError, match=name):
            OrtEncoder(folder, None)


def test_a_bandwidth_that_is_none_is_the_callers_error(folder: Path) -> None:
    for kbps in (5.5, "6", np.nan):
        with pytest.raises(ConfigError, match="choose"):
            OrtEncoder(folder, kbps)
