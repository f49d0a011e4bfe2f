"""The concealment rule for lost frames: one for a call's receiver, for training and for evaluation.

The decoder steps on the last latent that arrived, times `LATENT_DECAY` for every frame since. That alone makes the
sound softer: a fade of the sound on top was measured and is no better (docs/quality.md). Operators only: numpy arrays
and torch tensors both pass, gradients included.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

LATENT_DECAY = 0.8
"""What each lost frame leaves of the last latent. The voice model is trained with it."""

LostFrames = NDArray[np.bool_]
"""Which frames are lost, ``[B, F]``."""

Latent = TypeVar("Latent")
"""A numpy array or a torch tensor."""


def decayed(latent: Latent, lost_frames: int, decay: float = LATENT_DECAY) -> Latent:
    """What stands for the ``lost_frames``-th lost frame in a row; ``latent`` is that of the last that arrived."""
    given: Any = latent
    scaled: Latent = given * decay**lost_frames
    return scaled


def conceal_latent(latent: Latent, lost: LostFrames, decay: float = LATENT_DECAY) -> Latent:
    """``latent`` ``[B, D, F]`` with lost frames replaced as a receiver does, in a new array of the same kind.

    Frames before the first arrival become zero: there is nothing to repeat.
    """
    if not lost.any():
        return latent
    frames = np.arange(lost.shape[1])
    last = np.maximum.accumulate(np.where(lost, -1, frames), axis=1)  # [B, F], -1 before the first arrival
    since = np.where(last < 0, -1, frames - last)
    given: Any = latent
    repeated = given[np.arange(len(lost))[:, None], :, np.maximum(last, 0)]  # [B, F, D]
    for count in np.unique(since[since != 0]).tolist():
        here = since == count
        repeated[here] = decayed(repeated[here], count, decay) if count > 0 else repeated[here] * 0.0
    concealed: Latent = repeated.swapaxes(1, 2)
    return concealed
