"""The published implementations as oracles: random configurations and weights, and ours with the same.

Biases are never zero: many a streaming bug hides behind them.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import torch
import transformers
from hypothesis import strategies as st
from torch import Tensor, nn

from streaming_encodec.model.checkpoints.folder import weights_in_memory
from streaming_encodec.model.config import PAD_MODES, EncodecConfig
from streaming_encodec.model.encodec import EncodecModel


def tiny_config(**fields: Any) -> EncodecConfig:
    """A causal model of a few thousand weights: hop 6, four codebooks of 16."""
    values: dict[str, Any] = {
        "sampling_rate": 600,
        "target_bandwidths": (0.4, 0.8, 1.6),
        "hidden_size": 8,
        "num_filters": 4,
        "upsampling_ratios": (3, 2),
        "codebook_size": 16,
        "num_lstm_layers": 1,
    }
    return EncodecConfig.from_dict({**values, **fields})


def tiny_segment_config(**fields: Any) -> EncodecConfig:
    """As the 48 kHz model: stereo, group norm over time, a scale for each segment of 60 samples."""
    values: dict[str, Any] = {
        "audio_channels": 2,
        "norm_type": "time_group_norm",
        "use_causal_conv": False,
        "normalize": True,
        "chunk_length_s": 0.1,
        "overlap": 0.1,
    }
    return tiny_config(**{**values, **fields})


@st.composite
def configs(draw: st.DrawFn, segments: bool = False) -> EncodecConfig:
    """Any small EnCodec; with ``segments``, one that cuts its input."""
    # A hop of 1 is left out: torch refuses the group norm of a single number.
    ratios = tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=3).filter(lambda r: math.prod(r) > 1)))
    sampling_rate = draw(st.integers(50, 2000))
    bits = draw(st.integers(4, 6))
    codebook_rate = bits * math.ceil(sampling_rate / math.prod(ratios)) / 1000
    counts = sorted(draw(st.sets(st.integers(1, 6), min_size=1, max_size=3)))
    causal = draw(st.booleans())
    fields: dict[str, Any] = {
        "sampling_rate": sampling_rate,
        "upsampling_ratios": ratios,
        "codebook_size": 2**bits,
        "target_bandwidths": tuple(codebook_rate * (n + draw(st.sampled_from((0.0, 0.5)))) for n in counts),
        "audio_channels": draw(st.integers(1, 2)),
        "hidden_size": draw(st.integers(8, 12)),
        "num_filters": draw(st.integers(4, 8)),
        "num_residual_layers": draw(st.integers(0, 3)),
        "num_lstm_layers": draw(st.integers(1, 2)),
        "norm_type": draw(st.sampled_from(("weight_norm", "time_group_norm"))),
        "kernel_size": draw(st.integers(1, 7)),
        "last_kernel_size": draw(st.integers(1, 7)),
        "residual_kernel_size": draw(st.integers(1, 4)),
        "dilation_growth_rate": draw(st.integers(1, 3)),
        "use_causal_conv": causal,
        "pad_mode": draw(st.sampled_from([m for m in PAD_MODES if not (segments and m == "circular")])),
        "compress": draw(st.integers(1, 2)),
        "trim_right_ratio": draw(st.sampled_from((0.0, 0.3, 0.5, 1.0))) if causal else 1.0,
        "use_conv_shortcut": draw(st.booleans()),
        "normalize": draw(st.booleans()),
    }
    if segments:
        fields["chunk_length_s"] = draw(st.integers(8, 120)) / sampling_rate
        fields["overlap"] = draw(st.sampled_from((0.0, 0.01, 0.1, 0.25, 0.5, 0.75)))
    return EncodecConfig.from_dict(fields)


def shortest_input(config: EncodecConfig) -> int:
    """Samples below which circular padding has nothing to go round (torch refuses); else 1."""
    if config.pad_mode != "circular":
        return 1
    widest = max(
        config.kernel_size,
        config.last_kernel_size,
        config.residual_kernel_size * config.dilation_growth_rate**config.num_residual_layers,
    )
    return config.hop_length * (widest + 1)


def hf_model(config: EncodecConfig, seed: int = 0, dtype: torch.dtype = torch.float64) -> transformers.EncodecModel:
    """``transformers.EncodecModel`` with random weights."""
    model = transformers.EncodecModel(transformers.EncodecConfig(**config.to_dict()))
    randomise(model, seed)
    return model.to(dtype).eval()


def build_model(config: EncodecConfig, tensors: Mapping[str, Tensor], source: str) -> EncodecModel:
    """Our model with these weights, under Hugging Face's names."""
    return EncodecModel.from_weights(weights_in_memory(config, tensors, source))


