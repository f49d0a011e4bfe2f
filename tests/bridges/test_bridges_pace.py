"""Sound is sent by the telephone's clock: half an hour without running out or piling up, whatever the network does."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from streaming_encodec.bench.telephones import make_telephone
from streaming_encodec.bridges.pace import PeerClock, SendPace

FRAME_S = 0.02


def by_our_clock(lead_s: float) -> SendPace:
    """For a telephone that was heard once, and whose time so goes on as ours does."""
    pace = SendPace(FRAME_S, lead_s)
    pace.heard(0.0, 0.0, 0.0)
    return pace


class Peer:
    """A telephone that plays a frame each 20 ms of its own time, and says one. Its clock is `ppm` faster than ours."""

    def __init__(self, ppm: float, jitter_s: float = 0.0, seed: int = 0) -> None:
        self.rate = 1 + ppm / 1e6
        self._rng, self._jitter_s = random.Random(seed), jitter_s
        self.queue = 0
        self.empty = 0
        self.longest = 0
        self._said = 0
        self._played = 0
        self._arrives_s = 0.0

    def said(self, until_s: float) -> list[float]:
        """When each frame that it has said arrives here; they keep their order."""
        arrivals = []
        while (self._said + 1) * FRAME_S / self.rate + self._jitter_s <= until_s:
            self._said += 1
            late_s = self._rng.random() ** 3 * self._jitter_s
            self._arrives_s = max(self._arrives_s, self._said * FRAME_S / self.rate + late_s)
            arrivals.append(self._arrives_s)
        return arrivals

    def play(self, until_s: float, *, counts: bool) -> None:
        while (self._played + 1) * FRAME_S / self.rate <= until_s:
            self._played += 1
            if self.queue:
                self.queue -= 1
            else:
                self.empty += counts
        self.longest = max(self.longest, self.queue if counts else 0)


def half_an_hour(
    pace: SendPace,
    peer: Peer,
    seconds: float = 1800.0,
    *,
    stall: tuple[float, float] | None = None,
    status: bool = False,
    listens: bool = True,
    begin_s: float = 0.0,
) -> None:
    """Both ends run by simulated time; our timer is up to 4 ms late."""
    rng = random.Random(1)
    now_s, asked_s = begin_s, 1.0
    while now_s < seconds:
        for arrival_s in peer.said(now_s):
            if stall and stall[0] <= arrival_s < stall[1]:
                arrival_s = now_s
                if now_s < stall[1]:
                    peer._said -= 1
                    break
            if listens:
                pace.heard(FRAME_S, min(arrival_s, now_s), peer._said * FRAME_S if stall else None)
        peer.play(now_s, counts=now_s > 2)
        peer.queue += pace.take(now_s)
        if status and now_s >= asked_s:
            asked_s = now_s + 1
            if pace.queued(peer.queue * FRAME_S, now_s, exact=True):
                peer.queue = 0
        now_s += max(0.0005, pace.wait_s(now_s)) + rng.random() * 0.004


@pytest.mark.parametrize("ppm", [-200, -50, 0, 50, 200])
def test_half_an_hour_by_the_telephones_clock(ppm: float) -> None:
    peer = Peer(ppm, jitter_s=0.03)
    pace = SendPace(FRAME_S, 0.04)
    half_an_hour(pace, peer)
    assert peer.empty == 0
    assert peer.longest <= 6  # 120 ms: a stock of 40 ms, and the jitter of the first message
    assert pace.skipped_frames == 0


def test_our_own_clock_would_not_do_where_the_telephone_has_one() -> None:
    """What the test above would find."""
    peer = Peer(200)
    half_an_hour(by_our_clock(0.04), peer, listens=False)
    assert peer.empty > 10


@pytest.mark.parametrize("ppm", [-200, 200])
def test_asterisk_plays_by_a_clock_that_its_callers_do_not_have(ppm: float) -> None:
    """What it says comes at another's pace, so the length of its queue decides."""
    peer = Peer(ppm)
    pace = by_our_clock(0.04)
    half_an_hour(pace, peer, status=True, listens=False)
    assert peer.empty <= 1
    assert peer.longest <= 6


