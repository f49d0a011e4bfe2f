"""Rate control: alone, and in a loop with a line that carries so much and queues the rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pytest
from voice.voice_cases import FORMAT, FRAME, codes_of, receiver

from streaming_encodec.errors import StreamError
from streaming_encodec.voice.rate import RateControl, RateSettings
from streaming_encodec.voice.sender import Sender, SenderSettings
from streaming_encodec.wire.control import Report

START = SenderSettings(8, 2)
DATAGRAMS, TCP = RateSettings(overhead_bytes=54), RateSettings()


def report(
    loss: float = 0.0, *, queue_ms: float = 0.0, burst: float = 0.0, ordered: bool = False, listener: int = 1
) -> Report:
    return Report(1, loss, loss, burst, 5.0, 40.0, listener, queue_ms, ordered)


@dataclass
class Line:
    """Carries so many kbps; more waits in its queue. Reports come once a second, as listeners send them."""

    control: RateControl
    kbps: float
    queue_ms: float = 0.0
    now_s: float = 0.0
    queues_ms: list[float] = field(default_factory=list)

    def run(self, seconds: int) -> SenderSettings:
        """So many seconds; the settings at the end of them."""
        overhead = self.control.settings.overhead_bytes
        made = self.control.current()
        for _ in range(seconds):
            sent = made.wire_kbps(FORMAT, overhead)
            self.queue_ms = max(0.0, self.queue_ms + 1000 * (sent / self.kbps - 1))
            self.now_s += 1.0
            made = self.control.on_report(report(queue_ms=self.queue_ms, ordered=True), self.now_s, ordered=True)
            self.queues_ms.append(self.queue_ms)
        return made


@pytest.mark.parametrize("settings", [TCP, DATAGRAMS])
def test_a_line_with_room_is_left_alone(settings: RateSettings) -> None:
    line = Line(RateControl(FORMAT, START, settings), kbps=64.0)
    assert line.run(120) == START
    assert max(line.queues_ms) == 0.0


def test_frames_per_packet_come_before_codebooks() -> None:
    line = Line(RateControl(FORMAT, START, TCP), kbps=24.0)  # the start takes 27 kbps of it
    made = line.run(60)
    assert made.num_codebooks == 8
    assert made.frames_per_packet > START.frames_per_packet
    assert made.wire_kbps(FORMAT, 58) <= 24.0


@pytest.mark.parametrize("kbps", [12.0, 14.0, 16.0, 20.0, 24.0])
def test_the_queue_of_a_full_line_is_bounded_and_drains(kbps: float) -> None:
    line = Line(RateControl(FORMAT, START, TCP), kbps)
    line.run(300)
    assert max(line.queues_ms) <= 1000 * (27.0 / kbps - 1) * 2 + 120  # two reports see it grow
    late = line.queues_ms[150:]
    assert sum(queue > 250 for queue in late) <= 0.1 * len(late)


def test_a_line_that_gets_wider_is_used_again() -> None:
    line = Line(RateControl(FORMAT, START, TCP), kbps=16.0)
    assert line.run(30) != START
    line.kbps = 64.0
    assert line.run(200) == START


def test_what_the_line_was_seen_to_carry_is_not_exceeded_soon() -> None:
    narrow = Line(RateControl(FORMAT, START, TCP), kbps=24.0)
    made = [narrow.run(1) for _ in range(20)]
    assert START not in made[3:]
    assert {(one.frames_per_packet, one.num_codebooks) for one in made[3:]} == {(4, 8)}


def test_a_step_up_that_failed_is_tried_later_and_later() -> None:
    line = Line(RateControl(FORMAT, START, TCP), kbps=24.0)
    climbs: list[float] = []
    frames = line.run(5).frames_per_packet
    for _ in range(600):
        made = line.run(1)
        if made.frames_per_packet == START.frames_per_packet < frames:
            climbs.append(line.now_s)
        frames = made.frames_per_packet
    waits = [later - earlier for earlier, later in pairwise(climbs)]
    assert len(waits) >= 2
    assert waits[-1] > 2 * waits[0]
    assert waits == sorted(waits)


def test_random_loss_adds_redundancy_and_keeps_all_codebooks() -> None:
    control = RateControl(FORMAT, START, DATAGRAMS)
    for second in range(20):
        made = control.on_report(report(0.1, burst=2.2), float(second))
    assert made.num_codebooks == START.num_codebooks
    assert made.frames_per_packet == START.frames_per_packet
    assert made.redundant_frames >= 4
    assert made.redundant_codebooks == START.num_codebooks  # short holes are filled with all there is
    for second in range(20, 60):
        made = control.on_report(report(), float(second))
    assert made == START


def test_loss_on_a_path_that_keeps_order_changes_nothing() -> None:
    control = RateControl(FORMAT, START, TCP)
    for second in range(20):
        assert control.on_report(report(0.3, burst=8.0, ordered=True), float(second), ordered=True) == START
    # The listener's own way may lose all the same: then redundancy is of use to it.
    for second in range(20, 40):
        made = control.on_report(report(0.3, burst=2.0, ordered=False, listener=2), float(second), ordered=True)
    assert made.has_redundancy


def test_an_outage_does_not_take_redundancy_away_nor_make_it_too_large() -> None:
    control = RateControl(FORMAT, START, DATAGRAMS)
    for second in range(10):
        usual = control.on_report(report(0.1, burst=3.0), float(second))
    made = control.on_report(report(1.0, burst=150.0), 12.0)
    assert made.redundant_frames >= usual.redundant_frames
    assert made.num_codebooks == START.num_codebooks
    for burst in (14.0, 15.0):
        made = control.on_report(report(0.4, burst=burst), 13.0)
    assert made.redundant_frames == DATAGRAMS.most_redundant_frames


def test_redundancy_has_the_codebooks_that_the_line_has_room_for() -> None:
    def made(burst: float, budget_kbps: float) -> SenderSettings:
        settings = RateSettings(overhead_bytes=54, budget_kbps=budget_kbps)
        return RateControl(FORMAT, START, settings).on_report(report(0.3, burst=burst), 0.0)

    assert made(3.0, 64.0).redundant_codebooks == 8
    assert made(8.0, 64.0).redundant_codebooks == 4  # 14 frames of at most 60 codes in all
    narrow = made(3.0, 34.0)
    assert (narrow.num_codebooks, narrow.redundant_codebooks) == (START.num_codebooks, 2)
    assert narrow.wire_kbps(FORMAT, 54) <= 34.0


def test_redundancy_is_the_last_to_go_while_there_is_loss() -> None:
    tight = RateSettings(overhead_bytes=54, budget_kbps=12.0)
    control = RateControl(FORMAT, START, tight)
    for second in range(20):
        made = control.on_report(report(0.2, burst=6.0), float(second))
    assert made.has_redundancy
    assert made.num_codebooks < START.num_codebooks
    assert made.wire_kbps(FORMAT, 54) <= 12.0


def test_redundancy_that_was_asked_for_is_the_least_there_is() -> None:
    start = SenderSettings(8, 1, redundant_codebooks=1, redundant_frames=8)
    control = RateControl(FORMAT, start, DATAGRAMS)
    assert control.current() == control.on_report(report(), 0.0) == start
    for second in range(5):
        assert control.on_report(report(0.3, burst=9.0), 1.0 + second).redundant_frames > 8
    for second in range(30):
        made = control.on_report(report(), 6.0 + second)
    assert made == start
    # No redundancy was asked for, only what it would be made of.
    control = RateControl(FORMAT, SenderSettings(8, 1, redundant_codebooks=2), DATAGRAMS)
    assert not control.on_report(report(), 0.0).has_redundancy


def test_the_worst_listener_counts_until_it_is_gone() -> None:
    control = RateControl(FORMAT, SenderSettings(4), DATAGRAMS)
    for second in range(5):
        control.on_report(report(0.2, listener=1), float(second))
        made = control.on_report(report(0.0, listener=2), float(second))
    assert made.has_redundancy
    for second in range(30):
        made = control.on_report(report(0.0, listener=2), 5.0 + second)
    assert not made.has_redundancy


def queues_ms(delays_ms: Callable[[float], float], *, fast_ppm: float = 0.0) -> list[float]:
    """What a receiver reports, once a second for 40 s, of packets with these delays by the time they were sent."""
    listener, sender = receiver(), Sender(FORMAT, SenderSettings(8, 1))
    found = []
    for number in range(int(40 / FRAME)):
        (data,) = sender.push(codes_of([number]))
        sent_s = number * FRAME
        now_s = sent_s * (1 + fast_ppm * 1e-6) + delays_ms(sent_s) / 1000
        listener.receive(data, now_s)
        listener.pull(now_s)
        if number % 75 == 74:
            found.append(listener.report(1).queue_ms)
    return found


def test_a_listener_reports_a_queue_and_no_jitter() -> None:
    rng = np.random.default_rng(5)
    assert max(queues_ms(lambda sent_s: 20.0 + 60.0 * rng.random() ** 2)) < 10.0  # of 11 packets
    assert max(queues_ms(lambda sent_s: 20.0, fast_ppm=100.0)) < 4.0
    grows = queues_ms(lambda sent_s: 20.0 + 10.0 * max(0.0, sent_s - 10.0))
    assert max(grows[:10]) < 1.0
    assert grows[20] == pytest.approx(108.5, abs=1.0)  # of the last 0.15 s
    assert np.all(np.diff(grows) > -1e-6)


def test_a_longer_way_is_no_queue_for_longer_than_half_a_minute() -> None:
    steps = queues_ms(lambda sent_s: 20.0 if sent_s < 5.0 else 80.0)
    assert steps[10] == pytest.approx(60.0, abs=1.0)
    assert steps[-1] < 1.0


def test_a_queue_is_known_when_it_grows_fast_and_longer_packets_are_none() -> None:
    listener, sender = receiver(), Sender(FORMAT, SenderSettings(8, 2))
    number, now_s = 0, 0.0

    def speak(packets: int, delay_s: Callable[[float], float]) -> None:
        nonlocal number, now_s
        while packets:
            for data in sender.push(codes_of([number])):
                now_s = number * FRAME
                listener.receive(data, now_s + delay_s(now_s))
                packets -= 1
            number += 1

    speak(75, lambda at_s: 0.02)
    assert listener.report(1).queue_ms < 1.0
    sender.configure(SenderSettings(8, 6))
    speak(25, lambda at_s: 0.02)
    assert not listener.report_is_due
    assert listener.report(1).queue_ms < 1.0
    since_s = now_s
    speak(8, lambda at_s: 0.02 + 0.7 * (at_s - since_s))
    assert listener.report_is_due
    assert listener.report(1).queue_ms > 200.0
    assert not listener.report_is_due


def test_a_queue_that_an_outage_leaves_behind_is_still_a_queue() -> None:
    listener, sender = receiver(), Sender(FORMAT, SenderSettings(8, 1))
    for number in range(600):
        (data,) = sender.push(codes_of([number]))
        if 75 <= number < 300:
            continue
        listener.receive(data, number * FRAME + (0.02 if number < 300 else 0.52))
    assert listener.report(1).queue_ms == pytest.approx(500.0, abs=1.0)


def test_until_the_queue_has_drained_as_little_as_possible_is_sent() -> None:
    control = RateControl(FORMAT, START, TCP)
    assert control.on_report(report(queue_ms=0.0), 0.0) == START
    made = control.on_report(report(queue_ms=150.0), 1.0)
    assert (made.frames_per_packet, made.num_codebooks) == (6, 2)
    made = control.on_report(report(queue_ms=100.0), 2.0)
    assert made.num_codebooks == 2
    made = control.on_report(report(queue_ms=10.0), 3.0)
    assert (made.frames_per_packet, made.num_codebooks) == (4, 8)


def test_what_a_full_queue_drops_is_no_reason_for_redundancy() -> None:
    control = RateControl(FORMAT, START, DATAGRAMS)
    for second in range(3):
        made = control.on_report(report(0.3, queue_ms=900.0 - 300.0 * second, burst=6.0), float(second))
        assert (made.frames_per_packet, made.num_codebooks) == (6, 2)
        assert not made.has_redundancy


def test_a_queue_that_does_not_shrink_is_others_and_takes_no_bits() -> None:
    control = RateControl(FORMAT, START, DATAGRAMS)
    assert control.on_report(report(queue_ms=300.0), 0.0) != START
    assert control.on_report(report(queue_ms=450.0), 0.5) != START  # of what was sent before
    assert control.on_report(report(queue_ms=490.0), 2.0) != START  # it may be late
    for second in range(3, 15):
        falls = 150.0 if second % 3 == 2 else 0.0
        assert control.on_report(report(queue_ms=490.0 - falls), float(second)) == START
    for second in range(15, 18):  # it drops packets as well: those are repeated
        made = control.on_report(report(0.1, queue_ms=490.0, burst=2.0), float(second))
    assert (made.frames_per_packet, made.num_codebooks) == (2, 8)
    assert made.has_redundancy
    for second in range(18, 40):
        made = control.on_report(report(queue_ms=0.0), float(second))
    assert made == START


def test_a_queue_that_was_taken_for_others_and_grows_was_none() -> None:
    control = RateControl(FORMAT, START, DATAGRAMS)
    control.on_report(report(queue_ms=200.0), 0.0)
    control.on_report(report(queue_ms=200.0), 1.5)
    assert control.on_report(report(queue_ms=200.0), 2.0) == START
    assert control.on_report(report(queue_ms=440.0), 3.0) == START
    assert control.on_report(report(queue_ms=460.0), 4.0).num_codebooks == 2
    for second in range(5, 60):  # and no queue is, for a minute
        made = control.on_report(report(queue_ms=460.0), float(second))
    assert (made.frames_per_packet, made.num_codebooks) == (6, 2)


def test_a_download_of_one_listener_does_not_fill_the_line_of_another() -> None:
    control = RateControl(FORMAT, START, DATAGRAMS)
    for tenth in range(30):
        second = tenth / 10
        control.on_report(report(queue_ms=490.0, listener=1), second)
        narrow_ms = 200.0 - 30.0 * second  # it drains while little is sent
        assert control.on_report(report(queue_ms=narrow_ms, listener=2), second).num_codebooks == 2


def test_beside_a_download_of_one_listener_the_line_of_another_may_be_full() -> None:
    control = RateControl(FORMAT, START, DATAGRAMS)
    control.on_report(report(queue_ms=0.0, listener=2), 0.0)
    control.on_report(report(queue_ms=490.0, listener=1), 0.0)
    control.on_report(report(queue_ms=490.0, listener=1), 1.5)
    assert control.on_report(report(queue_ms=490.0, listener=1), 2.0) == START
    made = control.on_report(report(queue_ms=100.0, listener=2), 3.0)  # this one fills
    assert (made.frames_per_packet, made.num_codebooks) == (6, 2)


def test_where_a_way_keeps_order_few_packets_are_sent_beside_others() -> None:
    control = RateControl(FORMAT, START, TCP)
    for second in range(20):
        made = control.on_report(report(queue_ms=490.0, ordered=True), float(second), ordered=True)
    assert made.frames_per_packet == 6


def test_a_queue_of_others_that_drops_much_is_left_to_them() -> None:
    control = RateControl(FORMAT, START, DATAGRAMS)
    for second in range(3, 30):
        made = control.on_report(report(0.4, queue_ms=900.0, burst=6.0), float(second))
    assert made.has_redundancy
    assert made.wire_kbps(FORMAT, 54) < START.wire_kbps(FORMAT, 54)


def test_settings_out_of_range_are_refused() -> None:
    for bad in ({"ladder": ()}, {"ladder": (4, 2)}, {"lossy": 0.001}, {"standing_ms": 200.0}, {"standing_ms": 0.0}):
        with pytest.raises(StreamError):
            RateSettings(**bad)  # type: ignore[arg-type]
