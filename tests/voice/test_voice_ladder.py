"""The concealment ladder: two receivers stand on it, and give the same frames for the same losses."""

from __future__ import annotations

import numpy as np
import pytest
from voice.voice_cases import FORMAT, FRAME, drive, noise_packet, packet, receiver, spell

from streaming_encodec.call.in_order import InOrderReceiver
from streaming_encodec.voice.ladder import PlayoutInstruction
from streaming_encodec.voice.playout import PcmPlayout

LOST = {20, 21, 40, *range(60, 85)}
COUNTED = (
    "total_samples_received",
    "concealed_samples",
    "silent_concealed_samples",
    "concealment_events",
    "comfort_noise_samples",
    "redundant_frames_used",
    "packets_received",
    "bytes_received",
    "fec_packets_received",
)


def in_order(packets: dict[int, bytes], frames: int) -> tuple[InOrderReceiver, list[PlayoutInstruction]]:
    """A host that says what is lost while the voice is on, with a pull for each frame."""
    target, made = InOrderReceiver(FORMAT), []
    for number in range(frames):
        if number in packets:
            target.receive(packets[number])
        elif number < 100:
            target.lose(1)
        made += target.pull(0.0)
    return target, made


@pytest.mark.parametrize("end", [False, True])
def test_both_receivers_give_the_same_frames_for_the_same_losses(end: bool) -> None:
    packets = {number: packet(number, start=number == 0) for number in range(100) if number not in LOST}
    packets[100] = noise_packet(100, 100, end=end)
    one, other = receiver(), in_order(packets, 140)
    made = drive(one, {float(number): data for number, data in packets.items()}, 142)
    assert spell(made)[2:] == spell(other[1])
    assert spell(made).count("r") == 2 + 1 + 15
    assert [i.lost_frames for i in made[2:]] == [i.lost_frames for i in other[1]]
    for name in COUNTED:
        assert getattr(one.statistics, name) == getattr(other[0].statistics, name), name


def test_the_end_of_a_pause_is_silence_and_a_new_stream_does_not_inherit_its_noise() -> None:
    target, made = receiver(), []
    made += drive(target, {float(i): packet(i) for i in range(10)} | {10.0: noise_packet(10, 10)}, 20)
    assert spell(made)[-1] == "n"
    for number in range(2):  # a sender that restarted, far from the old numbers
        target.receive(packet(number, first=30_000, shift=900_000, start=number == 0), 0.3)
    assert spell(target.pull(0.3)) == ["."]


def test_noise_for_lost_frames_fades_to_silence_and_a_senders_noise_stays() -> None:
    lost = drive(target := receiver(noise_frames=20), {float(i): packet(i) for i in range(10)}, 80)[12:]
    assert spell(lost) == ["r"] * 15 + ["n"] * 20 + ["."] * 33
    assert [i.noise_gain for i in lost[15:35]] == [1 - n / 20 for n in range(1, 21)]
    assert all(i.concealed for i in lost), "the speaker may still be there, and is not heard"
    assert target.statistics.concealed_samples == len(lost) * 320
    assert target.statistics.silent_concealed_samples == (len(lost) - 15) * 320
    paused = drive(receiver(), {float(i): packet(i) for i in range(10)} | {10.0: noise_packet(10, 10)}, 300)
    assert spell(paused)[-1] == "n"


def test_a_listener_hears_no_more_than_a_second_of_what_nobody_says() -> None:
    rng = np.random.default_rng(3)
    voice = PcmPlayout(receiver(), lambda codes: rng.normal(0, 0.01, (1, 320)).astype(np.float32))
    for number in range(75):
        voice.receiver.receive(packet(number), number * FRAME)
        voice.read(320, number * FRAME)
    heard = np.concatenate([voice.read(320, number * FRAME) for number in range(75, 300)], axis=1)[0]
    level = [float(np.sqrt(np.mean(part**2))) for part in np.split(heard, 225)]
    # Waiting frames, 200 ms of repeats, then noise.
    assert min(level[2:70]) > 0
    assert np.mean(level[20:30]) > 2 * np.mean(level[60:70])
    assert not any(level[2 + 15 + 64 :])


def test_frames_after_an_outage_are_heard_again() -> None:
    made = drive(receiver(), {float(i): packet(i) for i in [*range(10), *range(110, 150)]}, 152)
    assert [i for i in spell(made) if i in range(110, 150)] == list(range(110, 150))


@pytest.mark.parametrize("fate", ["left", "late end", "late last frame", "late pause"])
@pytest.mark.parametrize("lost", [0, 7])
def test_what_was_made_up_for_nobody_is_not_concealment(fate: str, lost: int) -> None:
    """The last 7 frames are lost, or none; word that no more follow comes 3 s late."""
    target = receiver()
    made = drive(target, {float(i): packet(i) for i in range(100)}, 102)
    made += [i for number in range(102, 327) for i in target.pull(number * FRAME)]
    assert target.statistics.concealed_samples == 225 * 320
    assert target.report(1).burst_frames == 0  # no packet has told yet that others are missing
    if fate == "left":
        target.leave()
    else:
        number = 100 + lost
        last = packet(number, end=True) if fate == "late last frame" else None
        target.receive(last or noise_packet(number, number, end=fate == "late end"), 327 * FRAME)
    made += [i for number in range(327, 340) for i in target.pull(number * FRAME)]
    counted = 0 if fate == "left" else lost  # of who left nobody knows what was lost
    assert target.statistics.concealed_samples == counted * 320
    assert target.statistics.silent_concealed_samples == 0
    assert target.statistics.concealment_events == bool(counted)
    played = 100 + (fate == "late last frame")
    assert target.statistics.total_samples_received == (played + counted) * 320
    report = target.report(1)
    assert (report.fraction_concealed, report.burst_frames) == (0, counted)
    assert spell(made)[-10:] == ["n" if fate == "late pause" else "."] * 10


def test_of_who_left_all_that_waits_is_heard_and_gaps_in_it_count() -> None:
    target = receiver(minimum=20, initial=20)
    drive(target, {float(i): packet(i) for i in range(60) if i not in (55, 56)}, 60)
    target.leave()
    rest = [i for number in range(60, 100) for i in target.pull(number * FRAME)]
    assert spell(rest) == [*range(40, 55), "r", "r", 57, 58, 59, *"." * 20]
    assert target.statistics.concealed_samples == 2 * 320


def test_who_leaves_in_a_pause_takes_its_noise_along() -> None:
    target = receiver()
    drive(target, {float(i): packet(i) for i in range(10)} | {10.0: noise_packet(10, 10)}, 20)
    assert spell(target.pull(20 * FRAME)) == ["n"]
    target.leave()
    assert spell(target.pull(21 * FRAME)) == ["."]
