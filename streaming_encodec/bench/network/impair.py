"""What a bad network does to a packet. Pure: the same packets, times and seed give the same fates.

Times are seconds since the first word. Before it (negative times) a line only delays, so that programs can join.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Impairment:
    """One direction of one line.

    delay_ms: one way, fixed. jitter_ms: uniform, plus or minus, on top; the order is kept unless `reorders`.
    loss: share of packets, each by itself. burst_share, burst_ms: share of the time in which all packets are lost, and
    the mean length of such a time; both states last exponentially (Gilbert 1960; in time, not in packets, so that the
    bursts are the same whatever is sent). rate_kbps, queue_ms: a line that carries so much, before it a queue that
    holds so much time and drops what comes on top. down_s: from … to … nothing passes. no_udp: nothing of that protocol
    does, before the first word neither.
    """

    delay_ms: float = 10.0
    jitter_ms: float = 0.0
    reorders: bool = False
    loss: float = 0.0
    burst_share: float = 0.0
    burst_ms: float = 107.0
    rate_kbps: float | None = None
    queue_ms: float = 1000.0
    down_s: tuple[tuple[float, float], ...] = ()
    no_udp: bool = False


@dataclass(slots=True)
class LineCounts:
    """What entered a line since the first word, and what became of it. Bytes are IP's: all headers and resent data."""

    packets: int = 0
    bytes: int = 0
    lost: int = 0
    queue_full: int = 0
    line_down: int = 0
    longest_queue_ms: float = 0.0


@dataclass(slots=True)
class ImpairedLine:
    """Says of each packet, in the order of their times, when it comes out at the other end, if it does."""

    impairment: Impairment
    seed: int
    counts: LineCounts = field(default_factory=LineCounts)
    _loss: random.Random = field(init=False)
    _bursts: random.Random = field(init=False)
    _jitter: random.Random = field(init=False)
    _in_burst: bool = field(default=True, init=False)
    _changes_s: float = field(default=0.0, init=False)
    _free_s: float = field(default=float("-inf"), init=False)
    _last_s: float = field(default=float("-inf"), init=False)

    def __post_init__(self) -> None:
        # A generator for each, so that a change of one thing leaves the others as they were.
        self._loss, self._bursts, self._jitter = (random.Random(f"{self.seed} {name}") for name in ("l", "b", "j"))

    def leaves_s(self, size_bytes: int, now_s: float) -> float | None:
        """When a packet that enters now comes out; None where it is lost."""
        if now_s < 0:
            return self._delayed(now_s, 0.0)
        impairment, counts = self.impairment, self.counts
        counts.packets += 1
        counts.bytes += size_bytes
        if any(begin_s <= now_s < end_s for begin_s, end_s in impairment.down_s):
            counts.line_down += 1
            return None
        # Both are asked, so that one does not shift the other's numbers.
        if (self._loss.random() < impairment.loss) | self._is_burst(now_s):
            counts.lost += 1
            return None
        sent_s = self._through_queue(size_bytes, now_s)
        if sent_s is None:
            counts.queue_full += 1
            return None
        return self._delayed(sent_s, self._jitter.uniform(-1, 1) * impairment.jitter_ms)

    def _is_burst(self, now_s: float) -> bool:
        share = self.impairment.burst_share
        if not share:
            return False
        mean_s = self.impairment.burst_ms / 1000
        while now_s >= self._changes_s:
            self._in_burst = not self._in_burst
            self._changes_s += self._bursts.expovariate(
                1 / (mean_s if self._in_burst else mean_s * (1 - share) / share)
            )
        return self._in_burst

    def _through_queue(self, size_bytes: int, now_s: float) -> float | None:
        rate_kbps = self.impairment.rate_kbps
        if rate_kbps is None:
            return now_s
        begin_s = max(now_s, self._free_s)
        waits_ms = 1000 * (begin_s - now_s)
        if waits_ms > self.impairment.queue_ms:
            return None
        self.counts.longest_queue_ms = max(self.counts.longest_queue_ms, waits_ms)
        self._free_s = begin_s + 8 * size_bytes / (1000 * rate_kbps)
        return self._free_s

    def _delayed(self, sent_s: float, jitter_ms: float) -> float:
        arrives_s = max(sent_s, sent_s + (self.impairment.delay_ms + jitter_ms) / 1000)
        if not self.impairment.reorders:
            arrives_s = max(arrives_s, self._last_s)
            self._last_s = arrives_s
        return arrives_s
