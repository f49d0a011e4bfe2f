"""Weight norm (arXiv 1602.07868) in checkpoints: folded into plain weights when read, unfolded when written.

``weight = g * v / |v|``, one ``g`` and one norm for each row along axis 0. Axis 0 is the output channels of
a convolution, but the *input* channels of a transposed one: torch's weight norm does not tell them apart, and
so published checkpoints do not either.

All of it is float64 with a fixed order of additions: the same file gives the same bits on every machine.
"""

from __future__ import annotations

import torch
from torch import Tensor

# The two spellings of torch: ``nn.utils.weight_norm`` and ``nn.utils.parametrizations.weight_norm``.
MAGNITUDE_SUFFIXES = (".weight_g", ".parametrizations.weight.original0")
DIRECTION_SUFFIXES = (".weight_v", ".parametrizations.weight.original1")


def row_norms(v: Tensor) -> Tensor:
    """The Euclidean norm of each row along axis 0: ``v`` [R, ...] → float64 [R, 1, ...]."""
    terms = v.double().flatten(1).square()
    while terms.shape[1] > 1:
        # Sums by pairs, one whole tensor at a time: a library's own sum depends on its vector width.
        half = terms.shape[1] // 2
        pairs = terms[:, :half] + terms[:, half : 2 * half]
        terms = torch.cat((pairs, terms[:, 2 * half :]), dim=1)
    return terms.sqrt().reshape(-1, *[1] * (v.dim() - 1))


def fold(g: Tensor, v: Tensor) -> Tensor:
    """Plain weights in float64 from ``g`` [R, 1, ...] and ``v`` [R, ...].

    A row without direction and of magnitude zero is zero; with another magnitude the result is not finite,
    which the caller must look for.
    """
    norm = row_norms(v)
    ratio = g.double() / norm
    # A magnitude that is this very norm, rounded to the file's precision, means "v as it is". Multiplying by
    # nearly one instead would move weights by one bit each time that a model is saved and loaded.
    precision = torch.promote_types(g.dtype, torch.float32)
    ratio = torch.where(norm.to(precision) == g.to(precision), torch.ones_like(ratio), ratio)
    return v.double() * ratio


def unfold(weight: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """``g`` (at least float32) and ``v`` (``dtype``) of plain weights, so that ``fold`` gives back ``v``.

    A zero row has no direction: it gets a vector of ones with magnitude zero, where dividing zero by zero
    would make NaN of it.
    """
    v = weight.to(dtype)
    norm = row_norms(v)
    v = torch.where(norm == 0, torch.ones_like(v), v)
    return norm.to(torch.promote_types(dtype, torch.float32)), v