@pytest.mark.parametrize("ppm", [-200, 200])
def test_a_telephone_that_tells_nothing_has_no_more_waiting_after_half_an_hour(ppm: float) -> None:
    """Asterisk's AudioSocket: this program stands still for 0.1 to 0.3 s each minute."""
    peer, pace = Peer(ppm), SendPace(FRAME_S, 0.0)
    for minute in range(30):
        half_an_hour(pace, peer, 60.0 * (minute + 1), begin_s=60.0 * minute + 0.01 * (10 + minute % 20))
        assert peer.queue <= 2
    assert pace.skipped_frames > 100  # what was past


@pytest.mark.parametrize("lead_s", [0.0, 0.04])
def test_frames_that_were_sent_together_do_not_wait_there_for_good(lead_s: float) -> None:
    """The program was late by five frames, and the telephone's clock was read 60 ms late at first."""
    pace = SendPace(FRAME_S, lead_s)
    waits_s, waited, now_s = 0.0, [], 0.0
    for tick in range(2000):
        late_s = 0.06 * 0.97**tick  # the fastest message so far
        pace.heard(FRAME_S, now_s + late_s, FRAME_S * tick)
        sent = 0 if 50 <= tick < 55 else pace.take(now_s + late_s)
        waits_s = max(0.0, waits_s - FRAME_S)
        waited.append(waits_s)
        waits_s += sent * FRAME_S
        now_s += FRAME_S
    assert max(waited) > lead_s + 0.05
    assert waited[-1] == pytest.approx(lead_s, abs=0.016)
    assert max(waited[-500:]) - min(waited[-500:]) < 0.005  # and then all is left as it is


def test_a_network_that_stands_still_leaves_no_delay_behind() -> None:
    peer = Peer(100)
    pace = SendPace(FRAME_S, 0.04)
    half_an_hour(pace, peer, 60.0, stall=(20.0, 21.0))
    assert peer.longest <= 6
    assert peer.queue in (1, 2, 3, 4)


def test_a_caller_who_is_silent_for_long_does_not_slow_the_clock() -> None:
    clock = PeerClock()
    for number in range(100):
        clock.heard(FRAME_S, 0.02 * number)
    before_s = clock.now(2.0)
    assert before_s is not None
    for number in range(500):  # after a pause of 30 s
        clock.heard(FRAME_S, 32 + 0.02 * number)
        now_s = clock.now(32 + 0.02 * number)
        assert now_s == pytest.approx(before_s + 30 + 0.02 * number, abs=0.03)


def test_a_telephone_on_hold_gets_nothing_and_then_the_present() -> None:
    pace = by_our_clock(0.0)
    assert pace.take(0.0) == 1
    pace.hold(True)
    assert [pace.take(at / 50) for at in range(1, 100)] == [0] * 99
    pace.hold(False)
    assert pace.take(2.0) <= 2
    assert sum(pace.take(2 + at / 50) for at in range(1, 51)) in (49, 50, 51)
    assert pace.skipped_frames >= 97


def test_a_program_that_stood_still_does_not_send_what_is_past() -> None:
    pace = by_our_clock(0.04)
    assert pace.take(0.0) == 3
    assert pace.take(5.0) == 3  # the stock anew
    assert pace.skipped_frames > 200


def test_too_much_that_waits_is_cleared_whatever_the_round_trip() -> None:
    pace = by_our_clock(0.04)
    pace.take(0.0)
    assert not pace.queued(0.35, 1.0, exact=False)  # a long way: this is how it is
    assert not pace.queued(0.70, 2.0, exact=False)
    assert pace.queued(0.80, 3.0, exact=False)
    assert not pace.queued(0.1, 4.0, exact=True)
    assert pace.queued(0.5, 5.0, exact=True)


