"""Segments: the scale of one, and the linear overlap-add that joins them (the 48 kHz model, arXiv 2210.13438 §3.4)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def segment_scale(x: Tensor) -> Tensor:
    """Root mean square of the mono mix: ``x`` [B, C, n] → [B, 1]."""
    mono = x.sum(dim=1) / x.shape[1]
    return mono.pow(2).mean(dim=-1, keepdim=True).sqrt() + 1e-8


def fade_weights(length: int, like: Tensor) -> Tensor:
    """The triangle [length] that weighs a segment where it overlaps others."""
    ramp = torch.linspace(0, 1, length + 2, device=like.device, dtype=like.dtype)[1:-1]
    return 0.5 - (ramp - 0.5).abs()


def overlap_add(segments: Sequence[Tensor], stride: int) -> Tensor:
    """Join segments [B, C, n_i] that start ``stride`` samples apart: the weighted mean where they overlap.

    None is longer than the first; towards the end they may be shorter, and one may even end inside the one before.
    A single segment is returned as it is.
    """
    if len(segments) == 1:
        return segments[0]
    weight = fade_weights(segments[0].shape[-1], segments[0])
    total = max(i * stride + segment.shape[-1] for i, segment in enumerate(segments))
    out = segments[0].new_zeros(*segments[0].shape[:-1], total)
    weight_sum = segments[0].new_zeros(total)
    for i, segment in enumerate(segments):
        span = slice(i * stride, i * stride + segment.shape[-1])
        out[..., span] += weight[: segment.shape[-1]] * segment
        weight_sum[span] += weight[: segment.shape[-1]]
    return out / weight_sum
