"""A simulated network: loss in bursts, jitter, stalls, reordering, duplicates and drifting clocks, from one seed.

`Network.send(data, time_s)` says when and how often a packet arrives; no time passes by itself. The presets are models
with round figures, not recordings; the comment beside each says what it stands for. `NetworkImpairment` holds packets
of a real network back, or drops them, as such a model would.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from streaming_encodec.errors import StreamError


class Delivery(NamedTuple):
    """A packet that arrives."""

    time_s: float
    data: bytes


@dataclass(frozen=True, slots=True)
class GilbertElliott:
    """Loss in bursts: a good and a bad state, with a chance to change at each packet (Gilbert 1960, Elliott 1963)."""

    good_to_bad: float = 0.0
    bad_to_good: float = 1.0
    loss_good: float = 0.0
    loss_bad: float = 1.0

    def __post_init__(self) -> None:
        for value in (self.good_to_bad, self.bad_to_good, self.loss_good, self.loss_bad):
            if not 0 <= value <= 1:
                raise StreamError("the chances of a loss model lie in 0..1")

    @classmethod
    def with_loss(cls, share: float, burst_packets: float = 2.0) -> GilbertElliott:
        """The model that loses ``share`` of all packets, ``burst_packets`` in a row on average."""
        if not (0 <= share < 1 and burst_packets >= 1):
            raise StreamError("a loss share lies in 0..1 (not 1), a burst has at least one packet")
        leave = 1 / burst_packets
        enter = share * leave / (1 - share)
        if enter > 1:
            raise StreamError(f"{share:.0%} loss needs bursts longer than {burst_packets} packets")
        return cls(enter, leave)


@dataclass(frozen=True, slots=True)
class Stalls:
    """Times in which nothing moves and after which all arrives at once: a radio hands over, TCP sends again.

    every_s: mean time between two (exponential, or exact if ``regular``).
    shortest_ms, longest_ms: length, uniform between the two.
    """

    every_s: float
    shortest_ms: float
    longest_ms: float
    regular: bool = False


@dataclass(frozen=True, slots=True)
class NetworkModel:
    """What a network does to packets.

    base_ms: the fastest way through.
    jitter_ms: mean of the exponential delay on top.
    ordered: as with TCP, a packet waits for those before it, and a lost one is sent again after ``resend_ms``.
    reorder: share of packets held back by ``reorder_ms``. duplicate: share that arrives twice.
    drift_ppm: by how much the sender's clock is fast.
    """

    loss: GilbertElliott = GilbertElliott()
    base_ms: float = 20.0
    jitter_ms: float = 0.0
    stalls: tuple[Stalls, ...] = ()
    ordered: bool = False
    resend_ms: float = 60.0
    reorder: float = 0.0
    reorder_ms: float = 30.0
    duplicate: float = 0.0
    drift_ppm: float = 0.0


@dataclass(slots=True)
class _NextStall:
    spec: Stalls
    begins: float = 0.0
    ends: float = 0.0
    before: tuple[float, float] = (0.0, 0.0)


class Network:
    """One direction of one path. The same seed and sends give the same deliveries."""

    def __init__(self, model: NetworkModel, seed: int = 0) -> None:
        self.model = model
        self._rng = np.random.default_rng(seed)
        self._bad = False
        self._last_arrival = -np.inf
        self._stalls = [_NextStall(spec) for spec in model.stalls]
        self.stalls_passed: list[tuple[float, float]] = []
        """Begin and end of each stall so far (the last may lie ahead), for measuring recovery."""
        self.sent = 0
        self.lost = 0

    def sender_time(self, seconds: float) -> float:
        """True time at which a sender's clock shows ``seconds``."""
        return seconds / (1 + self.model.drift_ppm * 1e-6)

    def send(self, data: bytes, time_s: float) -> list[Delivery]:
        """Hand a packet over at ``time_s``, not before earlier ones. Returns its arrivals: none, one or two."""
        model, rng = self.model, self._rng
        self.sent += 1
        delay = model.base_ms / 1000
        if model.jitter_ms:
            delay += float(rng.exponential(model.jitter_ms / 1000))
        if self._is_lost():
            self.lost += 1
            if not model.ordered:
                return []
            delay += model.resend_ms / 1000
        if model.reorder and rng.random() < model.reorder:
            delay += model.reorder_ms / 1000
        arrival = self._after_stalls(time_s + delay)
        if model.ordered:
            arrival = max(arrival, self._last_arrival)
        self._last_arrival = arrival
        deliveries = [Delivery(arrival, data)]
        if model.duplicate and rng.random() < model.duplicate:
            deliveries.append(Delivery(arrival + float(rng.exponential(0.01)), data))
        return deliveries

    def _is_lost(self) -> bool:
        loss = self.model.loss
        chance = loss.bad_to_good if self._bad else loss.good_to_bad
        if chance and self._rng.random() < chance:
            self._bad = not self._bad
        chance = loss.loss_bad if self._bad else loss.loss_good
        return bool(chance and self._rng.random() < chance)

    def _gap(self, spec: Stalls) -> float:
        return spec.every_s if spec.regular else float(self._rng.exponential(spec.every_s))

    def _after_stalls(self, arrival: float) -> float:
        for stall in self._stalls:
            while arrival >= stall.ends:
                begins = max(stall.ends, 0.0) + self._gap(stall.spec)
                length = float(self._rng.uniform(stall.spec.shortest_ms, stall.spec.longest_ms)) / 1000
                stall.before = (stall.begins, stall.ends)
                stall.begins, stall.ends = begins, begins + length
                self.stalls_passed.append((begins, stall.ends))
            # Jitter may have sent an earlier packet past a stall that this one still falls into.
            for begins, ends in (stall.before, (stall.begins, stall.ends)):
                if begins <= arrival < ends:
                    arrival = ends
        return arrival


