"""The few operations on arrays that a stream needs beside its network, for numpy and for torch.

An engine says in which it computes. What callers hand over is converted once, at the door (``streaming/io.py``).
Everything else, slices above all, is written alike in both. Imports torch only where there is a tensor.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from streaming_encodec.types import AnyArray, Floats, IntArray


class Arrays(Protocol):
    """One kind of arrays: numpy's, or torch's of one dtype on one device."""

    def zeros(self, *shape: int) -> AnyArray:
        """Floats of this shape."""
        ...

    def no_codes(self, batch: int, num_codebooks: int) -> AnyArray:
        """IntArray [batch, num_codebooks, 0]."""
        ...

    def join(self, pieces: Sequence[AnyArray]) -> AnyArray:
        """One after the other along the last axis."""
        ...

    def copy(self, x: AnyArray) -> AnyArray:
        """The same values in memory of their own, the last axis fastest. Floats of the other kind are converted."""
        ...

    def contiguous(self, x: AnyArray) -> AnyArray:
        """The same values, the last axis fastest; the same memory where it can be."""
        ...

    def floats(self, x: AnyArray) -> AnyArray:
        """Floats of either kind in this kind and precision; the same memory where it can be."""
        ...

    def codes(self, x: AnyArray) -> AnyArray:
        """Whole numbers of either kind as int64."""
        ...

    def repeat(self, x: AnyArray, batch: int) -> AnyArray:
        """``batch`` copies along the first axis."""
        ...

    def choose(self, rows: Sequence[bool], yes: AnyArray, no: AnyArray) -> AnyArray:
        """``yes`` in these rows of the first axis, ``no`` in the others."""
        ...


class NumpyArrays:
    """float32 on the CPU."""

    def zeros(self, *shape: int) -> Floats:
        return np.zeros(shape, np.float32)

    def no_codes(self, batch: int, num_codebooks: int) -> IntArray:
        return np.zeros((batch, num_codebooks, 0), np.int64)

    def join(self, pieces: Sequence[AnyArray]) -> AnyArray:
        return np.concatenate(pieces, axis=-1)

    def copy(self, x: AnyArray) -> Floats:
        return np.array(as_numpy(x), np.float32, order="C")

    def contiguous(self, x: AnyArray) -> AnyArray:
        return np.ascontiguousarray(x)

    def floats(self, x: AnyArray) -> Floats:
        floats: Floats = as_numpy(x).astype(np.float32, copy=False)
        return floats

    def codes(self, x: AnyArray) -> IntArray:
        codes: IntArray = as_numpy(x).astype(np.int64, copy=False)
        return codes

    def repeat(self, x: AnyArray, batch: int) -> AnyArray:
        return np.repeat(x, batch, axis=0)

    def choose(self, rows: Sequence[bool], yes: AnyArray, no: AnyArray) -> AnyArray:
        return np.where(np.reshape(rows, (-1, *[1] * (yes.ndim - 1))), yes, no)


def joined(arrays: Arrays, pieces: list[AnyArray], nothing: AnyArray) -> AnyArray:
    """Pieces one after the other, a lone one without a copy where it can be; ``nothing`` where there are none."""
    return arrays.contiguous(pieces[0]) if len(pieces) == 1 else arrays.join([nothing, *pieces])


def is_tensor(x: object) -> bool:
    """Whether it is torch's, without importing torch: who has a tensor has done that."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def as_numpy(x: AnyArray) -> AnyArray:
    """A tensor in numpy, 16-bit floats as float32: numpy has no bfloat16, and what takes sound takes no float16."""
    if isinstance(x, np.ndarray):
        return x
    x = x.detach().cpu()
    return (x.float() if x.is_floating_point() and x.element_size() == 2 else x).numpy()


def as_tensor(x: AnyArray) -> AnyArray:
    """A numpy array as a tensor that shares its memory; a tensor as it is, apart from its gradient."""
    if isinstance(x, np.ndarray):
        import torch

        return torch.from_numpy(x)
    return x.detach()
