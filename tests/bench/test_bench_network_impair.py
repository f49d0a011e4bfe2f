"""What the laboratory's lines do to packets: no root, no clock."""

from __future__ import annotations

from itertools import groupby, pairwise

import pytest

from streaming_encodec.bench.network.conditions import CONDITIONS, find_conditions
from streaming_encodec.bench.network.impair import ImpairedLine, Impairment
from streaming_encodec.errors import ConfigError

PACKET_BYTES = 100
EVERY_S = 0.02


def through(
    impairment: Impairment, seconds: float = 60.0, seed: int = 1, every_s: float = EVERY_S
) -> list[float | None]:
    """The delays in seconds of packets sent at an even pace; None is a lost one."""
    line = ImpairedLine(impairment, seed)
    times = [n * every_s for n in range(round(seconds / every_s))]
    return [None if (out := line.leaves_s(PACKET_BYTES, t)) is None else out - t for t in times]


def lost_share(delays: list[float | None]) -> float:
    return sum(delay is None for delay in delays) / len(delays)


def test_a_clean_line_delays_and_nothing_else() -> None:
    assert through(Impairment(delay_ms=25)) == pytest.approx([0.025] * 3000)


def test_the_same_seed_gives_the_same_fates_and_another_one_others() -> None:
    bad = CONDITIONS["train"].impairment
    assert through(bad, seed=3) == through(bad, seed=3)
    assert through(bad, seed=3) != through(bad, seed=4)


def test_random_loss_is_as_much_as_said_and_comes_singly() -> None:
    delays = through(Impairment(loss=0.1), seconds=600)
    assert lost_share(delays) == pytest.approx(0.1, abs=0.01)
    runs = [len(list(run)) for lost, run in groupby(delays, lambda d: d is None) if lost]
    assert sum(runs) / len(runs) == pytest.approx(1 / 0.9, abs=0.05)


def test_bursts_last_as_long_as_said_and_fill_their_share_of_the_time() -> None:
    delays = through(Impairment(burst_share=0.1, burst_ms=107), seconds=3000, every_s=0.001)
    assert lost_share(delays) == pytest.approx(0.1, abs=0.01)
    runs = [len(list(run)) for lost, run in groupby(delays, lambda d: d is None) if lost]
    assert sum(runs) / len(runs) == pytest.approx(107, rel=0.1)


def test_bursts_are_at_the_same_times_whatever_is_sent() -> None:
    bad = Impairment(burst_share=0.1)
    often, seldom = through(bad, every_s=0.01), through(bad, every_s=0.02)
    assert [d is None for d in often[::2]] == [d is None for d in seldom]


def test_other_damage_leaves_random_loss_where_it_was() -> None:
    plain, more = through(Impairment(loss=0.1)), through(Impairment(loss=0.1, burst_share=0.1, jitter_ms=5))
    assert all(after is None for before, after in zip(plain, more, strict=True) if before is None)


def test_jitter_keeps_the_order_unless_reordering_is_asked_for() -> None:
    for reorders in (False, True):
        delays = through(Impairment(delay_ms=40, jitter_ms=30, reorders=reorders), every_s=0.005)
        arrivals = [n * 0.005 + delay for n, delay in enumerate(delays) if delay is not None]
        assert len(arrivals) == len(delays)
        assert any(later < earlier for earlier, later in pairwise(arrivals)) is reorders
        assert all(0.0099 <= delay <= 0.0701 for delay in delays if delay is not None)


def test_a_slow_line_queues_and_its_queue_is_bounded() -> None:
    line = ImpairedLine(Impairment(delay_ms=0, rate_kbps=80, queue_ms=100), 1)  # 10 ms a packet
    out = [line.leaves_s(PACKET_BYTES, 0.0) for _ in range(20)]
    assert out[:11] == pytest.approx([0.01 * n for n in range(1, 12)])
    assert out[11:] == [None] * 9
    assert (line.counts.queue_full, line.counts.longest_queue_ms) == (9, pytest.approx(100))
    assert line.leaves_s(PACKET_BYTES, 1.0) == pytest.approx(1.01)  # empty again


def test_nothing_passes_while_the_line_is_down() -> None:
    delays = through(Impairment(down_s=((1.0, 2.0),)), seconds=3)
    assert [d is None for d in delays] == [50 <= n < 100 for n in range(150)]


def test_before_the_first_word_a_line_only_delays_and_nothing_is_counted() -> None:
    line = ImpairedLine(Impairment(loss=0.99, burst_share=0.9, rate_kbps=1, jitter_ms=9, down_s=((0, 9),)), 1)
    assert [line.leaves_s(1500, -1.0) for _ in range(50)] == pytest.approx([-0.99] * 50)
    assert line.counts.packets == 0
    assert line.leaves_s(1500, 0.0) is None
    assert (line.counts.packets, line.counts.bytes, line.counts.line_down) == (1, 1500, 1)


def test_conditions_are_found_by_name_and_want_enough_speech() -> None:
    assert list(find_conditions("clean, loss10", 40)) == ["clean", "loss10"]
    assert find_conditions("all", 40) == CONDITIONS
    with pytest.raises(ConfigError, match="no condition 'los10': take all, or of clean, "):
        find_conditions("los10", 40)
    with pytest.raises(ConfigError, match="outage6 needs 33 s of speech, not 20"):
        find_conditions("clean,outage6", 20)