class NetworkImpairment:
    """Makes a good network worse: packets that arrived go in and come out later, or never.

    The same seed and packets give the same result. loss: share of packets, 0 to 0.5. jitter_ms: mean delay.
    """

    def __init__(self, loss: float = 0.0, jitter_ms: float = 0.0, seed: int = 0) -> None:
        self._seed = seed
        self._waiting: list[tuple[float, int, bytes]] = []
        self._count = 0
        self.set(loss, jitter_ms)

    def set(self, loss: float, jitter_ms: float) -> None:
        """From now on lose this share of packets and delay each by so much on average."""
        self.loss, self.jitter_ms = loss, jitter_ms
        chances = GilbertElliott.with_loss(loss, _BURST_PACKETS) if loss else GilbertElliott()
        self._network = Network(NetworkModel(loss=chances, base_ms=0.0, jitter_ms=jitter_ms), self._seed)

    def enter(self, data: bytes, now_s: float) -> None:
        """A packet that arrived at ``now_s``."""
        for delivery in self._network.send(data, now_s):
            self._count += 1
            heapq.heappush(self._waiting, (delivery.time_s, self._count, delivery.data))

    def leave(self, now_s: float) -> list[tuple[float, bytes]]:
        """The packets that are through by ``now_s``, each with its time, the earliest first."""
        through = []
        while self._waiting and self._waiting[0][0] <= now_s:
            time_s, _, data = heapq.heappop(self._waiting)
            through.append((time_s, data))
        return through


_BURST_PACKETS = 1.5
"""Mean length of a loss that `NetworkImpairment` makes: what home networks show."""

PRESETS: dict[str, NetworkModel] = {
    # A cable: nothing happens.
    "clean": NetworkModel(),
    # Home Wi-Fi over datagrams: contention jitter, a scan or another station's burst every few seconds, few losses.
    "wifi": NetworkModel(
        loss=GilbertElliott.with_loss(0.01, 1.5),
        jitter_ms=3.0,
        stalls=(Stalls(3.0, 10.0, 60.0),),
    ),
    # Mobile: longer way, more jitter, a handover every 20 s.
    "lte": NetworkModel(
        loss=GilbertElliott.with_loss(0.005, 2.0),
        base_ms=45.0,
        jitter_ms=6.0,
        stalls=(Stalls(2.0, 10.0, 40.0), Stalls(20.0, 80.0, 200.0)),
    ),
    # Wi-Fi again, under TCP: what is lost comes late, and all after it with it.
    "wifi-tcp": NetworkModel(
        loss=GilbertElliott.with_loss(0.01, 1.5),
        jitter_ms=3.0,
        stalls=(Stalls(3.0, 10.0, 60.0),),
        ordered=True,
    ),
    # Packets overtake each other and come twice, as over two paths.
    "reordering": NetworkModel(jitter_ms=2.0, reorder=0.1, reorder_ms=50.0, duplicate=0.1),
}
"""Named networks for tests, demos and the report."""
