"""Commands that take a model, given one out of its mind: exit code 1 and one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from cli_kit import Run

from streaming_encodec.model.encodec import EncodecModel


def _config(**changes: object) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
        return folder

    return make


def _text(text: str, name: str = "config.json") -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_text(text)
        return folder

    return make


def _original(tensors: dict[str, torch.Tensor]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        torch.save(tensors, folder / "model.th")
        return folder / "model.th"

    return make


MODELS = {
    "nested": _text("[" * 100_000),
    "NaN": _text('{"num_filters": NaN}'),
    "a name twice": _text('{"num_filters": 4, "num_filters": 4}'),
    "a billion filters": _config(num_filters=10**9),
    "20,000 codebooks": _config(target_bandwidths=[1.5, 15_000.0]),
    "a list": _config(upsampling_ratios={"8": 5}),
    "garbage weights": _text("garbage", "model.safetensors"),
    "stride 0": _original({"encoder.model.0.conv.conv.weight": torch.zeros(1).as_strided((2**33, 1, 7), (0, 0, 0))}),
    "meta": _original({"x": torch.zeros(3, device="meta")}),
    "no tensors": _original({}),
}


@pytest.mark.parametrize("case", MODELS)
def test_every_command_that_takes_a_model(case: str, run: Run, speech: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    EncodecModel.from_pretrained("voice-24khz").save_pretrained(folder)
    model = MODELS[case](folder)
    out = tmp_path / "out"
    for arguments in (
        ("info", model),
        ("stream", speech, tmp_path / "out.wav", "--model", model),
        ("encode", speech, tmp_path / "out.ecdc", "--model", model),
        ("corpus", speech.parent, out, "--model", model),
        ("export", model, out),
        ("evaluate", speech.parent, "--out", out, "--model", model),
        ("bench", "codec", "--model", model, "--rounds", 1),
    ):
        result = run(*arguments)
        assert result.code == 1, (arguments, result.out, result.err)
        assert "Traceback" not in result.err
        assert str(model) in " ".join(result.err.split()), arguments
    assert not out.exists()
