"""Folders out of their mind for the kernel's own reader, which does without torch: one `CheckpointError`."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from mutations import TEXTS, mutations, refusal
from strategies import random_model, small_config

from streaming_encodec.engines import make_engine
from streaming_encodec.errors import CheckpointError, StreamError
from streaming_encodec.model.folder import ModelFolder


def _load(folder: Path) -> None:
    try:
        _ = make_engine("kernel", ModelFolder(folder)).codec
    except StreamError as error:  # a sound model that does not stream by samples
        assert "cannot stream" in str(error)  # noqa: PT017


def test_mutated_folders(tmp_path: Path) -> None:
    random_model(small_config(num_lstm_layers=1), 0).float().save_pretrained(tmp_path)
    config = (tmp_path / "config.json").read_bytes()
    refused, texts = 0, [*TEXTS, json.dumps({"num_filters": 10**9}), *mutations(json.loads(config), 300)]
    for text in texts:
        (tmp_path / "config.json").write_text(text, encoding="utf-8", errors="replace")
        refused += refusal(lambda: _load(tmp_path), CheckpointError) is not None
    assert refused > len(texts) / 2
    (tmp_path / "config.json").write_bytes(config)
    whole = (tmp_path / "model.safetensors").read_bytes()
    (size,) = struct.unpack("<Q", whole[:8])
    heads = [text.encode(errors="replace") for text in (*TEXTS, *mutations(json.loads(whole[8 : 8 + size]), 300))]
    refused_heads = 0
    for head in heads:
        (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + whole[8 + size :])
        refused_heads += refusal(lambda: _load(tmp_path), CheckpointError) is not None
    print(f"\n{refused} of {len(texts)} configurations and {refused_heads} of {len(heads)} heads refused")
    assert refused_heads > len(heads) / 2
