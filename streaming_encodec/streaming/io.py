"""What callers hand over and get back: numpy for one stream, torch or numpy for a batch; checked at the door."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from streaming_encodec.errors import StreamError
from streaming_encodec.model.config import EncodecConfig
from streaming_encodec.model.values import check_codes, check_tensor_amplitude
from streaming_encodec.samples import as_array, check_amplitude
from streaming_encodec.stepping.tree import MAX_STATE

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
        if not self.is_numpy:
            return x
        if x.dtype in (torch.bfloat16, torch.float16):
            x = x.float()  # numpy has no bfloat16, and what takes sound takes no float16
        return x.cpu().numpy()


def take_samples(x: Array, batch: int, config: EncodecConfig, like: Tensor) -> tuple[Tensor, Form]:
    """Samples [B, C, n] (torch or numpy), or [C, n] or [n] (numpy, one stream) → [B, C, n] as ``like``.

    Raises:
        StreamError: wrong shape, no floating-point numbers, or one that is not finite or beyond ``MAX_AMPLITUDE``.
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
    # What passes is finite after the cast too. For a frame's few samples numpy takes a fraction of torch's time.
    if is_numpy:
        check_amplitude(tensor.numpy())
    else:
        check_tensor_amplitude(tensor)
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


def take_latent(latent: object, batch: int, config: EncodecConfig, like: Tensor) -> Tensor:
    """Latent frames [B, D, f] as ``like``. Raises ``StreamError`` for another shape, or what no codes stand for."""
    if not isinstance(latent, Tensor) or latent.dim() != 3 or latent.shape[:2] != (batch, config.hidden_size):
        got = list(latent.shape) if isinstance(latent, Tensor) else type(latent).__name__
        raise StreamError(f"latent frames must be a tensor [{batch}, {config.hidden_size}, f], got {got}")
    taken = plain_tensor(latent, "latent frames").to(like)
    if taken.numel() and not float(taken.abs().max()) <= MAX_STATE:
        raise StreamError(f"latent frames hold NaN, infinity or values beyond {MAX_STATE:g}: no codes stand for these")
    return taken


def plain_tensor(x: Tensor, what: str) -> Tensor:
    """A tensor with numbers in memory, apart from its gradient. Raises ``StreamError`` for one without such."""
    if x.layout != torch.strided or x.is_meta or x.is_quantized:
        raise StreamError(f"{what} must be a dense tensor with data, got {x.dtype}, {x.layout} on {x.device}")
    return x.detach()


def _tensor(x: Array, what: str) -> tuple[Tensor, bool]:
    if isinstance(x, Tensor):
        return plain_tensor(x, what), False
    return torch.from_numpy(as_array(x, what)), True
