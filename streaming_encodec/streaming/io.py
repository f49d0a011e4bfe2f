"""What callers hand over and get back: numpy for one stream, torch or numpy for a batch; checked at the door."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from streaming_encodec.errors import StreamError
from streaming_encodec.model.config import EncodecConfig
from streaming_encodec.model.values import check_tensor_amplitude
from streaming_encodec.samples import as_array, check_amplitude, check_codes
from streaming_encodec.stepping.arrays import Arrays, as_numpy, as_tensor, is_tensor
from streaming_encodec.stepping.state import MAX_STATE
from streaming_encodec.types import AnyArray


class Form(NamedTuple):
    """How the caller hands arrays over, and so gets them back."""

    is_numpy: bool
    batched: bool = True

    def give(self, x: AnyArray) -> AnyArray:
        """``x`` [B, ...] in this form."""
        x = x if self.batched else x[0]
        return as_numpy(x) if self.is_numpy else as_tensor(x)


def take_samples(x: AnyArray, batch: int, config: EncodecConfig, arrays: Arrays) -> tuple[AnyArray, Form]:
    """Samples [B, C, n] (torch or numpy), or [C, n] or [n] (numpy, one stream) → [B, C, n] of this kind.

    Raises:
        StreamError: wrong shape, no floating-point numbers, or one that is not finite or beyond ``MAX_AMPLITUDE``.
    """
    channels = config.audio_channels
    array, is_numpy = _plain(x, "samples")
    batched = array.ndim == 3
    if is_numpy and batch == 1 and not batched:
        array = array[None, None] if array.ndim == 1 and channels == 1 else array[None]
    if array.ndim != 3 or array.shape[0] != batch or array.shape[1] != channels:
        wanted = f"[{batch}, {channels}, n]" + (f", or numpy [{channels}, n]" if batch == 1 else "")
        raise StreamError(f"samples must be {wanted}, got {list(np.shape(x))}")
    if not (array.dtype.kind == "f" if is_numpy else array.dtype.is_floating_point):
        raise StreamError(f"samples must be floating point within -1 to 1, got {array.dtype}: divide by full scale")
    # What passes is finite after the cast too.
    if is_numpy:
        check_amplitude(array)
    else:
        check_tensor_amplitude(array)
    return arrays.floats(array), Form(is_numpy, batched)


def take_codes(codes: AnyArray, batch: int, config: EncodecConfig, arrays: Arrays) -> tuple[AnyArray, Form]:
    """Codes [B, K, f] (torch or numpy) or [K, f] (numpy, one stream) → int64 [B, K, f] of this kind.

    Raises:
        StreamError: wrong shape, no whole numbers, too many codebooks, or a code out of range.
    """
    array, is_numpy = _plain(codes, "codes")
    batched = array.ndim == 3
    if is_numpy and batch == 1 and array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or array.shape[0] != batch:
        wanted = f"[{batch}, K, f]" + (", or numpy [K, f]" if batch == 1 else "")
        raise StreamError(f"codes must be {wanted}, got {list(np.shape(codes))}")
    values = as_numpy(array)  # for a frame's few codes a fraction of what torch's reductions take
    if values.dtype.kind not in "iu":
        raise StreamError(f"codes must be whole numbers, got {array.dtype}")
    values = values.astype(np.int64, copy=False)
    check_codes(values, config.num_quantizers, config.codebook_size)
    return arrays.codes(values if is_numpy else array), Form(is_numpy, batched)


def take_latent(latent: AnyArray, batch: int, config: EncodecConfig, arrays: Arrays) -> tuple[AnyArray, Form]:
    """Latent frames [B, D, f] (torch or numpy), or [D, f] (numpy, one stream) → [B, D, f] of this kind.

    Raises:
        StreamError: another shape, or what no codes stand for.
    """
    array, is_numpy = _plain(latent, "latent frames")
    batched = array.ndim == 3
    if is_numpy and batch == 1 and array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or array.shape[0] != batch or array.shape[1] != config.hidden_size:
        raise StreamError(f"latent frames must be [{batch}, {config.hidden_size}, f], got {list(np.shape(latent))}")
    taken = arrays.floats(array)
    if taken.shape[-1] and not float(abs(taken).max()) <= MAX_STATE:
        raise StreamError(f"latent frames hold NaN, infinity or values beyond {MAX_STATE:g}: no codes stand for these")
    return taken, Form(is_numpy, batched)


def plain_tensor(x: AnyArray, what: str) -> AnyArray:
    """A tensor with numbers in memory, apart from its gradient. Raises ``StreamError`` for one without such."""
    if str(x.layout) != "torch.strided" or x.is_meta or x.is_quantized:
        raise StreamError(f"{what} must be a dense tensor with data, got {x.dtype}, {x.layout} on {x.device}")
    return x.detach()


def _plain(x: AnyArray, what: str) -> tuple[AnyArray, bool]:
    """Numbers as they are, and whether they are numpy's."""
    return (plain_tensor(x, what), False) if is_tensor(x) else (as_array(x, what), True)
