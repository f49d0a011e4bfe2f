"""The kernel's own reader of model folders: the same image as torch's way, and bad files refused by name."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from engines.kernel_kit import Speech
from safetensors.torch import load_file, save_file
from strategies import random_model, small_config

import streaming_encodec as se
from streaming_encodec.engines import make_engine
from streaming_encodec.engines.kernel.engine import KernelEngine
from streaming_encodec.engines.kernel.self_test import load_library
from streaming_encodec.errors import CheckpointError, StreamError
from streaming_encodec.model.folder import ModelFolder

ASSETS = Path(se.__file__).parent / "assets" / "voice-24khz"


def same(folder: Path, half: bool = False) -> None:
    """Without torch the same memory comes about as with it."""
    alone = KernelEngine("kernel", ModelFolder(folder), half).codec
    engine = KernelEngine("kernel", se.EncodecModel.from_pretrained(folder), half)
    assert alone.arithmetic == engine.arithmetic
    assert alone.image.tobytes() == engine.codec.image.tobytes()


def test_the_bundled_model_is_read_as_torch_reads_it() -> None:
    same(ASSETS)
    alone = KernelEngine("kernel", ModelFolder(ASSETS)).codec
    assert alone.image.tobytes() == Speech(0).codec(load_library()).image.tobytes()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("norm", ["_g _v", "parametrizations", "folded"])
def test_any_spelling_of_weight_norm_and_any_precision(dtype: torch.dtype, norm: str, tmp_path: Path) -> None:
    config = small_config(upsampling_ratios=(3, 2), num_filters=16, num_lstm_layers=2, audio_channels=2)
    random_model(config, 1, torch.float32).save_pretrained(tmp_path, dtype)
    path = tmp_path / "model.safetensors"
    tensors = {name: tensor * 1.5 if name.endswith("_g") else tensor for name, tensor in load_file(path).items()}
    if norm == "parametrizations":
        spelled = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
        for old, new in spelled.items():
            tensors = {name.replace(old, new): tensor for name, tensor in tensors.items()}
    elif norm == "folded":
        tensors = se.EncodecModel.from_pretrained(tmp_path).state_dict()
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, path)
    for half in (False, True):
        same(tmp_path, half)


def damaged(name: str, tmp_path: Path) -> Path:
    random_model(small_config(), 1, torch.float32).save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    content = path.read_bytes()
    tensors = load_file(path)
    weight = "decoder.layers.0.conv.bias"
    if name == "missing":
        path.unlink()
    elif name == "empty":
        path.write_bytes(b"")
    elif name == "cut off":
        path.write_bytes(content[:-100])
    elif name == "long head":
        path.write_bytes((2**60).to_bytes(8, "little") + content[8:])
    elif name == "no head":
        path.write_bytes((4).to_bytes(8, "little") + b"[0] ")
    elif name == "not finite":
        save_file(tensors | {weight: tensors[weight] * torch.inf}, path)
    elif name == "one too few":
        save_file({key: tensor for key, tensor in tensors.items() if key != weight}, path)
    elif name == "another shape":
        save_file(tensors | {weight: tensors[weight][:-1].clone()}, path)
    elif name == "whole numbers":
        save_file(tensors | {weight: tensors[weight].int()}, path)
    return tmp_path


@pytest.mark.parametrize(
    "name",
    [
        "missing",
        "empty",
        "cut off",
        "long head",
        "no head",
        "not finite",
        "one too few",
        "another shape",
        "whole numbers",
    ],
)
def test_damaged_files_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        _ = KernelEngine("kernel", ModelFolder(damaged(name, tmp_path))).codec


def test_a_model_of_segments_is_refused(tmp_path: Path) -> None:
    shutil.copytree(ASSETS, tmp_path / "m")
    config = json.loads((ASSETS / "config.json").read_text()) | {"chunk_length_s": 1.0, "overlap": 0.01}
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    with pytest.raises(StreamError, match="cannot stream"):
        make_engine("kernel", tmp_path / "m")


def test_no_torch_is_imported() -> None:
    program = """
import sys
from pathlib import Path
import numpy as np
from streaming_encodec.engines import make_engine
codec = make_engine("kernel", Path(sys.argv[1])).codec
y, _ = codec.encoder.step(np.zeros((1, 320, 1), np.float32), np.zeros((1, codec.encoder.state_floats), np.float32))
print(codec.search(y[0], 8).shape, *sorted(sys.modules))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, ASSETS], check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.startswith("(1, 8)")
    assert {"torch", "onnxruntime", "safetensors", "huggingface_hub"}.isdisjoint(done.stdout.split())
