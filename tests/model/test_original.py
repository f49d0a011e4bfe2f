"""Original ``.th`` files: they load and match, their architecture is found, and no pickle runs."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import oracles
import pytest
import torch

from streaming_encodec.errors import CheckpointError
from streaming_encodec.model.checkpoints.original import published_name, require_safe_torch
from streaming_encodec.model.config import EncodecConfig
from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.model.find import fingerprint


@pytest.fixture
def th(tmp_path: Path) -> Path:
    path = tmp_path / "encodec_24khz.th"
    torch.save(oracles.original_model("24khz").state_dict(), path)
    return path


@pytest.mark.parametrize("which", ["24khz", "48khz"])
@torch.no_grad()
def test_a_published_recipe_matches(tmp_path: Path, which: str) -> None:
    oracle = oracles.original_model(which).double()
    torch.save(oracle.state_dict(), tmp_path / "model.th")
    model = EncodecModel.from_pretrained(tmp_path / "model.th")
    assert model.config.target_bandwidths == tuple(oracle.target_bandwidths)
    x = oracles.samples((1, oracle.channels, oracle.sample_rate + 700), 1)
    oracle.set_target_bandwidth(6.0)
    frames = oracle.encode(x)
    ours = model.encode(x, bandwidth=6.0)
    for i, (codes, scale) in enumerate(frames):
        assert torch.equal(ours.audio_codes[i, ..., : codes.shape[-1]], codes)
        if scale is not None:
            torch.testing.assert_close(ours.audio_scales[i], scale, rtol=0, atol=1e-9)
    torch.testing.assert_close(model.decode(ours).audio_values, oracle.decode(frames), rtol=0, atol=1e-9)


def test_the_published_configurations_are_found(tmp_path: Path) -> None:
    package = oracles.original_package()
    for name, fields in {
        "24khz": {},
        "48khz": {
            "target_bandwidths": (3.0, 6.0, 12.0, 24.0),
            "sampling_rate": 48_000,
            "audio_channels": 2,
            "normalize": True,
            "chunk_length_s": 1.0,
            "overlap": 0.01,
            "norm_type": "time_group_norm",
            "use_causal_conv": False,
        },
    }.items():
        model = getattr(package.EncodecModel, f"encodec_model_{name}")(pretrained=False)
        torch.save(model.state_dict(), tmp_path / "model.th")
        assert EncodecModel.from_original(tmp_path / "model.th").config == EncodecConfig(**fields)


def test_a_folder_of_the_same_weights_is_the_same_model(th: Path, tmp_path: Path) -> None:
    model = EncodecModel.from_original(th)
    model.save_pretrained(tmp_path / "folder")
    assert fingerprint(EncodecModel.from_pretrained(tmp_path / "folder")) == fingerprint(model)


@pytest.mark.parametrize(
    ("original", "published"),
    [
        ("encoder.model.0.conv.conv.weight_g", "encoder.layers.0.conv.weight_g"),
        ("encoder.model.1.block.3.conv.conv.bias", "encoder.layers.1.block.3.conv.bias"),
        ("encoder.model.1.shortcut.conv.norm.weight", "encoder.layers.1.shortcut.norm.weight"),
        ("encoder.model.13.lstm.weight_ih_l1", "encoder.layers.13.lstm.weight_ih_l1"),
        ("decoder.model.3.convtr.convtr.weight_v", "decoder.layers.3.conv.weight_v"),
        ("decoder.model.3.convtr.norm.bias", "decoder.layers.3.norm.bias"),
        ("quantizer.vq.layers.31._codebook.embed", "quantizer.layers.31.codebook.embed"),
    ],
)
def test_names_become_the_published_ones(original: str, published: str) -> None:
    assert published_name(original) == published


def change(path: Path, **changes: Any) -> None:
    content = torch.load(path, weights_only=True)
    for key, value in changes.items():
        content.pop(key, None)
        if value is not None:
            content[key] = value
    torch.save(content, path)


FIRST = "encoder.model.0.conv.conv"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({f"{FIRST}.bias": None}, r"lacks encoder\.layers\.0\.conv\.bias"),
        ({f"{FIRST}.bias": torch.full((4,), torch.nan)}, r"encoder\.layers\.0\.conv\.bias holds NaN"),
        ({f"{FIRST}.weight_g": torch.ones(3, 1, 1)}, r"encoder\.layers\.0\.conv\.weight_g is \[3, 1, 1\]"),
        ({"decoder.model.3.convtr.convtr.bias": torch.ones(9)}, r"decoder\.layers\.3\.conv\.bias is \[9\]"),
        ({f"{FIRST}.weight_v": None}, r"do not tell the architecture.*layers\.0\.conv\.weight"),
        ({f"{FIRST}.weight_v": torch.ones(4, 2, 7)}, "2 audio channels with weight norm are neither"),
        ({"encoder.model.3.conv.conv.weight_v": torch.ones(8, 4, 6)}, "480 samples a frame are neither"),
        ({"encoder.model.3.conv.conv.weight_v": torch.ones(8, 4, 1)}, "upsampling_ratios"),
        ({"encoder.layers.0.conv.bias": torch.ones(4)}, "twice under different names"),
        ({"step": 3}, r"'step' is no tensor"),
    ],
)
def test_a_file_that_does_not_fit_is_one_clear_error(th: Path, changes: dict[str, Any], message: str) -> None:
    change(th, **changes)
    with pytest.raises(CheckpointError, match=message) as caught:
        EncodecModel.from_original(th)
    assert str(th) in str(caught.value)


def test_fewer_codebooks_end_the_bandwidths_earlier(th: Path) -> None:
    change(th, **{f"quantizer.vq.layers.{k}._codebook.embed": None for k in range(8, 32)})
    assert EncodecModel.from_original(th).config.target_bandwidths == (1.5, 3.0, 6.0)


def test_a_configuration_can_be_given(tmp_path: Path) -> None:
    config = oracles.tiny_config(upsampling_ratios=(4, 3), num_residual_layers=2, dilation_growth_rate=3)
    oracle = oracles.original_seanet(config)
    content = dict(oracle.state_dict())
    for k in range(config.num_quantizers):
        content[f"quantizer.vq.layers.{k}._codebook.embed"] = torch.ones(16, 8)
    torch.save(content, tmp_path / "mine.th")
    with pytest.raises(CheckpointError, match=r"Pass it yourself.*from_original\(path, config\)"):
        EncodecModel.from_original(tmp_path / "mine.th")
    x = oracles.samples((1, 1, 100), 2)
    with torch.no_grad():
        expected = oracle["encoder"](x)
        torch.testing.assert_close(EncodecModel.from_original(tmp_path / "mine.th", config).encoder(x), expected)


class Malice:
    """Unpickling this makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_malicious_pickle_is_refused_and_does_not_run(tmp_path: Path, zipped: bool) -> None:
    victim, path = tmp_path / "victim", tmp_path / "bad.th"
    torch.save({"a": Malice(victim)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match="never unpickled"):
        EncodecModel.from_pretrained(path)
    path.write_bytes(pickle.dumps(Malice(victim)))
    with pytest.raises(CheckpointError, match="never unpickled"):
        EncodecModel.from_pretrained(path)
    assert not victim.exists()
    pickle.loads(path.read_bytes())  # noqa: S301 - our own file: it would have run
    assert victim.exists()


@pytest.mark.parametrize("size", [0, 1, 100, 5000, -1])
def test_a_truncated_file_is_called_damaged(th: Path, size: int) -> None:
    th.write_bytes(th.read_bytes()[:size])
    with pytest.raises(CheckpointError, match="damaged"):
        EncodecModel.from_original(th)


@pytest.mark.parametrize("content", [torch.ones(3), {}, [torch.ones(1)], {1: torch.ones(1)}])
def test_what_is_no_state_dict_is_said(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "a.th")
    with pytest.raises(CheckpointError, match="state dict"):
        EncodecModel.from_original(tmp_path / "a.th")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none\.th does not exist"):
        EncodecModel.from_original(tmp_path / "none.th")


@pytest.mark.parametrize("version", ["2.9.1", "1.13.0", "2.9.0+cu128", "unknown"])
def test_an_old_torch_is_refused(version: str) -> None:
    with pytest.raises(CheckpointError, match=r"install torch 2\.10 or later"):
        require_safe_torch(version)


@pytest.mark.parametrize("version", ["2.10.0", "2.13.0+cpu", "3.0"])
def test_a_recent_torch_is_trusted(version: str) -> None:
    require_safe_torch(version)
