"""Packets that are lost in bursts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from streaming_encodec.voice.network import GilbertElliott, Network, NetworkModel

Lost = npt.NDArray[np.bool_]

BURST_MS = 60.0
"""Mean length of a burst: three 20 ms packets, as congested Wi-Fi and mobile links lose them."""

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
