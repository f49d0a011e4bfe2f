"""TCP over the laboratory's networks, simulated: the same rows without root, in seconds.

A packet that is lost is sent again by TCP's timer, and all that follow it wait. The timer is what both ends ask the
kernel for: a round trip as TCP measures it and 20 ms, not doubled in a stream with few packets on the way, else twice
as long each time, at most 1 s. What would wait for too long is dropped before it is sent, and a connection that is
silent is given up, with what it holds and what was said since (docs/networks.md). Lost acknowledgements are left out,
since the next one says as much. So are queues, and with them rate control: networks of a limited rate are not
simulated.
"""

from __future__ import annotations

import bisect
import random
from typing import Any

import numpy as np

from streaming_encodec.bench.network.conditions import Condition, Where
from streaming_encodec.bench.network.impair import Impairment
from streaming_encodec.bench.playout import longest_run
from streaming_encodec.bench.simulated_call import CallSettings, simulate_call
from streaming_encodec.errors import ConfigError
from streaming_encodec.transport.limits import MAX_VOICE_AGE_S
from streaming_encodec.voice.network import Delivery, NetworkModel

_RTO_MIN_S = 0.020
_RTO_MAX_S = 1.0
_THIN_PACKETS = 4
_THIN_RETRIES = 6
"""Linux: in a stream with fewer packets on the way the timer is not doubled for so many times."""
_GIVE_UP_S = 1.5
"""A client that hears nothing for about so long goes on over another connection."""
_RECONNECT_S = 0.1
"""From the line's return to the new connection's welcome: attempts follow each other closely."""
_FRAMES_PER_PACKET = 2
_PROGRAMS_MS = 16.0
"""What `send`, `serve` and `listen` take for themselves, blocks of sound included: measured on a clean line."""
_OLD_MS = 400


class _Line:
    """One direction: whether a packet that enters at a time is lost, and its delay."""

    def __init__(self, impairment: Impairment, seed: str) -> None:
        self.impairment = impairment
        self._loss, self._bursts, self._jitter = (random.Random(f"{seed} {name}") for name in ("l", "b", "j"))
        self._begins_s: list[float] = []
        self._ends_s: list[float] = []

    def loses(self, at_s: float) -> bool:
        # Both are asked, so that one does not shift the other's numbers.
        return (self._loss.random() < self.impairment.loss) | self._is_burst(at_s) | (self.back_s(at_s) is not None)

    def delay_s(self) -> float:
        return max(0.0, self.impairment.delay_ms + self._jitter.uniform(-1, 1) * self.impairment.jitter_ms) / 1000

    def back_s(self, at_s: float) -> float | None:
        """When the line is back, where there is none at this time."""
        return next((end_s for begin_s, end_s in self.impairment.down_s if begin_s <= at_s < end_s), None)

    def _is_burst(self, at_s: float) -> bool:
        share, mean_s = self.impairment.burst_share, self.impairment.burst_ms / 1000
        if not share:
            return False
        while not self._ends_s or self._ends_s[-1] <= at_s:
            begin_s = (self._ends_s[-1] if self._ends_s else 0.0) + self._bursts.expovariate(
                share / (mean_s * (1 - share))
            )
            self._begins_s.append(begin_s)
            self._ends_s.append(begin_s + self._bursts.expovariate(1 / mean_s))
        return self._begins_s[bisect.bisect_right(self._ends_s, at_s)] <= at_s


class _Hop:
    """A TCP connection over a line, with what replaces it."""

    def __init__(self, line: _Line, period_s: float) -> None:
        self._line, self._period_s = line, period_s
        impairment = line.impairment
        # The other end acknowledges every second packet, so the round trip that TCP measures holds one more period.
        self._timer_s = 2 * (impairment.delay_ms + impairment.jitter_ms) / 1000 + period_s + _RTO_MIN_S
        self._arrived_s = float("-inf")  # the packet before
        self._opens_s = float("-inf")  # the present connection

    def send(self, time_s: float) -> float | None:
        """When a packet that is ready at a time, not before earlier ones, arrives. None: it was dropped."""
        waits_s = self._arrived_s - self._line.impairment.delay_ms / 1000 - time_s
        if time_s < self._opens_s or waits_s > MAX_VOICE_AGE_S:
            return None
        at_s, timer_s, tries = time_s, self._timer_s, 0
        while self._line.loses(at_s):
            back_s = self._line.back_s(at_s)
            at_s += timer_s
            tries += 1
            is_thin = (at_s - time_s) / self._period_s < _THIN_PACKETS and tries <= _THIN_RETRIES
            timer_s = timer_s if is_thin else min(2 * timer_s, _RTO_MAX_S)
            if at_s - time_s > _GIVE_UP_S:
                self._opens_s = (at_s if back_s is None else back_s) + _RECONNECT_S
                self._arrived_s = float("-inf")
                return None
        self._arrived_s = max(self._arrived_s, at_s + self._line.delay_s())
        return self._arrived_s


class SimulatedTcp:
    """From a speaker through a relay to a listener; a `simulated_call.SimulatedNetwork`.

    Raises:
        ConfigError: a network that cannot be simulated.
    """

    def __init__(self, name: str, condition: Condition, where: Where, seed: int, period_s: float) -> None:
        if condition.impairment.rate_kbps is not None or condition.competing_s is not None:
            raise ConfigError(f"{name} has a limited rate, which is not simulated", setting="conditions")
        self.stalls_passed: list[tuple[float, float]] = []
        self._hops = [
            _Hop(
                _Line(condition.impairment if where in (person, Where.BOTH) else Impairment(), f"{seed} {person}"),
                period_s,
            )
            for person in (Where.SPEAKER, Where.LISTENER)
        ]

    def sender_time(self, seconds: float) -> float:
        """The sender's clock is right."""
        return seconds

    def send(self, data: bytes, time_s: float) -> list[Delivery]:
        """When a packet arrives, if it does."""
        at_s: float | None = time_s
        for hop in self._hops:
            if at_s is not None:
                at_s = hop.send(at_s)
        return [] if at_s is None else [Delivery(at_s, data)]


def simulated_call(name: str, condition: Condition, where: Where | None, seed: int, seconds: float) -> dict[str, Any]:
    """A call's figures, as `laboratory.Laboratory.call` gives them, as far as they can be simulated.

    Raises:
        ConfigError: a network that cannot be simulated.
    """
    where = where or condition.where
    settings = CallSettings(
        NetworkModel(ordered=True), seconds=seconds, seed=seed, frames_per_packet=_FRAMES_PER_PACKET
    )
    frame_ms = 1000 * 320 / 24_000
    network = SimulatedTcp(name, condition, where, seed, _FRAMES_PER_PACKET * frame_ms / 1000)
    result = simulate_call(settings, network=network)
    delay_ms = result.delay_ms[result.frame >= 0] + frame_ms + _PROGRAMS_MS
    p50, p95, most = (float(value) for value in np.percentile(delay_ms, [50, 95, 100]))
    return {
        "condition": name,
        "where": str(where),
        "transport": "websocket, simulated",
        "seed": seed,
        "concealed_percent": 100 * result.concealed_share,
        "delay_p50_ms": p50,
        "delay_p95_ms": p95,
        "delay_max_ms": most,
        "above_400_percent": 100 * float(np.mean(delay_ms > _OLD_MS)),
        "longest_gap_ms": longest_run(result) * frame_ms,
    }
