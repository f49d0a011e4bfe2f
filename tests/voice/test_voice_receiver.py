"""Decisions of the receiver, one story a test. Time is in frame periods; the target is two frames."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from voice.voice_cases import FORMAT, FRAME, codes_of, drive, noise_packet, packet, receiver, spell

from streaming_encodec.errors import PacketError
from streaming_encodec.voice.ladder import Kind, Pace, PlayoutInstruction
from streaming_encodec.voice.receiver import Receiver, ReceiverSettings
from streaming_encodec.wire.packet import Packet, serialize_packet


def on_time(count: int, lost: tuple[int, ...] = (), **more: object) -> dict[float, bytes | list[bytes]]:
    return {float(i): packet(i, **more) for i in range(count) if i not in lost}  # type: ignore[arg-type]


def test_a_clean_stream_is_played_whole_at_the_minimum_delay() -> None:
    made = drive(receiver(), on_time(100), 100)
    assert spell(made) == [".", ".", *range(98)]
    assert all(m.pace is Pace.KEEP for m in made)


def test_nothing_comes() -> None:
    assert spell(drive(receiver(), {}, 5)) == ["."] * 5


@pytest.mark.parametrize(("first", "shift"), [(65_530, 2**32 - 6), (0, 2**31), (32_760, 0)])
def test_numbers_wrap(first: int, shift: int) -> None:
    made = drive(receiver(), on_time(60, first=first, shift=shift), 60)
    assert spell(made)[2:] == list(range(58))


def test_one_lost_frame_is_repeated_and_costs_no_delay() -> None:
    target = receiver()
    made = drive(target, on_time(40, lost=(20,)), 40)
    assert spell(made) == [".", ".", *range(20), "r", *range(21, 38)]
    assert target.statistics.packets_lost == 1
    assert target.statistics.concealment_events == 1
    assert target.statistics.concealed_samples == FORMAT.frame_samples


def test_the_ladder_repeats_then_gives_noise_then_returns() -> None:
    made = drive(receiver(repeat_frames=5), on_time(60, lost=tuple(range(20, 30))), 60)
    assert spell(made) == [".", ".", *range(20), *"rrrrr", *"nnnnn", *range(30, 58)]
    assert [m.lost_frames for m in made if m.concealed] == list(range(1, 11))
    assert all(m.noise is None for m in made if m.kind is Kind.NOISE)


def test_redundancy_fills_the_hole_with_fewer_codebooks() -> None:
    target = receiver()
    made = drive(target, on_time(40, lost=(20, 21), red=4), 40)
    assert spell(made) == [".", ".", *range(38)]
    assert [m.frame for m in made if m.redundant] == [20, 21]
    assert all(m.codes is not None and m.codes.shape == (2, 1) for m in made if m.redundant)
    assert target.statistics.redundant_frames_used == 2
    assert target.statistics.concealed_samples == 0


def test_the_real_frame_takes_the_place_of_its_redundant_copy() -> None:
    arrivals = on_time(40, red=4)
    arrivals[21.5] = arrivals.pop(20.0)
    made = drive(receiver(minimum=4, initial=4), arrivals, 40)
    assert spell(made)[4:] == list(range(36))
    assert not any(m.redundant for m in made)


def test_fewer_codebooks_are_decoded_as_they_are() -> None:
    target = receiver()
    arrivals = {float(i): packet(i, codebooks=8 if i < 10 else 2) for i in range(30)}
    made = drive(target, arrivals, 30)
    assert [m.codes.shape[0] for m in made if m.codes is not None] == [8] * 10 + [2] * 18
    assert target.statistics.reduced_frames == 18


def test_a_late_packet_is_played_late_and_delay_shrinks_again() -> None:
    """On an ordered line nothing is lost, so nothing is left out."""
    arrivals = on_time(50)
    for i in range(50, 56):
        arrivals[56.0 + i / 1000] = packet(i)
    arrivals |= {float(i): packet(i) for i in range(57, 120)} | {56.5: packet(56)}
    target = receiver()
    made = drive(target, arrivals, 120)
    played = [s for s in spell(made) if isinstance(s, int)]
    assert played == list(range(len(played)))
    assert target.statistics.concealment_events == 1
    assert any(m.pace is Pace.SHORTEN for m in made)


def test_out_of_order_and_twice() -> None:
    arrivals: dict[float, bytes | list[bytes]] = {}
    for i in range(0, 40, 2):
        arrivals[i + 1.0] = [packet(i + 1), packet(i), packet(i), packet(i + 1)]
    target = receiver(minimum=3, initial=3)
    made = drive(target, arrivals, 40)
    assert [s for s in spell(made) if s != "."] == list(range(len(made) - spell(made).count(".")))
    assert target.statistics.duplicate_packets == 40
    assert target.statistics.packets_lost == 0


def test_silence_is_not_loss_and_speech_returns_on_its_target() -> None:
    arrivals = on_time(20)
    arrivals[20.0] = noise_packet(20, 20)
    arrivals[50.0] = noise_packet(21, 50)
    arrivals |= {
        70.0 + i: serialize_packet(
            Packet(22 + i, 70 + i, codes=codes_of([70 + i]), redundancy=codes_of(range(64 + i, 70 + i), 2))
        )
        for i in range(20)
    }
    target = receiver()
    made = drive(target, arrivals, 90)
    assert spell(made) == [".", ".", *range(20), *"n" * 50, *range(70, 88)]
    assert all(m.noise == (60,) * 6 and not m.concealed for m in made if m.kind is Kind.NOISE)
    assert target.statistics.concealed_samples == 0
    assert target.statistics.comfort_noise_samples == 50 * FORMAT.frame_samples


def test_speech_whose_first_packet_is_lost_after_silence_is_repaired() -> None:
    arrivals = on_time(20)
    arrivals[20.0] = noise_packet(20, 20)
    for i in range(1, 20):
        red = codes_of(range(64 + i, 70 + i), 2)
        arrivals[70.0 + i] = serialize_packet(Packet(21 + i, 70 + i, codes=codes_of([70 + i]), redundancy=red))
    made = drive(receiver(), arrivals, 90)
    assert [s for s in spell(made) if isinstance(s, int)][20:22] == [70, 71]


def test_the_end_is_quiet_and_a_new_start_resets_the_decoder() -> None:
    arrivals = on_time(20)
    arrivals[20.0] = noise_packet(20, 20, end=True)
    arrivals |= {60.0 + i: packet(21 + i, shift=-21 + 60, start=i == 0) for i in range(20)}
    made = drive(receiver(), arrivals, 80)
    assert spell(made)[22:62] == ["."] * 40
    assert [m.reset for m in made if m.kind is Kind.DECODE] == [False] * 20 + [True] + [False] * 17


def test_a_sender_that_begins_anew_is_followed() -> None:
    arrivals = on_time(200)
    arrivals |= {200.0 + i: packet(i, first=777, start=i == 0) for i in range(50)}
    target = receiver()
    made = drive(target, arrivals, 250)
    assert spell(made)[-20:] == list(range(28, 48))
    assert target.statistics.restarts == 1


def test_one_packet_from_nowhere_changes_nothing() -> None:
    arrivals = on_time(100)
    arrivals[50.5] = packet(7, shift=2**20, first=30_000)
    arrivals[60.5] = packet(0, start=True)
    target = receiver()
    assert spell(drive(target, arrivals, 100)) == [".", ".", *range(98)]
    assert target.statistics.restarts == 0


def test_replayed_packets_of_the_stream_change_nothing() -> None:
    arrivals: dict[float, bytes | list[bytes]] = {i: [d] for i, d in on_time(1500).items()}  # type: ignore[list-item]
    for i in range(1000, 1400):
        arrivals[float(i)] += [packet(i - 1000), packet(i - 900)]  # type: ignore[operator]
    target = receiver()
    assert spell(drive(target, arrivals, 1500)) == [".", ".", *(i % 1024 for i in range(1498))]
    assert target.statistics.restarts == 0


@pytest.mark.parametrize("per_packet", [1, 2, 3])
@pytest.mark.parametrize("missing", [1, 49, 50, 51, 74, 75, 76, 149, 150, 151, 400, 3000, 9000, 30_000])
@pytest.mark.parametrize(("first", "shift"), [(0, 0), (65_500, 2**32 - 100)])
def test_each_packet_of_an_outage_is_lost(missing: int, per_packet: int, first: int, shift: int) -> None:
    """However long it is, while the sequence numbers can tell; also where they wrap on the way."""
    target = receiver()
    numbers = [*range(50), *range(50 + missing, 100 + missing)]
    for number in numbers:
        data = packet(number, per_packet=per_packet, first=first, shift=shift)
        target.receive(data, number * per_packet * FRAME)
    assert target.statistics.packets_lost == missing
    assert target.statistics.packets_received == 100
    assert target.statistics.restarts == 0
    assert target.statistics.packets_lost == missing
    report = target.report(1)
    assert report.fraction_lost == pytest.approx(missing / (missing + 100), abs=5e-4)  # three decimals


def test_packets_of_an_outage_that_come_after_all_are_not_lost() -> None:
    target = receiver()
    for number in [*range(50), *range(250, 300), 249, 248]:
        target.receive(packet(number), number * FRAME)
    assert target.statistics.packets_lost == 198
    assert target.statistics.packets_discarded == 0


def test_a_sender_that_begins_anew_has_lost_nothing() -> None:
    """Its numbers are random; the packets that follow are counted as ever."""
    rng = np.random.default_rng(1)
    target = receiver()
    for _ in range(300):
        first, shift = int(rng.integers(1 << 16)), int(rng.integers(1 << 32))
        for number in [*range(20), *range(22, 40)]:
            target.receive(packet(number, first=first, shift=shift, start=number == 0), 0.0)
    assert target.statistics.packets_lost == 300 * 2
    assert target.statistics.restarts == 299


def test_a_pause_without_packets_is_no_loss() -> None:
    """A sender that was stopped for a while goes on with the next number, later on the line of time."""
    target = receiver()
    for number in range(100):
        pause = 5000 if number >= 50 else 0
        target.receive(packet(number, shift=pause), (number + pause) * FRAME)
    assert target.statistics.packets_lost == 0
    assert target.statistics.restarts == 0


def test_one_packet_from_far_ahead_is_not_believed() -> None:
    target = receiver()
    for number in [*range(50), 5000, *range(50, 100)]:
        target.receive(packet(number), 0.0)
    assert target.statistics.packets_lost == 0


def test_an_outage_longer_than_the_buffer_is_left_behind() -> None:
    target = receiver()
    made = drive(target, on_time(1000, lost=tuple(range(100, 700))), 1000)
    assert spell(made)[-50:] == [i % 1024 for i in range(948, 998)]
    assert target.buffered_frames <= 5


def test_a_flood_is_bounded() -> None:
    target = receiver()
    for i in range(3_000):
        target.receive(packet(i, per_packet=6), 0.0)
        assert target.buffered_frames <= target.settings.capacity_frames
    assert target.pull(1.0)


def test_bad_bytes_leave_the_receiver_as_it_was() -> None:
    target, same = receiver(), receiver()
    for i in range(50):
        good = packet(i)
        for bad in (
            good[:-1],
            b"",
            b"\xff" * 40,
            serialize_packet(Packet(i, i, codes=codes_of([1], 33 - 1), bits_per_code=9 + 2)),
        ):
            with pytest.raises(PacketError):
                target.receive(bad, i * FRAME)
        for one in (target, same):
            one.receive(good, i * FRAME)
        assert spell(target.pull(i * FRAME)) == spell(same.pull(i * FRAME))
    assert target.statistics == same.statistics


def test_a_report_tells_the_last_interval() -> None:
    target = receiver()
    drive(target, on_time(100, lost=tuple(range(50, 60))), 100)
    report = target.report(7)
    assert report.sender == 7
    assert report.fraction_lost == pytest.approx(0.1)
    assert report.fraction_concealed == pytest.approx(10 / 98, abs=5e-4)
    assert report.burst_frames == 10
    quiet = target.report(7)
    assert quiet.fraction_lost == quiet.fraction_concealed == quiet.burst_frames == 0


def test_the_first_holes_are_news_that_does_not_wait() -> None:
    target = receiver()
    drive(target, on_time(60, lost=(30,)), 45)
    assert not target.report_is_due  # one packet that is missing may only be late
    for number in range(70, 75):
        target.receive(packet(number), number * FRAME)
    assert target.report_is_due
    assert target.report(7).burst_frames == (1 + 25) / 2
    assert not target.report_is_due


def test_statistics_have_the_standards_names() -> None:
    """Those of `RTCInboundRtpStreamStats` in snake_case, and few of our own."""
    target = receiver()
    drive(target, on_time(30), 30)
    assert target.statistics.packets_received == 30
    assert target.statistics.jitter_buffer_emitted_count == 28 * FORMAT.frame_samples
    standard = [
        "packetsReceived",
        "packetsLost",
        "packetsDiscarded",
        "bytesReceived",
        "headerBytesReceived",
        "jitter",
        "lastPacketReceivedTimestamp",
        "totalSamplesReceived",
        "concealedSamples",
        "silentConcealedSamples",
        "concealmentEvents",
        "insertedSamplesForDeceleration",
        "removedSamplesForAcceleration",
        "jitterBufferDelay",
        "jitterBufferTargetDelay",
        "jitterBufferMinimumDelay",
        "jitterBufferEmittedCount",
        "fecPacketsReceived",
    ]
    words = [field.name.split("_") for field in dataclasses.fields(target.statistics)]
    names = {head + "".join(word.capitalize() for word in rest) for head, *rest in words}
    own = {
        "holes",
        "missingFrames",
        "duplicatePackets",
        "redundantFramesUsed",
        "reducedFrames",
        "skippedFrames",
        "comfortNoiseSamples",
    }
    assert names == {*standard, *own, "restarts", "lastPlayedFrame", "lastPlayedTimestamp"}


def test_which_frame_was_played_last_and_when_is_known_and_made_up_ones_do_not_count() -> None:
    target = receiver()
    stats = target.statistics
    drive(target, on_time(30, lost=tuple(range(20, 30))), 40)
    assert (stats.last_played_frame, stats.last_played_timestamp) == (19, pytest.approx(21 * FRAME))
    bent = receiver()
    made = drive(bent, on_time(30) | {50.0: [packet(number) for number in range(30, 50)]}, 51)
    together = [m for m in made if m.pace is Pace.SHORTEN_FAST]
    assert [m.frame for m in together] == [30, 31, 32, 33]  # in one pull, and played one after the other
    assert (bent.statistics.last_played_frame, bent.statistics.last_played_timestamp) == (33, pytest.approx(53 * FRAME))


class Arrival(NamedTuple):
    """Bytes that arrived."""

    now: float
    data: bytes


class Pull(NamedTuple):
    """A call of `Receiver.pull`."""

    now: float
    queued_s: float = 0.0


def replay(history: list[Arrival | Pull], target: Receiver) -> Iterator[list[PlayoutInstruction]]:
    """What each pull answers. Packets that are refused change nothing."""
    for entry in history:
        if isinstance(entry, Pull):
            yield target.pull(entry.now, entry.queued_s)
            continue
        with contextlib.suppress(PacketError):
            target.receive(entry.data, entry.now)


@st.composite
def histories(draw: st.DrawFn) -> list[Arrival | Pull]:
    """Anything may arrive at any time, good or bad, and the card may ask at any time."""
    now, history = 0.0, []
    for _ in range(draw(st.integers(1, 120))):
        now += draw(st.sampled_from([0.0, 0.001, FRAME, FRAME, 0.1, 3.0]))
        what = draw(st.integers(0, 9))
        if what < 5:
            history.append(Pull(now, draw(st.sampled_from([0.0, 0.004, 0.02]))))
        elif what == 5:
            history.append(Arrival(now, draw(st.binary(max_size=30))))
        elif what == 6:
            history.append(
                Arrival(
                    now,
                    noise_packet(draw(st.integers(0, 300)), draw(st.integers(0, 900)), end=draw(st.booleans())),
                )
            )
        else:
            number = draw(st.integers(0, 300))
            data = packet(
                number,
                per_packet=draw(st.integers(1, 6)),
                red=draw(st.sampled_from([0, 5])),
                start=draw(st.booleans()),
            )
            history.append(Arrival(now, data))
    return history


def told(made: PlayoutInstruction) -> tuple[object, ...]:
    """An instruction in a form that compares."""
    codes = None if made.codes is None else made.codes.tolist()
    return (made.kind, made.frame, codes, made.pace, made.noise, made.reset, made.lost_frames)


@given(histories())
@settings(deadline=None, max_examples=60)
def test_any_history_is_answered_and_replays_to_the_same_answers(history: list[Arrival | Pull]) -> None:
    """Law 8."""
    first = Receiver(FORMAT)
    answers = list(replay(history, first))
    assert all(answers)
    for instruction in (i for many in answers for i in many):
        assert (instruction.codes is not None) == (instruction.kind is Kind.DECODE)
    again = receiver(initial=3)
    for old, new in zip(answers, replay(history, again), strict=True):
        assert [told(i) for i in old] == [told(i) for i in new]
    assert again.statistics == first.statistics


@given(histories(), st.integers(1, 3), st.lists(st.integers(0, 12), max_size=4))
@settings(deadline=None, max_examples=100)
def test_what_is_certain_is_decoded_whatever_comes_before_it_is_due(
    history: list[Arrival | Pull], frames: int, later: list[int]
) -> None:
    """Asked for early or on time: the same frames; and each but the last announces the one after it."""
    target = receiver(minimum=1, initial=1, together_frames=3)
    now = 0.0
    for number in range(8):  # a stream that plays, so that there is something to be certain of
        target.receive(packet(number), now)
        target.pull(now)
        now += FRAME
    for entry in history:
        list(replay([entry], target))
        if not target.is_certain(frames, entry.now + now):
            continue
        early, due = copy.deepcopy(target), copy.deepcopy(target)
        first = [early.pull(entry.now + now, i * FRAME)[0] for i in range(frames)]
        for number in later:
            due.receive(packet(number + 8), entry.now + now)
        assert all(i.kind is Kind.DECODE and i.pace is Pace.KEEP and not i.concealed for i in first)
        for one, two in itertools.pairwise(first):
            assert two.codes.shape != one.codes.shape or two.codes is one.following[0]
        second = [i for _ in range(frames) for i in due.pull(entry.now + now)]
        played = [i.codes.tolist() for i in second if i.codes is not None]
        assert played[:1] == [first[0].codes.tolist()]


def test_certain_are_frames_that_are_here_and_due_at_their_pace() -> None:
    target = receiver(together_frames=2)
    assert not target.is_certain(1, 0.0)  # nothing plays
    for number in (0, 1, 2, 4):
        target.receive(packet(number), number * FRAME)
    now = 2 * FRAME
    assert not target.is_certain(1, now)  # still waiting for its target
    made = target.pull(now)
    assert spell(made) == [0]
    assert [codes[0, 0] for codes in made[0].following] == [1]
    assert target.is_certain(2, now + FRAME)
    assert not target.is_certain(3, now + FRAME)  # the third is not here
    assert not target.is_certain(2, now + 5 * FRAME)  # late: it will be shortened
    assert spell(target.pull(now + FRAME) + target.pull(now + FRAME, FRAME)) == [1, 2]
    assert not target.is_certain(1, now + 3 * FRAME)  # lost, or late


def test_what_is_shortened_does_not_fall_below_the_target() -> None:
    """Half way from it to where delay is stretched is allowed: else the next step would be to give it back."""
    for late in (1.0, 2.0, 3.0):
        target = receiver(minimum=2, initial=2)
        for number in range(8):
            target.receive(packet(number), number * FRAME)
        now = (2 + late) * FRAME
        made = target.pull(now)
        assert {i.pace for i in made} == {Pace.SHORTEN}
        habits = target.settings
        assert late > habits.shorten_above_frames
        frames = late + habits.stretch_below_frames / 2
        assert {i.spare_samples for i in made} == {round(frames * 320)}


def test_nothing_is_announced_unless_asked_for_nor_across_a_reset() -> None:
    plain, together = receiver(), receiver(together_frames=4)
    for target in (plain, together):
        for number in range(6):
            target.receive(packet(number, start=number in (0, 3), codebooks=4 if number < 5 else 2), number * FRAME)
    assert plain.pull(2 * FRAME)[0].following == ()
    assert [len(together.pull((2 + i) * FRAME)[0].following) for i in range(6)] == [2, 1, 0, 1, 0, 0]
    assert ReceiverSettings().together_frames == 1
