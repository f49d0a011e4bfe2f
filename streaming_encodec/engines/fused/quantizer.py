"""The residual quantiser with everything precomputed that does not depend on the latent."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from streaming_encodec.model.quantizer import ResidualVectorQuantizer


class FusedQuantizer:
    """``ResidualVectorQuantizer`` for the fast engines.

    The nearest vector is the one with the least ``|e|² / 2 - x · e``: the published expression without what
    is equal for all, halved. The halved squares are kept, which the layers compute again for each frame.
    If two vectors are equally near up to rounding, the two may choose differently.
    """

    def __init__(self, quantizer: ResidualVectorQuantizer) -> None:
        tables = torch.stack([codebook.embed.detach() for codebook in quantizer.codebooks])  # [K, size, D]
        self._flat = tables.reshape(-1, tables.shape[-1])
        if tables.dtype in (torch.float16, torch.bfloat16):
            tables = tables.float()  # the squares of a loud latent are beyond float16
        self._tables = tables
        self._half_squares = tables.pow(2).sum(-1) / 2  # [K, size]
        self._offsets = torch.arange(len(tables), device=tables.device)[:, None] * tables.shape[1]  # [K, 1]

    @torch.no_grad()
    def encode(self, latent: Tensor, num_codebooks: int) -> Tensor:
        """``latent`` [B, D, F] → codes [B, num_codebooks, F], int64."""
        batch, dim, frames = latent.shape
        residual = latent.transpose(1, 2).reshape(-1, dim).to(self._tables.dtype)  # [B * F, D]
        codes = []
        for k in range(num_codebooks):
            table = self._tables[k]
            indices = torch.addmm(self._half_squares[k], residual, table.t(), alpha=-1).argmin(dim=-1)
            if k + 1 < num_codebooks:
                residual = residual - table[indices]
            codes.append(indices)
        return torch.stack(codes, dim=1).view(batch, frames, num_codebooks).transpose(1, 2)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """codes [B, K, F], any K up to the checkpoint's → latent [B, D, F]."""
        rows = codes + self._offsets[: codes.shape[1]]
        return F.embedding(rows, self._flat).sum(dim=1).transpose(1, 2)  # [B, K, F, D] → [B, D, F]
