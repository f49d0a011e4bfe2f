"""Lost frames in training: which ones. `streaming.conceal` gives the decoder what a call's receiver would."""

from __future__ import annotations

import numpy as np

from streaming_encodec.streaming.conceal import LostFrames
from streaming_encodec.training.config import LostFramesConfig
from streaming_encodec.voice.network import GilbertElliott


def draw_losses(batch: int, frames: int, config: LostFramesConfig, rng: np.random.Generator) -> LostFrames:
    """Which frames are lost, ``[batch, frames]``: some rows lose bursts (Gilbert's two-state channel).

    Each such row draws its own loss rate and mean burst length; a mean of 1 frame is random loss.

    Raises:
        StreamError: so much loss needs longer bursts.
    """
    lost = np.zeros((batch, frames), dtype=np.bool_)
    for row in np.flatnonzero(rng.random(batch) < config.chance):
        rate = rng.uniform(*config.rate)
        channel = GilbertElliott.with_loss(rate, rng.uniform(*config.burst_frames))
        bad = bool(rng.random() < rate)
        for frame in range(frames):
            lost[row, frame] = bad
            bad = bool(rng.random() < ((1.0 - channel.bad_to_good) if bad else channel.good_to_bad))
    return lost
