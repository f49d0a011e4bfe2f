"""What hypothesis draws: configurations that stream, models with non-zero biases, and ways to cut a stream."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import strategies as st

from streaming_encodec.model.config import EncodecConfig
from streaming_encodec.model.encodec import EncodecModel

# One, two and four codebooks at whatever frame rate the ratios make.
CODEBOOKS = (1, 2, 4)


def small_config(**values: Any) -> EncodecConfig:
    """A small configuration whose bandwidths are ``CODEBOOKS`` codebooks."""
    fields: dict[str, Any] = {"num_filters": 4, "hidden_size": 8, "codebook_size": 16} | values
    draft = EncodecConfig(target_bandwidths=(1e6,), **fields)
    kbps = draft.frame_rate * draft.bits_per_codebook / 1000
    return EncodecConfig(target_bandwidths=tuple(kbps * k for k in CODEBOOKS), **fields)


@st.composite
def streaming_configs(draw: st.DrawFn) -> EncodecConfig:
    """Configurations that stream by samples: all that the design names, and odd ones beside."""
    causal = draw(st.booleans())
    return small_config(
        upsampling_ratios=tuple(draw(st.lists(st.sampled_from([1, 2, 3, 4, 5, 7]), min_size=1, max_size=3))),
        audio_channels=draw(st.sampled_from([1, 2])),
        use_causal_conv=causal,
        pad_mode=draw(st.sampled_from(["reflect", "constant", "replicate"])),
        trim_right_ratio=draw(st.sampled_from([1.0, 0.0, 0.3, 0.5, 0.9])) if causal else 1.0,
        num_residual_layers=draw(st.integers(0, 3)),
        dilation_growth_rate=draw(st.sampled_from([1, 2, 3])),
        num_lstm_layers=draw(st.sampled_from([0, 1, 2])),
        kernel_size=draw(st.sampled_from([1, 3, 4, 7])),
        last_kernel_size=draw(st.sampled_from([1, 2, 3, 7])),
        residual_kernel_size=draw(st.sampled_from([1, 2, 3, 5])),
        use_conv_shortcut=draw(st.booleans()),
        compress=draw(st.sampled_from([1, 2])),
    )


def random_model(config: EncodecConfig, seed: int, dtype: torch.dtype = torch.float64) -> EncodecModel:
    """Random weights at a scale that keeps signals alive, and biases that are not zero."""
    generator = torch.Generator().manual_seed(seed)
    model = EncodecModel(config).to(torch.float64)
    with torch.no_grad():
        for name, weight in model.state_dict().items():
            spread = 1.0 if name.endswith("embed") else 0.25
            weight.copy_(torch.randn(weight.shape, generator=generator, dtype=torch.float64) * spread)
    return model.to(dtype)


def random_samples(config: EncodecConfig, batch: int, length: int, seed: int) -> torch.Tensor:
    """Noise [batch, channels, length], float64."""
    generator = torch.Generator().manual_seed(seed + 1)
    return torch.randn(batch, config.audio_channels, length, generator=generator, dtype=torch.float64)


def lengths(config: EncodecConfig, frames: int = 40) -> st.SearchStrategy[int]:
    """Stream lengths in samples: very short, whole frames, one more and one less, and anything."""
    hop = config.hop_length
    near_frame = st.builds(lambda f, d: max(1, f * hop + d), st.integers(1, frames), st.sampled_from([-1, 0, 1]))
    return st.one_of(st.integers(1, 3), near_frame, st.integers(1, frames * hop))


@st.composite
def partitions(draw: st.DrawFn, total: int, usual: int) -> list[int]:
    """Block sizes that add up to ``total``: one kind throughout, or a wild mixture with empty blocks."""
    kind = draw(st.sampled_from(["whole", "ones", "usual", "prime", "wild"]))
    if kind == "whole":
        return [total]
    if kind in ("ones", "usual", "prime"):
        size = {"ones": max(1, total // 400), "usual": usual, "prime": 7}[kind]
        return [size] * (total // size) + [total % size]
    sizes = []
    while total:
        size = min(total, draw(st.one_of(st.just(0), st.just(1), st.integers(0, 5 * usual), st.integers(1, total))))
        sizes.append(size)
        total -= size
        if len(sizes) > 12:
            sizes.append(total)
            total = 0
    return sizes
