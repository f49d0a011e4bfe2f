"""Lost frames in training: the decoder gets the latents of concealment, and learns to stay stable."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from streaming_encodec.training.config import LostFramesConfig

Mask = npt.NDArray[np.bool_]


def draw_losses(batch: int, frames: int, config: LostFramesConfig, rng: np.random.Generator) -> Mask:
    """Which frames are lost, ``[batch, frames]``: some rows lose bursts (Gilbert's two-state channel).

    Each such row draws its own loss rate and mean burst length; a mean of 1 frame is random loss.
    """
    lost = np.zeros((batch, frames), dtype=np.bool_)
    for row in np.flatnonzero(rng.random(batch) < config.chance):
        rate = rng.uniform(*config.rate)
        recover = 1.0 / rng.uniform(*config.burst_frames)
        lose = min(1.0, recover * rate / (1.0 - rate))
        bad = bool(rng.random() < rate)
        for frame in range(frames):
            lost[row, frame] = bad
            bad = bool(rng.random() < ((1.0 - recover) if bad else lose))
    return lost


def conceal_latent(latent: Tensor, lost: Mask, decay: float) -> Tensor:
    """Repeat the last latent that arrived, times ``decay`` for every frame since; ``[B, D, F]`` → same shape.

    Frames before the first arrival become zero: a receiver that has heard nothing has nothing to repeat.
    """
    if not lost.any():
        return latent
    frames = np.arange(lost.shape[1])
    last = np.maximum.accumulate(np.where(lost, -1, frames), axis=1)  # [B, F], -1 before the first arrival
    weight = np.where(last < 0, 0.0, decay ** (frames - last).astype(np.float64))
    index = torch.from_numpy(np.maximum(last, 0)).to(latent.device)[:, None].expand(-1, latent.shape[1], -1)
    return latent.gather(2, index) * torch.from_numpy(weight).to(latent)[:, None]