def ours_from(model: transformers.EncodecModel, config: EncodecConfig) -> EncodecModel:
    """Ours with the weights of ``transformers``'."""
    return build_model(config, model.state_dict(), "oracle")


@torch.no_grad()
def randomise(module: nn.Module, seed: int) -> None:
    """Fill all weights, biases and codebooks so that signals neither vanish nor explode."""
    generator = torch.Generator().manual_seed(seed)

    def normal(like: Tensor, scale: float) -> Tensor:
        return torch.randn(like.shape, generator=generator, dtype=torch.float64) * scale

    for name, value in module.state_dict().items():
        if name.endswith(("weight_g", "original0")):
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
        elif name.endswith("embed"):
            codebook = int(name.split(".layers.")[1].split(".")[0])
            value.copy_(normal(value, 0.7**codebook))
        elif name.endswith("norm.weight"):
            value.copy_(1 + normal(value, 0.3))
        elif "bias" in name:
            value.copy_(normal(value, 0.3))
        elif name.endswith(("weight_v", "original1", "weight")) or ".lstm." in name:
            value.copy_(normal(value, 1 / math.sqrt(value[0].numel())))


def samples(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Noise with a slow swell, so that the segments' scales differ."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(shape, generator=generator, dtype=torch.float64)
    swell = 0.55 + 0.45 * torch.sin(torch.arange(shape[-1], dtype=torch.float64) / 30)
    return (noise * swell).to(dtype)


def original_package() -> ModuleType:
    """The original ``encodec``. It imports torchaudio, which it needs only to resample: a stub serves."""
    if "torchaudio" not in sys.modules:
        sys.modules["torchaudio"] = ModuleType("torchaudio")
    import encodec

    return encodec


def original_seanet(config: EncodecConfig, seed: int = 0) -> nn.ModuleDict:
    """The original package's encoder and decoder for any configuration, with random weights, in float64."""
    modules = original_package().modules
    common = {
        "channels": config.audio_channels,
        "dimension": config.hidden_size,
        "n_filters": config.num_filters,
        "n_residual_layers": config.num_residual_layers,
        "ratios": list(config.upsampling_ratios),
        "norm": config.norm_type,
        "kernel_size": config.kernel_size,
        "last_kernel_size": config.last_kernel_size,
        "residual_kernel_size": config.residual_kernel_size,
        "dilation_base": config.dilation_growth_rate,
        "causal": config.use_causal_conv,
        "pad_mode": config.pad_mode,
        "true_skip": not config.use_conv_shortcut,
        "compress": config.compress,
        "lstm": config.num_lstm_layers,
    }
    encoder = modules.SEANetEncoder(**common)
    decoder = modules.SEANetDecoder(**common, trim_right_ratio=config.trim_right_ratio)
    both = nn.ModuleDict({"encoder": encoder, "decoder": decoder})
    randomise(both, seed)
    return both.double().eval()


def original_model(which: str, seed: int = 0) -> Any:
    """The original package's 24 or 48 kHz model (``"24khz"``, ``"48khz"``), narrow, with random weights."""
    package = original_package()
    recipe = {"24khz": {}, "48khz": {"sample_rate": 48_000, "channels": 2, "norm": "time_group_norm"}}[which]
    channels, norm = recipe.get("channels", 1), recipe.get("norm", "weight_norm")
    common = {"channels": channels, "dimension": 8, "n_filters": 4, "norm": norm, "causal": which == "24khz"}
    bandwidths = [1.5, 3.0, 6.0, 12.0, 24.0] if which == "24khz" else [3.0, 6.0, 12.0, 24.0]
    model = package.EncodecModel(
        package.modules.SEANetEncoder(**common),
        package.modules.SEANetDecoder(**common),
        package.quantization.ResidualVectorQuantizer(dimension=8, n_q=32 if which == "24khz" else 16, bins=1024),
        bandwidths,
        recipe.get("sample_rate", 24_000),
        channels,
        normalize=which == "48khz",
        segment=1.0 if which == "48khz" else None,
    )
    randomise(model, seed)
    for layer in model.quantizer.vq.layers:
        layer._codebook.inited.fill_(1)
    return model.eval()
