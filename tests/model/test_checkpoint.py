"""Model folders: both spellings of weight norm, what transformers reads and writes, and wrong files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import oracles
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from streaming_encodec.errors import CheckpointError
from streaming_encodec.model.checkpoints import folder as checkpoint
from streaming_encodec.model.config import EncodecConfig
from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.model.find import fingerprint

CONFIGS = {"weight_norm": oracles.tiny_config(), "time_group_norm": oracles.tiny_segment_config()}
by_norm = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())


def in_new_spelling(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    spelled = {}
    for name, value in tensors.items():
        name = name.replace(".weight_g", ".parametrizations.weight.original0")
        spelled[name.replace(".weight_v", ".parametrizations.weight.original1")] = value
    return spelled


def in_old_spelling(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    spelled = {}
    for name, value in tensors.items():
        name = name.replace(".parametrizations.weight.original0", ".weight_g")
        spelled[name.replace(".parametrizations.weight.original1", ".weight_v")] = value
    return spelled


def same_codec(model: EncodecModel, oracle: transformers.EncodecModel, tolerance: float) -> None:
    dtype = model.quantizer.codebooks[0].embed.dtype
    x = oracles.samples((2, model.config.audio_channels, 200), 1, dtype)
    with torch.no_grad():
        latent, expected = model.encoder(x), oracle.encoder(x)
        torch.testing.assert_close(latent, expected, rtol=0, atol=tolerance)
        out, wanted = model.decoder(latent), oracle.decoder(latent)
    torch.testing.assert_close(out, wanted, rtol=0, atol=tolerance)
    for ours, theirs in zip(model.quantizer.codebooks, oracle.quantizer.layers, strict=True):
        assert torch.equal(ours.embed, theirs.codebook.embed)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound folder to spoil."""
    model = oracles.ours_from(oracles.hf_model(CONFIGS["weight_norm"], 5, torch.float32), CONFIGS["weight_norm"])
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def spoil(folder: Path, **changes: Any) -> None:
    """Write the tensors again, some replaced; None removes one."""
    tensors = load_file(folder / "model.safetensors")
    for name, value in changes.items():
        if value is None:
            del tensors[name]
        else:
            tensors[name] = value
    save_file(tensors, folder / "model.safetensors")


# -- in ------------------------------------------------------------------------------------------------------


@by_norm
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("spelling", [in_old_spelling, in_new_spelling])
def test_a_checkpoint_of_transformers_matches(
    tmp_path: Path, config: EncodecConfig, dtype: torch.dtype, spelling: Any
) -> None:
    oracle = oracles.hf_model(config, 2, dtype)
    oracle.save_pretrained(tmp_path)
    written = spelling(load_file(tmp_path / "model.safetensors"))
    assert any(".embed_avg" in name for name in written)  # training's buffers are really there to be passed over
    save_file(written, tmp_path / "model.safetensors")
    model = EncodecModel.from_pretrained(tmp_path)
    assert model.config == config
    assert not model.training
    same_codec(model, oracle, 1e-9 if dtype == torch.float64 else 1e-5)


def test_weight_norm_of_a_transposed_convolution_goes_by_input_channels() -> None:
    config = CONFIGS["weight_norm"]
    oracle = oracles.hf_model(config)
    name = "decoder.layers.3.conv"
    conv = oracle.decoder.layers[3].conv
    assert conv.in_channels != conv.out_channels
    assert conv.parametrizations.weight.original0.shape == (conv.in_channels, 1, 1)
    plain = oracles.ours_from(oracle, config).state_dict()[f"{name}.weight"]
    torch.testing.assert_close(plain, conv.weight.detach(), rtol=1e-12, atol=0)


def test_plain_weights_load_too() -> None:
    config = CONFIGS["weight_norm"]
    model = oracles.ours_from(oracles.hf_model(config), config)
    again = oracles.build_model(config, model.state_dict(), "memory")
    assert fingerprint(again) == fingerprint(model)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_files_become_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    config = CONFIGS["weight_norm"]
    model = oracles.ours_from(oracles.hf_model(config, 7, torch.float32), config)
    halves = {name: value.to(dtype) for name, value in checkpoint.export_tensors(config, model.state_dict()).items()}
    loaded = oracles.build_model(config, halves, "memory")
    for name, value in loaded.state_dict().items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, model.state_dict()[name], rtol=2e-2, atol=1e-2)


