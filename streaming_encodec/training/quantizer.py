"""Training of the residual quantiser: straight-through gradients, codebooks that follow by moving averages.

After arXiv 2107.03312 (SoundStream) and 2210.13438. The codebooks live in the model (``quantizer.layers.i``);
here are the moving averages, the k-means start and the replacement of unused codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from streaming_encodec.model.quantizer import EuclideanCodebook, ResidualVectorQuantizer
from streaming_encodec.training.config import QuantizerConfig


class Quantized(NamedTuple):
    """The quantiser's output in a training step."""

    latent: Tensor  # [B, D, F], straight-through
    commitment: Tensor  # scalar
    perplexity: Tensor  # [K], of the codes of this batch


class QuantizerTrainer:
    """Quantises in training and keeps the codebooks up to date."""

    def __init__(self, quantizer: ResidualVectorQuantizer, config: QuantizerConfig) -> None:
        self._books: list[EuclideanCodebook] = quantizer.codebooks
        self._config = config
        self._counts = [book.embed.new_ones(book.embed.shape[0]) for book in self._books]
        self._sums = [book.embed.clone() for book in self._books]

    def __call__(self, latent: Tensor, active: Tensor, generator: torch.Generator | None) -> Quantized:
        """Quantise ``latent`` [B, D, F], ``active`` [B] codebooks a row; no ``generator``: codebooks stay."""
        rows = latent.transpose(1, 2)  # [B, F, D]
        residual = rows.detach().float()
        quantized = torch.zeros_like(residual)
        commitment = rows.new_zeros((), dtype=torch.float32)
        perplexities = []
        for k in range(int(active.max())):
            used = active > k  # [B]
            vectors = residual[used].reshape(-1, residual.shape[-1])  # [N, D]
            codes = self._books[k].encode(vectors)
            chosen = self._books[k].decode(codes)  # [N, D]
            if generator is not None:
                self._follow(k, vectors, codes, generator)
            chosen = chosen.view(-1, *residual.shape[1:])
            # Commitment: this codebook's share of the latent against the entry that it chose.
            share = rows[used].float() - quantized[used]
            commitment = commitment + (share - chosen).pow(2).mean()
            quantized = quantized.index_add(0, used.nonzero().squeeze(1), chosen)
            residual = rows.detach().float() - quantized
            perplexities.append(perplexity(codes, self._books[k].embed.shape[0]))
        # Per unit of latent power, so that the weight means the same at every scale of the latent.
        commitment = commitment / (rows.detach().float().pow(2).mean() + 1e-6)
        passed = rows + (quantized - rows.detach())
        return Quantized(passed.transpose(1, 2), commitment, torch.stack(perplexities))

    @torch.no_grad()
    def start(self, latents: Tensor, generator: torch.Generator) -> None:
        """Set all codebooks by k-means, each on the residual of the ones before it; ``latents`` [N, D]."""
        residual = latents.float()
        for k, book in enumerate(self._books):
            size = book.embed.shape[0]
            book.embed.copy_(kmeans(residual, size, self._config.kmeans_rounds, generator))
            codes = book.encode(residual)
            share = len(residual) / size
            used = torch.bincount(codes, minlength=size).to(residual.dtype)
            self._counts[k] = (used / share).clamp_min(0.1)
            self._sums[k] = book.embed * self._counts[k][:, None]
            residual = residual - book.decode(codes)

    @torch.no_grad()
    def _follow(self, k: int, vectors: Tensor, codes: Tensor, generator: torch.Generator) -> None:
        """Move each code of codebook ``k`` towards the vectors that chose it; replace unused ones.

        Counts are relative to even use, so their mean is about 1 for any batch size.
        """
        book, size = self._books[k], self._books[k].embed.shape[0]
        rate = 1.0 - self._config.decay
        scale = size / len(vectors)
        used = torch.bincount(codes, minlength=size).to(vectors.dtype) * scale
        sums = torch.zeros_like(book.embed).index_add_(0, codes, vectors) * scale
        self._counts[k].mul_(1.0 - rate).add_(used, alpha=rate)
        self._sums[k].mul_(1.0 - rate).add_(sums, alpha=rate)
        dead = self._counts[k] < self._config.dead_share
        if bool(dead.any()):
            number = int(dead.sum())
            picks = torch.randint(len(vectors), (number,), generator=generator).to(vectors.device)
            self._counts[k][dead] = 1.0
            self._sums[k][dead] = vectors[picks]
        book.embed.copy_(self._sums[k] / self._counts[k][:, None])

    def state(self) -> dict[str, Tensor]:
        """The moving averages, by name."""
        values = {f"counts.{k}": value for k, value in enumerate(self._counts)}
        return values | {f"sums.{k}": value for k, value in enumerate(self._sums)}

    def load_state(self, values: Mapping[str, Tensor]) -> None:
        """Restore what :meth:`state` gave."""
        for k in range(len(self._books)):
            self._counts[k] = values[f"counts.{k}"].to(self._books[k].embed)
            self._sums[k] = values[f"sums.{k}"].to(self._books[k].embed)


def perplexity(codes: Tensor, size: int) -> Tensor:
    """Number of codes in even use that would have the same entropy as ``codes``."""
    share = torch.bincount(codes.reshape(-1), minlength=size).float()
    share = share / share.sum()
    return torch.exp(-(share * (share + 1e-10).log()).sum())


def kmeans(vectors: Tensor, size: int, rounds: int, generator: torch.Generator) -> Tensor:
    """``size`` centres [size, D] of ``vectors`` [N, D]; one without vectors is moved onto a random one."""
    count = len(vectors)
    order = torch.randperm(count, generator=generator).to(vectors.device)
    centres = vectors[order.repeat(-(-size // count))[:size]].clone()
    for _ in range(rounds):
        nearest = torch.cdist(vectors, centres).argmin(dim=1)
        members = torch.bincount(nearest, minlength=size)
        sums = torch.zeros_like(centres).index_add_(0, nearest, vectors)
        centres = sums / members.clamp_min(1)[:, None]
        empty = members == 0
        if bool(empty.any()):
            picks = torch.randint(count, (int(empty.sum()),), generator=generator).to(vectors.device)
            centres[empty] = vectors[picks]
    return centres
