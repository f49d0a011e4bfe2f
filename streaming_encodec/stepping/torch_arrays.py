"""The operations of ``arrays.py`` in torch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from streaming_encodec.stepping.arrays import as_tensor
from streaming_encodec.types import AnyArray


class TorchArrays:
    """Tensors like a model's weights."""

    def __init__(self, like: Tensor) -> None:
        self._dtype, self._device = like.dtype, like.device

    def zeros(self, *shape: int) -> Tensor:
        return torch.zeros(shape, dtype=self._dtype, device=self._device)

    def no_codes(self, batch: int, num_codebooks: int) -> Tensor:
        return torch.zeros((batch, num_codebooks, 0), dtype=torch.int64, device=self._device)

    def join(self, pieces: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(pieces), dim=-1)

    def copy(self, x: AnyArray) -> Tensor:
        copied: Tensor = as_tensor(x).to(self._device, self._dtype, copy=True).contiguous()
        return copied

    def contiguous(self, x: Tensor) -> Tensor:
        return x.contiguous()

    def floats(self, x: AnyArray) -> Tensor:
        floats: Tensor = as_tensor(x).to(self._device, self._dtype)
        return floats

    def codes(self, x: AnyArray) -> Tensor:
        codes: Tensor = as_tensor(x).to(self._device, torch.int64)
        return codes

    def repeat(self, x: Tensor, batch: int) -> Tensor:
        return x.repeat(batch, *[1] * (x.dim() - 1))

    def choose(self, rows: Sequence[bool], yes: Tensor, no: Tensor) -> Tensor:
        mask = torch.tensor(rows, device=self._device)
        return torch.where(mask.view(-1, *[1] * (yes.dim() - 1)), yes, no)
