"""Counters of one relay in the Prometheus text format, version 0.0.4."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_PREFIX = "streaming_encodec_relay_"
_BOUNDS_S = (0.00025, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5)

_COUNTERS = {
    "connections": "TCP connections accepted.",
    "joins": "Seats taken.",
    "resumes": "Seats taken again after a lost connection.",
    "packets_in": "Voice packets received.",
    "frames_in": "Voice frames received.",
    "bytes_in": "Bytes of voice packets received.",
    "packets_out": "Voice packets for listeners, those that were dropped later among them.",
    "bytes_out": "Bytes of voice packets for listeners, with WebSocket heads.",
    "packets_dropped": "Packets out that were dropped because a listener was slow.",
    "evictions": "Listeners put out because they did not read.",
}
_GAUGES = {
    "connections_open": "TCP connections open now.",
    "rooms": "Rooms that exist now.",
    "seats": "Seats taken now, those kept for lost clients included.",
    "draining": "1 while the relay is being stopped.",
}


class Metrics:
    """What a relay counted. Names of rooms and people never appear here."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.closed: Counter[int] = Counter()
        self._buckets = [0] * (len(_BOUNDS_S) + 1)
        self._sum_s = 0.0

    def fanout(self, seconds: float) -> None:
        """Time from a packet's arrival in the relay to its last copy's handing over."""
        self._buckets[bisect_left(_BOUNDS_S, seconds)] += 1
        self._sum_s += seconds

    def text(self, gauges: Mapping[str, int]) -> str:
        """The exposition; `gauges` gives the present values."""
        lines: list[str] = []
        for name, about in _COUNTERS.items():
            lines += _family(f"{name}_total", "counter", about, [("", self.counts[name])])
        for name, about in _GAUGES.items():
            lines += _family(name, "gauge", about, [("", gauges.get(name, 0))])
        closed = [(f'{{code="{code}"}}', count) for code, count in sorted(self.closed.items())]
        lines += _family("closed_total", "counter", "Connections that the relay closed, by code.", closed)
        name = "fanout_seconds"
        lines += _family(name, "histogram", "From a packet's arrival to the last copy's handing over.", [])
        total = 0
        for bound, count in zip((*_BOUNDS_S, "+Inf"), self._buckets, strict=True):
            total += count
            lines.append(f'{_PREFIX}{name}_bucket{{le="{bound}"}} {total}')
        lines += [f"{_PREFIX}{name}_sum {self._sum_s:.6f}", f"{_PREFIX}{name}_count {total}"]
        return "\n".join(lines) + "\n"


def _family(name: str, kind: str, about: str, samples: list[tuple[str, int]]) -> list[str]:
    full = _PREFIX + name
    head = [f"# HELP {full} {about}", f"# TYPE {full} {kind}"]
    return head + [f"{full}{labels} {value}" for labels, value in samples]
