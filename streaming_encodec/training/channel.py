"""Noise that stands for the quantiser's error, for the steps before there are codebooks.

With small batches, codebooks trained beside the encoder cannot follow its moving latent. So the autoencoder is
trained first, through the forward channel that reaches the rate-distortion bound of a Gaussian
source (Cover & Thomas, Elements of Information Theory, 10.3.3): along each principal axis of the latent, with
variance ``v`` and water level ``w``, it leaves a share ``1 - d / v`` and adds noise of variance ``d (1 - d / v)``,
``d = min(v, w)``. The level follows from the bits of the clip's codebooks. So encoder and decoder learn to work with
few bits, and k-means then gets a latent that no longer moves.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from streaming_encodec.training.config import ChannelConfig

_ROUNDS = 40


class GaussianChannel:
    """Adds the noise of a number of bits a frame; keeps the latent's covariance as a moving average."""

    def __init__(self, dimension: int, config: ChannelConfig) -> None:
        self._config = config
        self._seen = 0
        self._mean = torch.zeros(dimension)
        self._square = torch.zeros(dimension, dimension)
        self._variances = torch.ones(dimension)
        self._axes = torch.eye(dimension)

    @torch.no_grad()
    def follow(self, latent: Tensor) -> None:
        """Take in a batch [B, D, F]."""
        rows = latent.transpose(1, 2).flatten(0, 1).float().cpu()
        self._seen += 1
        rate = max(1.0 - self._config.decay, 1.0 / self._seen)
        self._mean.lerp_(rows.mean(0), rate)
        self._square.lerp_(rows.T @ rows / len(rows), rate)
        self._settle()

    def __call__(self, latent: Tensor, bits: Sequence[float], generator: torch.Generator) -> Tensor:
        """``latent`` [B, D, F] as if coded with ``bits`` [B] a frame → same shape."""
        device = latent.device
        variances, axes, mean = self._variances.to(device), self._axes.to(device), self._mean.to(device)
        along = (latent.transpose(1, 2) - mean) @ axes  # [B, F, D]
        levels = {count: self.water_level(self._config.efficiency * count) for count in set(bits)}
        level = latent.new_tensor([levels[count] for count in bits])
        lost = torch.minimum(variances, level[:, None])[:, None]  # [B, 1, D]
        kept = 1.0 - lost / variances
        # Codebooks are finer where latents are frequent: quiet frames get less than the mean noise.
        power = along.detach().square().sum(-1, keepdim=True) / variances.sum()
        loudness = power.pow(self._config.loudness_exponent / 2).clamp(0.01, 2.0)
        noise = torch.randn(along.shape, generator=generator).to(device)
        passed = kept * along + (lost * kept).sqrt() * loudness * noise
        return (passed @ axes.T + mean).transpose(1, 2)

    def water_level(self, bits: float) -> float:
        """The distortion per axis at which all axes together take ``bits``."""
        logs = self._variances.double().log2()
        low, high = -60.0, float(logs.max())
        for _ in range(_ROUNDS):
            middle = (low + high) / 2
            if float((logs - middle).clamp_min(0.0).sum()) / 2 > bits:
                low = middle
            else:
                high = middle
        return float(2.0**high)

    def state(self) -> dict[str, Tensor]:
        """The moving averages, by name."""
        return {"seen": torch.tensor(float(self._seen)), "mean": self._mean, "square": self._square}

    def load_state(self, values: dict[str, Tensor]) -> None:
        """Restore what :meth:`state` gave."""
        self._seen = int(values["seen"])
        self._mean, self._square = values["mean"].clone(), values["square"].clone()
        if self._seen:
            self._settle()

    def _settle(self) -> None:
        covariance = self._square - torch.outer(self._mean, self._mean)
        variances, axes = torch.linalg.eigh(covariance.double())
        self._variances, self._axes = variances.float().clamp_min(1e-8), axes.float()
