"""Counters of one relay in the Prometheus text format, version 0.0.4; prometheus-client writes it."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from streaming_encodec.relay.bus.base import Reading

_PREFIX = "streaming_encodec_relay_"
_BOUNDS_S = (0.00025, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5)

_COUNTERS = {
    "connections": "TCP connections accepted.",
    "cut_off": "Connections cut off without an answer: too many, or too many bytes before the handshake.",
    "joins": "Clients that joined.",
    "resumes": "Participants that returned after a lost connection.",
    "sessions": "Datagram sessions opened.",
    "sessions_refused": "Datagram sessions refused: a key that is unknown, used or too old.",
    "packets_in": "Voice packets received.",
    "packets_late": "Packets in that were dropped because their voice was too old, as after an outage.",
    "packets_replayed": "Packets in that were dropped because they had come before, or were far out of order.",
    "packets_unheard": "Packets of other relays that were dropped: of an unknown speaker, or too old.",
    "frames_in": "Voice frames passed on.",
    "bytes_in": "Bytes of voice packets received.",
    "packets_out": "Voice packets for listeners, those that were dropped later among them.",
    "bytes_out": "Bytes of voice packets for listeners.",
    "packets_dropped": "Packets out that were dropped because a listener was slow.",
    "evictions": "Listeners disconnected because they did not read.",
    "stalls": "Times that the relay itself did not run for a second or more.",
}
_GAUGES = {
    "connections_open": "TCP connections open now.",
    "rooms": "Rooms that exist now.",
    "seats": "Participants now, those kept after a lost connection included.",
    "sessions_open": "Datagram sessions open now.",
    "draining": "1 while the relay is being stopped.",
}


class Metrics:
    """What a relay counted. Names of rooms and people never appear here. bus: the state of the bus now."""

    def __init__(self, bus: Callable[[], Iterable[Reading]] = tuple) -> None:
        self._bus = bus
        self.counts: Counter[str] = Counter()
        self.closed: Counter[int] = Counter()
        self._buckets = [0] * (len(_BOUNDS_S) + 1)
        self._sum_s = 0.0

    def fanout(self, seconds: float) -> None:
        """Time from a packet's arrival in the relay to its last copy's handing over."""
        self._buckets[bisect_left(_BOUNDS_S, seconds)] += 1
        self._sum_s += seconds

    def exposition(self, gauges: Mapping[str, int]) -> tuple[bytes, str]:
        """All metrics in the text format, which every Prometheus reads, and its content type.

        gauges: the present values.
        """
        # A registry of its own: the global one would add the metrics of everything else in this process.
        registry = CollectorRegistry()
        registry.register(_Snapshot(self, gauges))
        encode, content_type = choose_encoder("")
        return encode(registry), content_type

    def families(self, gauges: Mapping[str, int]) -> Iterator[Metric]:
        """All metrics, as prometheus-client takes them."""
        for name, about in _COUNTERS.items():
            yield CounterMetricFamily(_PREFIX + name, about, value=self.counts[name])
        for name, about in _GAUGES.items():
            yield GaugeMetricFamily(_PREFIX + name, about, value=gauges.get(name, 0))
        for reading in self._bus():
            kind = CounterMetricFamily if reading.counts else GaugeMetricFamily
            yield kind(_PREFIX + reading.name, reading.about, value=reading.value)
        closed = CounterMetricFamily(
            f"{_PREFIX}closed", "Connections that the relay closed, by close code.", labels=["code"]
        )
        for code, count in sorted(self.closed.items()):
            closed.add_metric([str(int(code))], count)
        yield closed
        buckets: list[tuple[str, float]] = []
        total = 0
        for bound, count in zip((*_BOUNDS_S, "+Inf"), self._buckets, strict=True):
            total += count
            buckets.append((str(bound), total))
        about = "From a packet's arrival to the last copy's handing over."
        yield HistogramMetricFamily(f"{_PREFIX}fanout_seconds", about, buckets=buckets, sum_value=self._sum_s)


class _Snapshot(Collector):
    def __init__(self, metrics: Metrics, gauges: Mapping[str, int]) -> None:
        self._metrics = metrics
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        return self._metrics.families(self._gauges)
