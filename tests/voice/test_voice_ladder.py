"""The concealment ladder: two receivers stand on it, and give the same frames for the same losses."""

from __future__ import annotations

import pytest
from voice.voice_cases import FORMAT, drive, noise_packet, packet, receiver, spell

from streaming_encodec.call.in_order import InOrderReceiver
from streaming_encodec.voice.ladder import PlayoutInstruction

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
