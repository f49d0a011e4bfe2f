"""The checks of values that a model is handed: codes and samples."""

from __future__ import annotations

import torch
from torch import Tensor

from streaming_encodec.errors import StreamError
from streaming_encodec.model.config import EncodecConfig
from streaming_encodec.samples import MAX_AMPLITUDE, raise_amplitude


def check_tensor_amplitude(samples: Tensor) -> None:
    """``check_amplitude`` where the tensor is. Raises ``StreamError``."""
    if samples.numel():
        peak = float(samples.detach().abs().max())
        if not peak <= MAX_AMPLITUDE:
            raise_amplitude(peak)


def check_codes(codes: Tensor, config: EncodecConfig) -> None:
    """Raise ``StreamError`` unless ``codes`` [..., B, K, F] is int64, 1 ≤ K ≤ num_quantizers, and in range."""
    if codes.dtype != torch.int64 or codes.dim() < 3:
        raise StreamError(f"codes must be int64 [B, K, F], got {codes.dtype} {list(codes.shape)}")
    if not 1 <= codes.shape[-2] <= config.num_quantizers:
        raise StreamError(f"codes hold {codes.shape[-2]} codebooks, this model takes 1 to {config.num_quantizers}")
    if codes.numel():
        values = codes.cpu().numpy()  # for a frame's few codes a fraction of what torch's reductions take
        lowest, highest = int(values.min()), int(values.max())
        if lowest < 0 or highest >= config.codebook_size:
            worst = lowest if lowest < 0 else highest
            raise StreamError(f"code {worst} is out of range: codes go from 0 to {config.codebook_size - 1}")


def checked_codes(codes: Tensor, config: EncodecConfig) -> Tensor:
    """``codes`` [..., B, K, F] of any whole numbers as int64; ``StreamError`` as ``check_codes`` raises it."""
    kind = codes.dtype
    if kind == torch.bool or kind.is_floating_point or kind.is_complex:
        raise StreamError(f"codes must be whole numbers [B, K, F], got {kind} {list(codes.shape)}")
    codes = codes.to(torch.int64)
    if not torch.compiler.is_compiling():  # a traced graph cannot branch on values
        check_codes(codes, config)
    return codes
