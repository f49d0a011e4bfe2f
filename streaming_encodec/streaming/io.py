"""What callers hand over and get back: numpy for one stream, torch or numpy for a batch; checked at the door."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from streaming_encodec.errors import StreamError
from streaming_encodec.model.config import EncodecConfig
from streaming_encodec.model.encodec import check_codes

# numpy or torch: what goes in comes out again, so the two cannot be told apart in a signature.
Array: TypeAlias = Any


class Form(NamedTuple):
    """How the caller hands arrays over, and so gets them back."""

    is_numpy: bool = False
    batched: bool = True

    def give(self, x: Tensor) -> Array:
        """``x`` [B, ...] in this form."""
        if not self.batched:
            x = x[0]
        return x.cpu().numpy() if self.is_numpy else x


def take_samples(x: Array, batch: int, config: EncodecConfig, like: Tensor) -> tuple[Tensor, Form]:
    """Samples [B, C, n] (torch or numpy), or [C, n] or [n] (numpy, one stream) → [B, C, n] as ``like``.

    Raises:
        StreamError: wrong shape, no floating-point numbers, NaN or infinity.
    """
    channels = config.audio_channels
    tensor, is_numpy = _tensor(x, "samples")
    wanted = f"[{batch}, {channels}, n]" + (f", or numpy [{channels}, n]" if batch == 1 else "")
    batched = tensor.dim() == 3
    if is_numpy and batch == 1:
        if tensor.dim() == 1 and channels == 1:
            tensor = tensor[None]
        if tensor.dim() == 2:
            tensor = tensor[None]
    if tensor.dim() != 3 or tensor.shape[:2] != (batch, channels):
        raise StreamError(f"samples must be {wanted}, got {list(np.shape(x))}")
    if not tensor.dtype.is_floating_point:
        raise StreamError(f"samples must be floating point within -1 to 1, got {tensor.dtype}: divide by full scale")
    # For a frame's few samples numpy takes a fraction of torch's time.
    if not (np.isfinite(x).all() if is_numpy else torch.isfinite(tensor).all()):
        raise StreamError("samples hold NaN or infinity: drop or repair them before they enter the codec's memory")
    return tensor.to(like.device, like.dtype), Form(is_numpy, batched)


def take_codes(codes: Array, batch: int, config: EncodecConfig, like: Tensor) -> tuple[Tensor, Form]:
    """Codes [B, K, f] (torch or numpy) or [K, f] (numpy, one stream) → int64 [B, K, f] on ``like``'s device.

    Raises:
        StreamError: wrong shape, no whole numbers, too many codebooks, or a code out of range.
    """
    tensor, is_numpy = _tensor(codes, "codes")
    batched = tensor.dim() == 3
    if is_numpy and batch == 1 and tensor.dim() == 2:
        tensor = tensor[None]
    if tensor.dim() != 3 or tensor.shape[0] != batch:
        wanted = f"[{batch}, K, f]" + (", or numpy [K, f]" if batch == 1 else "")
        raise StreamError(f"codes must be {wanted}, got {list(np.shape(codes))}")
    if tensor.dtype.is_floating_point or tensor.dtype.is_complex or tensor.dtype == torch.bool:
        raise StreamError(f"codes must be whole numbers, got {tensor.dtype}")
    tensor = tensor.to(like.device, torch.int64)
    check_codes(tensor, config)
    return tensor, Form(is_numpy, batched)


def _tensor(x: Array, what: str) -> tuple[Tensor, bool]:
    if isinstance(x, Tensor):
        return x.detach(), False
    if isinstance(x, np.ndarray):
        if x.dtype == object or x.dtype.kind not in "fiub":
            raise StreamError(f"{what} must be numbers, got dtype {x.dtype}")
        if x.dtype.kind == "u" and x.dtype.itemsize > 1:
            x = x.astype(np.int64)  # torch has no wide unsigned arithmetic
        if not x.flags.writeable or any(stride < 0 for stride in x.strides) or not x.dtype.isnative:
            x = x.astype(x.dtype.newbyteorder("="))
        return torch.from_numpy(x), True
    raise StreamError(f"{what} must be a numpy array or a torch tensor, got {type(x).__name__}")