def test_loading_leaves_the_random_generator_alone(folder: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    EncodecModel.from_pretrained(folder)
    assert torch.equal(torch.rand(1), expected)


def test_a_loaded_model_outlives_its_file(folder: Path) -> None:
    model = EncodecModel.from_pretrained(folder)
    before = fingerprint(model)
    (folder / "model.safetensors").write_bytes(b"\0" * os.path.getsize(folder / "model.safetensors"))
    assert fingerprint(model) == before


# -- wrong files ---------------------------------------------------------------------------------------------

G, V, B = (f"encoder.layers.0.conv.{n}" for n in ("weight_g", "weight_v", "bias"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({B: None}, rf"lacks {B}"),
        ({G: None}, rf"{V} has no counterpart"),
        ({G: None, V: None}, r"lacks encoder\.layers\.0\.conv\.weight"),
        ({B: torch.zeros(5)}, rf"{B} is \[5\], but its configuration wants \[4\]"),
        ({V: torch.ones(4, 2, 7)}, r"layers\.0\.conv\.\S*weight\S* is \[4, 2, 7\]"),
        ({G: torch.ones(1, 1, 7)}, rf"{G} is \[1, 1, 7\]"),
        ({V: torch.ones(())}, rf"{V} is \[\]"),
        ({B: torch.tensor([0.0, torch.nan, 0, 0])}, rf"{B} holds NaN"),
        ({V: torch.full((4, 1, 7), torch.inf)}, rf"{V} holds NaN or infinite"),
        ({V: torch.zeros(4, 1, 7)}, rf"{V} has a row of zeros"),
        ({B: torch.zeros(4, dtype=torch.int32)}, rf"{B} is I32"),
        ({"encoder.layers.99.conv.bias": torch.zeros(4)}, r"it has encoder\.layers\.99\.conv\.bias too many"),
        ({"encoder.layers.0.conv.weight": torch.zeros(4, 1, 7)}, "both with and without weight norm"),
        ({"encoder.layers.0.conv.parametrizations.weight.original0": torch.ones(4, 1, 1)}, "two spellings"),
        ({"quantizer.layers.3.codebook.embed": None}, r"lacks quantizer\.layers\.3\.codebook\.embed"),
        ({"quantizer.layers.4.codebook.embed": torch.zeros(16, 8)}, r"quantizer\.layers\.4"),
    ],
)
def test_a_wrong_tensor_is_named(folder: Path, changes: dict[str, Any], message: str) -> None:
    spoil(folder, **changes)
    with pytest.raises(CheckpointError, match=message) as caught:
        EncodecModel.from_pretrained(folder)
    assert str(folder / "model.safetensors") in str(caught.value)


@pytest.mark.parametrize("size", [0, 1, 7, 8, 100, -1])
def test_a_truncated_file_is_called_damaged(folder: Path, size: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CheckpointError, match="damaged"):
        EncodecModel.from_pretrained(folder)


def test_a_corrupt_header_is_called_damaged(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[20:60] = b"\xff" * 40
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        EncodecModel.from_pretrained(folder)


def test_missing_files_are_named(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"model\.safetensors does not exist.*never read"):
        EncodecModel.from_pretrained(folder)
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json does not exist"):
        EncodecModel.from_pretrained(folder)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"model_type": "dac"}', '{"num_filters": "many"}', "\udcff"])
def test_a_wrong_config_is_one_clear_error(folder: Path, text: str) -> None:
    (folder / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(CheckpointError, match="holds no EnCodec model"):
        EncodecModel.from_pretrained(folder)


# -- out -----------------------------------------------------------------------------------------------------


@by_norm
@pytest.mark.parametrize("dtype", [None, torch.float16, torch.float64])
def test_what_is_saved_loads_in_transformers_and_matches(
    tmp_path: Path, config: EncodecConfig, dtype: torch.dtype | None
) -> None:
    model = oracles.ours_from(oracles.hf_model(config, 9, torch.float32), config)
    model.save_pretrained(tmp_path / "deep" / "model", dtype=dtype)
    oracle, info = transformers.EncodecModel.from_pretrained(tmp_path / "deep" / "model", output_loading_info=True)
    assert not any(info.values()), info
    assert oracle.dtype == torch.float32  # computed in float32 whatever the file stores
    loaded = EncodecModel.from_pretrained(tmp_path / "deep" / "model").float()
    same_codec(loaded, oracle.eval(), 1e-5)
    assert EncodecConfig.from_dict(oracle.config.to_dict()) == config


def test_a_file_without_what_training_keeps_is_smaller_and_loads_in_transformers_too(tmp_path: Path) -> None:
    config = CONFIGS["weight_norm"]
    model = oracles.ours_from(oracles.hf_model(config, 9, torch.float32), config)
    model.save_pretrained(tmp_path / "whole")
    model.save_pretrained(tmp_path / "lean", training_buffers=False)
    whole, lean = ((tmp_path / name / "model.safetensors").stat().st_size for name in ("whole", "lean"))
    assert whole - lean > 4 * sum(book.embed.numel() for book in model.quantizer.codebooks)
    assert fingerprint(EncodecModel.from_pretrained(tmp_path / "lean")) == fingerprint(model)
    oracle, info = transformers.EncodecModel.from_pretrained(tmp_path / "lean", output_loading_info=True)
    assert {name.rpartition(".")[2] for name in info["missing_keys"]} == {"inited", "cluster_size", "embed_avg"}
    same_codec(EncodecModel.from_pretrained(tmp_path / "lean"), oracle.eval(), 1e-5)


@by_norm
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_saving_and_loading_changes_no_bit(tmp_path: Path, config: EncodecConfig, dtype: torch.dtype) -> None:
    model = oracles.ours_from(oracles.hf_model(config, 11, dtype), config)
    model.save_pretrained(tmp_path / "a")
    loaded = EncodecModel.from_pretrained(tmp_path / "a")
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def test_saving_as_float16_twice_changes_no_bit(tmp_path: Path) -> None:
    model = EncodecModel(CONFIGS["weight_norm"])
    model.save_pretrained(tmp_path / "a", dtype=torch.float16)
    once = EncodecModel.from_pretrained(tmp_path / "a")
    once.save_pretrained(tmp_path / "b", dtype=torch.float16)
    assert fingerprint(EncodecModel.from_pretrained(tmp_path / "b")) == fingerprint(once) != fingerprint(model)
    assert os.path.getsize(tmp_path / "a" / "model.safetensors") == os.path.getsize(
        tmp_path / "b" / "model.safetensors"
    )


def test_rows_of_zeros_survive(tmp_path: Path) -> None:
    model = EncodecModel(CONFIGS["weight_norm"])
    weight = model.state_dict()["decoder.layers.3.conv.weight"]
    weight[1] = 0
    model.save_pretrained(tmp_path / "a")
    loaded = EncodecModel.from_pretrained(tmp_path / "a").state_dict()["decoder.layers.3.conv.weight"]
    assert torch.equal(loaded, weight)
    oracle = transformers.EncodecModel.from_pretrained(tmp_path / "a")
    torch.testing.assert_close(oracle.decoder.layers[3].conv.weight.detach(), weight)


def test_saving_over_a_model_keeps_other_files(folder: Path) -> None:
    (folder / "README.md").write_text("a card")
    model = EncodecModel(CONFIGS["weight_norm"])
    model.save_pretrained(folder)
    assert fingerprint(EncodecModel.from_pretrained(folder)) == fingerprint(model)
    assert sorted(p.name for p in folder.iterdir()) == [
        "README.md", "config.json", "model.safetensors", "preprocessor_config.json"
    ]  # fmt: skip


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize("failing", ["save_file", "fsync", "json"])
def test_a_failing_save_leaves_nothing_behind(
    folder: Path, monkeypatch: pytest.MonkeyPatch, exists: bool, failing: str
) -> None:
    target = folder if exists else folder.parent / "new"
    before = {p: p.read_bytes() for p in folder.iterdir()}

    def no_space(*args: Any, **kwargs: Any) -> None:
        if failing == "save_file":
            Path(args[1]).write_bytes(b"half a fi")
        raise OSError(28, "No space left on device")

    if failing == "json":
        monkeypatch.setattr(Path, "write_text", no_space)
    elif failing == "fsync":
        monkeypatch.setattr(os, failing, no_space)
    else:
        monkeypatch.setattr(checkpoint, failing, no_space)
    with pytest.raises(CheckpointError, match=r"cannot be written.*No space left"):
        EncodecModel(CONFIGS["weight_norm"]).save_pretrained(target)
    assert {p: p.read_bytes() for p in folder.iterdir()} == before
    assert [p.name for p in folder.parent.iterdir()] == ["model"]


def test_saving_onto_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("mine")
    with pytest.raises(CheckpointError, match="cannot be written"):
        EncodecModel(CONFIGS["weight_norm"]).save_pretrained(tmp_path / "a")
    assert (tmp_path / "a").read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(
    ("value", "dtype", "message"),
    [
        (torch.nan, None, r"encoder\.layers\.0\.conv\.weight is not finite"),
        (1e6, torch.float16, r"encoder\.layers\.0\.conv\.weight is not finite in torch\.float16"),
        (1.0, torch.int8, "int8"),
    ],
)
def test_what_cannot_be_stored_is_refused(
    tmp_path: Path, value: float, dtype: torch.dtype | None, message: str
) -> None:
    model = EncodecModel(CONFIGS["weight_norm"])
    model.state_dict()["encoder.layers.0.conv.weight"][0, 0, 0] = value
    with pytest.raises(CheckpointError, match=message):
        model.save_pretrained(tmp_path / "a", dtype=dtype)
    assert list(tmp_path.iterdir()) == []


def test_config_is_plain_json(folder: Path) -> None:
    values = json.loads((folder / "config.json").read_text())
    assert values["model_type"] == "encodec"
    assert values["architectures"] == ["EncodecModel"]
    assert values["dtype"] == "float32"


_FORKS = """
import os, sys
from streaming_encodec.model.safetensors_file import SafetensorsFile
with SafetensorsFile(sys.argv[1]) as file:
    weights = file.read("large")
child = os.fork()
if not child:
    weights += 1
    os._exit(0)
os.waitpid(child, 0)
print(float(weights.sum()))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_has_weights_of_its_own(tmp_path: Path) -> None:
    save_file({"large": torch.zeros(1 << 18)}, tmp_path / "one.safetensors")
    done = subprocess.run(
        [sys.executable, "-c", _FORKS, str(tmp_path / "one.safetensors")], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) == 0.0
