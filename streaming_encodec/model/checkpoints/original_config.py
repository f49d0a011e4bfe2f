"""The architecture behind an original ``.th`` file, from the names and shapes of its tensors.

The file holds no configuration. Widths, ratios, depths and codebooks show in the shapes. What does not show
(rate, padding, causality, segments) follows from the published recipe that the model is a relative of.
Source: ``encodec`` 0.1.1, ``EncodecModel.encodec_model_24khz`` and ``encodec_model_48khz``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from streaming_encodec.errors import CheckpointError
from streaming_encodec.model.config import EncodecConfig

_HOP_LENGTH = 320  # of both recipes: with another one the rate is unknown

# Keyed by (audio channels, norm over time): the only two combinations that were published.
_RECIPES: dict[tuple[int, bool], dict[str, Any]] = {
    (1, False): {"sampling_rate": 24_000, "target_bandwidths": (1.5, 3.0, 6.0, 12.0, 24.0)},
    (2, True): {
        "sampling_rate": 48_000,
        "target_bandwidths": (3.0, 6.0, 12.0, 24.0),
        "norm_type": "time_group_norm",
        "use_causal_conv": False,
        "normalize": True,
        "chunk_length_s": 1.0,
        "overlap": 0.01,
    },
}


def infer_config(tensors: Mapping[str, Tensor]) -> EncodecConfig:
    """The configuration of a state dict under Hugging Face's names.

    Raises:
        CheckpointError: the tensors are no relative of a published model, or one that they need is missing.
        ConfigError: the values found do not make an EnCodec.
    """
    layers = _encoder_layers(tensors)
    first, last = _conv_shape(tensors, layers[0]), _conv_shape(tensors, layers[-1])
    num_filters, audio_channels, kernel_size = first
    over_time = any(name.endswith(".norm.weight") for name in tensors)
    recipe = _RECIPES.get((audio_channels, over_time))
    if recipe is None:
        norm = "time group norm" if over_time else "weight norm"
        raise CheckpointError(f"{audio_channels} audio channels with {norm} are neither the 24 nor the 48 kHz recipe")

    blocks = [layer for layer in layers if _has(tensors, f"{layer}.block.")]
    recurrent = [layer for layer in layers if _has(tensors, f"{layer}.lstm.")]
    strided = [layer for layer in layers[1:-1] if layer not in blocks and layer not in recurrent]
    ratios = tuple(_conv_shape(tensors, layer)[2] // 2 for layer in reversed(strided))
    if not ratios or len(blocks) % len(ratios):
        raise CheckpointError(f"the encoder has {len(blocks)} residual blocks for {len(ratios)} strides")
    config: dict[str, Any] = {
        "audio_channels": audio_channels,
        "num_filters": num_filters,
        "kernel_size": kernel_size,
        "last_kernel_size": last[2],
        "hidden_size": last[0],
        "upsampling_ratios": ratios,
        "num_residual_layers": len(blocks) // len(ratios),
        "num_lstm_layers": len({n for n in tensors if re.match(r"encoder\..*\.lstm\.weight_ih_l\d+$", n)}),
        **recipe,
    }
    if blocks:
        hidden, _, config["residual_kernel_size"] = _conv_shape(tensors, f"{blocks[0]}.block.1")
        config["compress"] = num_filters // max(1, hidden)
        config["use_conv_shortcut"] = _has(tensors, f"{blocks[0]}.shortcut.")
    codebooks = [name for name in tensors if re.match(r"quantizer\.layers\.\d+\.codebook\.embed$", name)]
    if not codebooks or tensors[codebooks[0]].dim() != 2:
        raise CheckpointError("quantizer.layers.0.codebook.embed is missing or no matrix")
    config["codebook_size"] = tensors[codebooks[0]].shape[0]
    found = EncodecConfig.from_dict(config)
    if found.hop_length != _HOP_LENGTH:
        raise CheckpointError(f"{found.hop_length} samples a frame are neither the 24 nor the 48 kHz recipe")
    highest = len(codebooks) * found.frame_rate * found.bits_per_codebook / 1000
    lower = tuple(b for b in found.target_bandwidths if b < highest)
    return EncodecConfig.from_dict({**config, "target_bandwidths": (*lower, highest)})


def _encoder_layers(tensors: Mapping[str, Tensor]) -> list[str]:
    found = {int(m[1]) for name in tensors if (m := re.match(r"encoder\.layers\.(\d+)\.", name))}
    if len(found) < 3:
        raise CheckpointError("there are no encoder layers: this is no state dict of the original encodec")
    return [f"encoder.layers.{i}" for i in sorted(found)]


def _conv_shape(tensors: Mapping[str, Tensor], layer: str) -> tuple[int, int, int]:
    for suffix in ("weight_v", "weight", "parametrizations.weight.original1"):
        weight = tensors.get(f"{layer}.conv.{suffix}")
        if weight is not None and weight.dim() == 3:
            return weight.shape[0], weight.shape[1], weight.shape[2]
    raise CheckpointError(f"{layer}.conv.weight is missing or no convolution's")


def _has(tensors: Mapping[str, Tensor], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in tensors)
