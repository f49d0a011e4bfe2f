"""A bad network to try a good one with: packets that have arrived go through it before they count as arrived."""

from __future__ import annotations

import heapq

from streaming_encodec.voice.network import GilbertElliott, Network, NetworkModel

_BURST_PACKETS = 1.5
"""Mean length of a loss: what home networks show."""


class Detour:
    """Packets in, the same packets out later, or never. The same seed and packets give the same result.

    loss: share of packets, 0 to 0.5. jitter_ms: mean delay. Set both at any time with `set`.
    """

    def __init__(self, loss: float = 0.0, jitter_ms: float = 0.0, seed: int = 0) -> None:
        self._seed = seed
        self._waiting: list[tuple[float, int, bytes]] = []
        self._count = 0
        self.set(loss, jitter_ms)

    def set(self, loss: float, jitter_ms: float) -> None:
        """From now on lose so many and delay each by so much on average."""
        self.loss, self.jitter_ms = loss, jitter_ms
        chances = GilbertElliott.with_loss(loss, _BURST_PACKETS) if loss else GilbertElliott()
        self._network = Network(NetworkModel(loss=chances, base_ms=0.0, jitter_ms=jitter_ms), self._seed)

    @property
    def is_clear(self) -> bool:
        """Whether what enters now would leave at once."""
        return not (self.loss or self.jitter_ms or self._waiting)

    def enter(self, data: bytes, now: float) -> None:
        """A packet that arrived at ``now``."""
        for delivery in self._network.send(data, now):
            self._count += 1
            heapq.heappush(self._waiting, (delivery.time, self._count, delivery.data))

    def leave(self, now: float) -> list[tuple[float, bytes]]:
        """What is through by ``now``, each with its moment, the earliest first."""
        through = []
        while self._waiting and self._waiting[0][0] <= now:
            moment, _, data = heapq.heappop(self._waiting)
            through.append((moment, data))
        return through
