"""TCP over bad networks, simulated: its timer, what is dropped, and how far it agrees with the kernel's own."""

from __future__ import annotations

from dataclasses import replace
from statistics import median

import pytest

from streaming_encodec.bench.network.conditions import CONDITIONS, Condition, Where, find_conditions
from streaming_encodec.bench.network.impair import Impairment
from streaming_encodec.bench.network.simulated import SimulatedTcp, simulated_call
from streaming_encodec.errors import ConfigError

PERIOD_S = 2 / 75
TIMER_S = 0.020 + PERIOD_S + 0.020
WAY_S = 0.020  # both lines

MEASURED = {
    "clean": (0.0, 94, 94, 0),
    "loss10": (None, 218, 311, None),
    "burst10t": (2.6, 411, 432, None),
    "outage2": (5.3, 97, 97, 2107),
    "outage6": (15.4, 98, 98, 6147),
    "handover": (7.7, 95, 95, 3093),
    "train": (None, 559, 569, None),
}
"""Over the kernel's TCP, docs/networks.md: made up %, p50 and p95 ms, longest gap ms. None: there they do not agree."""


def arrivals(impairment: Impairment, packets: int, seed: int = 1) -> list[float | None]:
    """When packets of a steady stream arrive."""
    tcp = SimulatedTcp("test", Condition("a test", impairment), Where.LISTENER, seed, PERIOD_S)
    came = [tcp.send(b"", number * PERIOD_S) for number in range(packets)]
    return [deliveries[0].time_s if deliveries else None for deliveries in came]


def test_a_good_network_delays_and_nothing_else() -> None:
    assert arrivals(Impairment(), 100) == pytest.approx([number * PERIOD_S + WAY_S for number in range(100)])


def test_what_is_lost_is_sent_again_by_the_timer_and_what_follows_waits() -> None:
    """A line that is down for a moment: the packets of that time come with the one whose timer ends first after it."""
    came = arrivals(Impairment(down_s=((0.005, 0.100),)), 10)
    late_s = 2 * TIMER_S + WAY_S
    assert came[:3] == pytest.approx([late_s, late_s, late_s])
    assert came[3] == pytest.approx(3 * PERIOD_S + TIMER_S + WAY_S)
    assert came[4:] == pytest.approx([max(number * PERIOD_S + WAY_S, came[3] or 0) for number in range(4, 10)])


def test_the_timer_is_doubled_once_many_packets_are_on_the_way() -> None:
    """After 2 × 67 ms five packets wait, so the third timer is twice as long."""
    assert arrivals(Impairment(down_s=((0.005, 0.2),)), 1) == pytest.approx([4 * TIMER_S + WAY_S])
    much_later = arrivals(Impairment(down_s=((0.005, 0.9),)), 1)
    waits = [TIMER_S, TIMER_S, 2 * TIMER_S, 4 * TIMER_S, 8 * TIMER_S]
    assert much_later == pytest.approx([sum(waits) + WAY_S])


def test_after_an_outage_only_what_is_said_then_is_heard() -> None:
    came = arrivals(Impairment(down_s=((1.0, 4.0),)), 300)
    heard = [number * PERIOD_S for number, at_s in enumerate(came) if at_s is not None]
    assert not [said_s for said_s in heard if 1.0 < said_s < 4.0]
    assert min(said_s for said_s in heard if said_s > 1) < 4.2
    assert max(at_s - number * PERIOD_S for number, at_s in enumerate(came) if at_s is not None) < 0.4


def test_the_same_seed_gives_the_same_call() -> None:
    lossy = replace(CONDITIONS["loss10"].impairment, burst_share=0.05)
    assert arrivals(lossy, 500) == arrivals(lossy, 500)
    assert arrivals(lossy, 500) != arrivals(lossy, 500, seed=2)
    lost_late = [at_s for at_s in arrivals(lossy, 500) if at_s is not None]
    assert lost_late == sorted(lost_late)


def test_a_limited_rate_is_not_simulated() -> None:
    for name, condition in find_conditions("rate24,bloat", 40).items():
        with pytest.raises(ConfigError, match=f"{name} has a limited rate"):
            simulated_call(name, condition, None, 1, 10)


@pytest.mark.parametrize("name", MEASURED)
def test_it_agrees_with_the_kernels_tcp_within_a_fifth(name: str) -> None:
    calls = [simulated_call(name, CONDITIONS[name], None, seed, 40.0) for seed in range(1, 6)]
    names = ("concealed_percent", "delay_p50_ms", "delay_p95_ms", "longest_gap_ms")
    for of, measured in zip(names, MEASURED[name], strict=True):
        if measured is not None:
            assert median(call[of] for call in calls) == pytest.approx(measured, rel=0.2), of
