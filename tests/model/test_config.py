"""The configuration: derived values, what files hold, and errors that name the field."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import oracles
import pytest
import transformers
from hypothesis import given, settings

from streaming_encodec.errors import ConfigError
from streaming_encodec.model.config import EncodecConfig


def test_the_published_24_khz_model() -> None:
    config = EncodecConfig()
    assert (config.hop_length, config.frame_rate, config.bits_per_codebook) == (320, 75, 10)
    assert config.num_quantizers == 32
    assert [config.num_codebooks_for(b) for b in config.target_bandwidths] == [2, 4, 8, 16, 32]
    assert config.num_codebooks_for(None) == 2
    assert config.chunk_length is config.chunk_stride is None
    assert config.bandwidth_for(8) == pytest.approx(6.0)
    assert config.streams_by_sample


def test_the_published_48_khz_model() -> None:
    config = EncodecConfig(
        sampling_rate=48_000,
        audio_channels=2,
        normalize=True,
        chunk_length_s=1.0,
        overlap=0.01,
        norm_type="time_group_norm",
        use_causal_conv=False,
        target_bandwidths=(3.0, 6.0, 12.0, 24.0),
    )
    assert (config.frame_rate, config.num_quantizers) == (150, 16)
    assert (config.chunk_length, config.chunk_stride) == (48_000, 47_520)
    assert [config.num_codebooks_for(b) for b in config.target_bandwidths] == [2, 4, 8, 16]
    assert not config.streams_by_sample


@given(config=oracles.configs(segments=True))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_derived_values_equal_those_of_transformers(config: EncodecConfig) -> None:
    theirs = transformers.EncodecConfig(**config.to_dict())
    for name in ("hop_length", "frame_rate", "num_quantizers", "chunk_length", "chunk_stride"):
        assert getattr(config, name) == getattr(theirs, name), name
    assert config.bits_per_codebook == theirs.codebook_nbits
    assert EncodecConfig.from_dict(theirs.to_dict()) == config


def test_it_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        EncodecConfig().num_filters = 3  # type: ignore[misc]


WRONG: list[tuple[str, Any]] = [
    ("target_bandwidths", ()),
    ("target_bandwidths", (3.0, 1.5)),
    ("target_bandwidths", (-1.5,)),
    ("target_bandwidths", (0.001,)),
    ("target_bandwidths", "6"),
    ("target_bandwidths", (None,)),
    ("sampling_rate", 0),
    ("sampling_rate", 24_000.5),
    ("audio_channels", 3),
    ("audio_channels", True),
    ("normalize", 1),
    ("chunk_length_s", 0),
    ("chunk_length_s", 1e-9),
    ("chunk_length_s", "1"),
    ("overlap", 1.0),
    ("overlap", None),
    ("hidden_size", 0),
    ("num_filters", "32"),
    ("num_residual_layers", -1),
    ("upsampling_ratios", ()),
    ("upsampling_ratios", (8, 0)),
    ("upsampling_ratios", (2.5,)),
    ("norm_type", "layer_norm"),
    ("kernel_size", 0),
    ("last_kernel_size", None),
    ("residual_kernel_size", -3),
    ("dilation_growth_rate", 0),
    ("use_causal_conv", None),
    ("pad_mode", "zero"),
    ("compress", 64),
    ("num_lstm_layers", -1),
    ("trim_right_ratio", 1.5),
    ("trim_right_ratio", "all"),
    ("codebook_size", 1000),
    ("codebook_size", 1),
    ("codebook_dim", 64),
    ("use_conv_shortcut", "yes"),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_value_names_its_field(name: str, value: Any) -> None:
    fields = {name: value}
    if name == "overlap":
        fields["chunk_length_s"] = 1.0
    elif name == "chunk_length_s":
        fields["overlap"] = 0.01
    with pytest.raises(ConfigError, match=name):
        EncodecConfig(**fields)


def test_every_field_is_checked() -> None:
    assert {name for name, _ in WRONG} == {f.name for f in dataclasses.fields(EncodecConfig)}


def test_trimming_on_the_left_needs_causal_convolutions() -> None:
    with pytest.raises(ConfigError, match="trim_right_ratio"):
        EncodecConfig(use_causal_conv=False, trim_right_ratio=0.5)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["sampling_rate", "chunk_length_s", "trim_right_ratio", "target_bandwidths"])
def test_numbers_that_are_none_name_their_field(name: str, value: float) -> None:
    fields = {name: (value,) if name == "target_bandwidths" else value, "overlap": 0.1}
    with pytest.raises(ConfigError, match=name):
        EncodecConfig(**fields)


def test_another_model_type_is_refused() -> None:
    with pytest.raises(ConfigError, match="'dac'"):
        EncodecConfig.from_dict({"model_type": "dac"})


def test_fields_of_others_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**EncodecConfig().to_dict(), "transformers_version": "5"}))
    assert EncodecConfig.from_json(tmp_path / "config.json") == EncodecConfig()