def play_by_marks(stalls_s: float, ways_s: tuple[float, float], told: bool = True) -> list[float]:
    """What waits at a telephone that answers marks, each second of a minute, in seconds.

    stalls_s: for so long it gets nothing once, after 10 s, and then all of it. ways_s: there and back, before and after
    20 s. told: whether the way is known.
    """
    pace, waits_s, waited, silent = by_our_clock(0.04), 0.0, [], 0
    for tick in range(3000):
        now_s = tick * FRAME_S
        if 500 <= tick < 500 + round(stalls_s / FRAME_S):
            waits_s += FRAME_S  # of what is on its way nothing is played
        sent_s = pace.take(now_s) * FRAME_S
        silent += waits_s + sent_s < FRAME_S / 2
        waits_s = max(0.0, waits_s + sent_s - FRAME_S)
        if tick % 50 == 49:
            waited.append(waits_s)
            way_s = ways_s[now_s > 20]
            cleared = pace.queued(waits_s + way_s, now_s, exact=False, round_trip_s=way_s if told else None)
            assert not cleared
    assert silent == 0
    return waited


def test_what_waits_after_a_stall_comes_down_frame_by_frame() -> None:
    waited = play_by_marks(0.3, (0.06, 0.06))
    assert waited[10] > 0.3
    assert waited[-1] <= 0.08
    assert max(before - after for before, after in itertools.pairwise(waited)) <= 2 * FRAME_S + 1e-9
    assert play_by_marks(0.3, (0.06, 0.06), told=False)[-1] > 0.3


def test_a_way_that_becomes_longer_is_not_taken_for_what_waits() -> None:
    waited = play_by_marks(0.0, (0.05, 0.25))
    assert max(waited) - min(waited) < 0.001


@pytest.mark.parametrize(("slow_from", "slow_to"), [(0, 10), (500, 1500)])
def test_messages_that_are_late_for_a_while_change_nothing_that_waits_there(slow_from: int, slow_to: int) -> None:
    """The program was busy while the call began, or the way was longer for 20 s: frames go on one each 20 ms."""
    pace = SendPace(FRAME_S, 0.04)
    arrivals, last_s = [], 0.0
    for number in range(3000):
        last_s = max(last_s, number * FRAME_S + (0.1 if slow_from <= number < slow_to else 0.0))
        arrivals.append(last_s)
    sent, begin_s, taken = 0, arrivals[0], 0
    for tick in range(2990):
        now_s = begin_s + tick * FRAME_S
        while arrivals[taken] <= now_s:
            pace.heard(FRAME_S, arrivals[taken])
            taken += 1
        sent += pace.take(now_s)
        assert abs(sent - (tick + 3)) <= 1  # two in stock, and that of each tick


def test_what_a_telephone_tells_of_delay_and_stock() -> None:
    """An echo 100 ms late; a second of it never comes, which is a gap and not a delay."""
    said = np.random.default_rng(0).standard_normal(8000 * 30).astype(np.float32)
    telephone = make_telephone("audiosocket", said)
    telephone.begin_s, echo = 5.0, np.concatenate([np.zeros(800, np.float32), said])
    for number in (*range(200), *range(250, 1500)):
        telephone.arrivals_s.append(5.0 + 0.02 * number - (0.03 if number > 1000 else 0.0))
        telephone._heard.append(echo[160 * number : 160 * (number + 1)])
    assert telephone.delay_ms(telephone.said, telephone.begin_s, 0, 4) == pytest.approx(100)
    assert telephone.delay_ms(telephone.said, telephone.begin_s, 10, 5) == pytest.approx(100)
    assert telephone.stock_ms(0, 18) == pytest.approx((0, 0), abs=1e-6)
    assert telephone.stock_ms(22, 30) == pytest.approx((30, 30))
    assert telephone.missing_s(0, 30) == pytest.approx(1.0)
    assert telephone.missing_s(6, 30) == pytest.approx(0.0)
    pytest.importorskip("pystoi", reason="pystoi is not installed")
    assert telephone.stoi(telephone.said, telephone.begin_s, 10, 5) > 0.99
    assert telephone.stoi(telephone.said, telephone.begin_s, 0, 5) < 0.9
    telephone.cleared_s.append(25.001)  # 20.001 s after the first, with 29 ms of the stock not yet played
    assert telephone.stock_ms(22, 30) == pytest.approx((0, 0), abs=1e-6)
