"""Packets that vanish in bursts, and what the receiver puts in their place."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from streaming_encodec.voice.network import GilbertElliott, Network, NetworkModel

Lost = npt.NDArray[np.bool_]

BURST_MS = 60.0
"""Mean length of a burst: three 20 ms packets, as congested Wi-Fi and mobile links lose them."""

REPEAT_DECAY = 0.8
"""What is left of the last latent for every frame since: the receiver's concealment, and that of training."""

_SETTLE_PACKETS = 50  # the channel begins in its good state: let it forget that


def bursty_loss(packets: int, packet_ms: float, rate: float, seed: int, burst_ms: float = BURST_MS) -> Lost:
    """Which packets are lost [packets]: the channel of Gilbert and Elliott, as ``voice`` simulates it.

    Bursts last ``burst_ms`` on the average (one packet at least), whatever the length of a packet.

    Raises:
        StreamError: ``rate`` is not a share, or higher than bursts of this length allow.
    """
    loss = GilbertElliott.with_loss(rate, max(1.0, burst_ms / packet_ms))
    network = Network(NetworkModel(loss=loss), seed)
    lost = [not network.send(b"", n * packet_ms / 1000) for n in range(packets + _SETTLE_PACKETS)]
    return np.array(lost[_SETTLE_PACKETS:], np.bool_)


def conceal(latent: Tensor, lost: Lost, decay: float = REPEAT_DECAY) -> Tensor:
    """Lost frames of ``latent`` [B, D, F] replaced where ``lost`` [B, F].

    By the last one that came, times ``decay`` for every frame since; by zeros before any came.
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
