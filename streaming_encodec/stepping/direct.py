"""The way around torch for one stream in numpy, where the engine computes in numpy too.

A frame of a live stream comes as a small array. Around a step that streams megabytes of weights through the
caches, every small operation runs on cold memory: a torch call that takes 2 µs in a loop takes 12 there. Engines
whose steppers and quantisers take arrays do without them; values and states are the same to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, TypeVar, cast, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from streaming_encodec.samples import is_audible
from streaming_encodec.stepping.half import HalfState
from streaming_encodec.streaming.io import Form

Floats: TypeAlias = NDArray[np.float32]
Codes: TypeAlias = NDArray[np.int64]

Piece = TypeVar("Piece", Floats, Codes)

_FEW = 64
"""Numbers for which numpy's calls cost more than the interpreter's work."""

PLAIN = Form(is_numpy=True, batched=False)


@runtime_checkable
class ArrayStepper(Protocol):
    """A ``Stepper`` that also takes one stream's arrays."""

    def step_array(self, x: Floats, state: Any) -> tuple[Floats, Any]:
        """``x`` [C, n] → [C', n'], and the state after it."""
        ...


@runtime_checkable
class ArrayQuantizer(Protocol):
    """A ``Quantizer`` that also takes one stream's arrays."""

    def encode_array(self, latent: Floats, num_codebooks: int) -> Codes:
        """``latent`` [D, F] → codes [num_codebooks, F]."""
        ...

    def decode_array(self, codes: Codes) -> Floats:
        """codes [K, F] → latent [D, F]."""
        ...


def array_parts(stepper: Any, quantizer: Any, batch_size: int) -> tuple[ArrayStepper, ArrayQuantizer] | None:
    """What an engine has for one stream in numpy; None where it computes otherwise, or the streams are many."""
    if batch_size == 1 and isinstance(stepper, ArrayStepper) and isinstance(quantizer, ArrayQuantizer):
        return stepper, quantizer
    return None


def joined(pieces: list[Piece], rows: int, dtype: type) -> Piece:
    """Arrays [rows, n] one after the other; a lone one as it is, without a copy."""
    if len(pieces) == 1:
        return pieces[0]
    return cast(Piece, np.concatenate([np.empty((rows, 0), dtype), *pieces], axis=1))


def advance(
    step: Callable[[Floats, Any], tuple[Floats, Any]], size: int, state: HalfState, x: Floats
) -> tuple[list[Floats], HalfState]:
    """``Half.advance`` for a stream that has started: ``x`` [C, n], any n, and steps of ``size`` inputs."""
    pending, layers, skip, used = state.pending, state.layers, state.skip, 0
    if pending.shape[-1]:
        x = np.concatenate((pending[0].numpy(), x), axis=1)
    pieces = []
    while x.shape[1] - used >= size:
        y, layers = step(x[:, used : used + size], layers)
        used += size
        cut = min(skip, y.shape[1])
        skip -= cut
        if cut < y.shape[1]:
            pieces.append(y[:, cut:])
    if used < x.shape[1] or pending.shape[-1]:
        pending = torch.from_numpy(x[:, used:].copy())[None]
    return pieces, HalfState(pending, layers, skip)


def plain_samples(x: Any, channels: int) -> Floats | None:
    """``x`` as [channels, n] where it is what a live stream hands over; None where it needs a closer look."""
    if type(x) is not np.ndarray or x.dtype != np.float32:
        return None
    samples: Floats = x[None] if x.ndim == 1 else x
    if samples.ndim != 2 or samples.shape[0] != channels or not is_audible(samples):
        return None
    return samples


def plain_codes(x: Any, num_codebooks: int, codebook_size: int) -> Codes | None:
    """``x`` [K, f], f ≥ 1, where it is what a live stream hands over; None where it needs a closer look."""
    if type(x) is not np.ndarray or x.dtype != np.int64 or x.ndim != 2 or not x.size or len(x) > num_codebooks:
        return None
    known: Codes = x
    if known.size > _FEW:
        return known if known.min() >= 0 and known.max() < codebook_size else None
    few = known.ravel().tolist()
    return known if min(few) >= 0 and max(few) < codebook_size else None
