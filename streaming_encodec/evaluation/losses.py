"""Packets that vanish in bursts, and what the receiver puts in their place."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from streaming_encodec.errors import ConfigError

Lost = npt.NDArray[np.bool_]

BURST_MS = 60.0
"""Mean length of a burst: three 20 ms packets, as congested Wi-Fi and mobile links lose them."""

REPEAT_DECAY = 0.8
"""What is left of the last latent for every frame since: the receiver's concealment, and that of training."""


def bursty_loss(
    packets: int, packet_ms: float, rate: float, rng: np.random.Generator, burst_ms: float = BURST_MS
) -> Lost:
    """Which packets are lost [packets]: Gilbert and Elliott's channel with a good and a bad state.

    All is lost in the bad state, nothing in the good one; the bad state lasts ``burst_ms`` on the average
    (one packet at least), so that codecs with other packet lengths meet the same channel.

    Raises:
        ConfigError: ``rate`` is not within 0 … 0.9.
    """
    if not 0 <= rate <= 0.9:
        raise ConfigError(f"a loss rate must be within 0 … 0.9, not {rate:g}")
    recover = 1.0 / max(1.0, burst_ms / packet_ms)
    fail = min(1.0, recover * rate / (1.0 - rate))
    draws = rng.random(packets + 1)
    bad = bool(draws[0] < rate)  # begins anywhere in the channel's life
    lost = np.zeros(packets, np.bool_)
    for number, draw in enumerate(draws[1:]):
        lost[number] = bad
        bad = bool(draw >= recover) if bad else bool(draw < fail)
    return lost


def conceal(latent: Tensor, lost: Lost, decay: float = REPEAT_DECAY) -> Tensor:
    """Lost frames of ``latent`` [B, D, F] replaced, ``lost`` [B, F]: the last one that came, times ``decay``
    a frame.

    Frames lost before any came are zeros.
    """
    out = latent.clone()
    for row, frames in enumerate(lost):
        held = torch.zeros_like(latent[row, :, 0])
        for frame, gone in enumerate(frames):
            if gone:
                held = held * decay
                out[row, :, frame] = held
            else:
                held = latent[row, :, frame]
    return out
