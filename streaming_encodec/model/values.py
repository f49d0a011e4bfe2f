"""The checks of values that a model is handed: codes and samples. Imports no torch."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from streaming_encodec.errors import StreamError
from streaming_encodec.model.config import EncodecConfig
from streaming_encodec.samples import MAX_AMPLITUDE, check_codes, raise_amplitude

if TYPE_CHECKING:
    from torch import Tensor


def check_tensor_amplitude(samples: Tensor) -> None:
    """``check_amplitude`` where the tensor is. Raises ``StreamError``."""
    if samples.numel():
        peak = float(samples.detach().abs().max())
        if not peak <= MAX_AMPLITUDE:
            raise_amplitude(peak)


def checked_codes(codes: Tensor, config: EncodecConfig) -> Tensor:
    """``codes`` [..., B, K, F] of any whole numbers as int64; ``StreamError`` as ``check_codes`` raises it."""
    kind = str(codes.dtype).removeprefix("torch.")
    if kind == "bool" or codes.is_floating_point() or codes.is_complex():
        raise StreamError(f"codes must be whole numbers [B, K, F], got {codes.dtype} {list(codes.shape)}")
    codes = codes.long()
    if not sys.modules["torch"].compiler.is_compiling():  # a traced graph cannot branch on values
        check_codes(codes.detach().cpu().numpy(), config.num_quantizers, config.codebook_size)
    return codes
