"""Residual vector quantisation with Euclidean codebooks (arXiv 2107.03312, 2210.13438), inference only."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from streaming_encodec.model.config import EncodecConfig


class EuclideanCodebook(nn.Module):
    """``codebook_size`` vectors; a code is the index of the nearest one."""

    embed: Tensor  # [codebook_size, D]

    def __init__(self, config: EncodecConfig) -> None:
        super().__init__()
        self.register_buffer("embed", torch.zeros(config.codebook_size, config.hidden_size))

    def encode(self, x: Tensor) -> Tensor:
        """``x`` [N, D] → codes [N]."""
        # The expansion and its order of operations are the published ones: in float32 another order flips codes.
        table = self.embed.t()
        if x.dtype in (torch.float16, torch.bfloat16):
            x, table = x.float(), table.float()  # the squares of a loud latent are beyond float16
        distance = x.pow(2).sum(1, keepdim=True) - 2 * x @ table + table.pow(2).sum(0, keepdim=True)
        return distance.argmin(dim=-1)

    def decode(self, codes: Tensor) -> Tensor:
        """codes [...] → vectors [..., D]."""
        return F.embedding(codes, self.embed)


class VectorQuantizer(nn.Module):
    """Holds one codebook under the name that the published checkpoints use."""

    def __init__(self, config: EncodecConfig) -> None:
        super().__init__()
        self.codebook = EuclideanCodebook(config)


class ResidualVectorQuantizer(nn.Module):
    """Each codebook quantises the residual of the ones before it: fewer codebooks are a prefix of more."""

    def __init__(self, config: EncodecConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(VectorQuantizer(config) for _ in range(config.num_quantizers))

    @property
    def codebooks(self) -> list[EuclideanCodebook]:
        """The codebooks, coarse first."""
        return [cast(VectorQuantizer, layer).codebook for layer in self.layers]

    def encode(self, latent: Tensor, num_codebooks: int) -> Tensor:
        """``latent`` [B, D, F] → codes [B, num_codebooks, F], int64."""
        batch, dim, frames = latent.shape
        residual = latent.transpose(1, 2).reshape(-1, dim)  # [B * F, D]
        codes = []
        for codebook in self.codebooks[:num_codebooks]:
            indices = codebook.encode(residual)
            residual = residual - codebook.decode(indices)
            codes.append(indices.view(batch, frames))
        return torch.stack(codes, dim=1)

    def decode(self, codes: Tensor) -> Tensor:
        """codes [B, K, F], any K up to the checkpoint's → latent [B, D, F]."""
        latent = self.codebooks[0].decode(codes[:, 0])  # [B, F, D]
        for k in range(1, codes.shape[1]):
            latent = latent + self.codebooks[k].decode(codes[:, k])
        return latent.transpose(1, 2)
