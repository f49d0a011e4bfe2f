"""The sending end, heard by the receiving end."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from voice.voice_cases import FORMAT, FRAME, codes_of, receiver, spell

from streaming_encodec.errors import StreamError
from streaming_encodec.voice.ladder import Kind
from streaming_encodec.voice.sender import Sender, SenderSettings
from streaming_encodec.voice.vad import VoiceActivityDetector
from streaming_encodec.wire.packet import packet_size, parse_packet

NOISE = (50,) * 6


@given(st.lists(st.integers(1, 10), max_size=20), st.integers(1, 6), st.integers(0, 12))
def test_whatever_the_blocks_the_packets_are_the_same(blocks: list[int], per_packet: int, red: int) -> None:
    settings = SenderSettings(4, per_packet, redundant_codebooks=2 if red else 0, redundant_frames=red)
    total = sum(blocks)
    sender, whole = Sender(FORMAT, settings), Sender(FORMAT, settings)
    made, at = [], 0
    for count in blocks:
        made += sender.push(codes_of(range(at, at + count)))
        at += count
    expected = whole.push(codes_of(range(total))) if total else []
    assert made == expected
    assert len(made) == total // per_packet
    assert {len(data) for data in made} <= {packet_size(per_packet, 4, redundant_codebooks=2, redundant_frames=red)}


def test_what_is_pushed_is_what_is_played() -> None:
    sender, listener = Sender(FORMAT, SenderSettings(4, 3), first_sequence=65_535), receiver()
    played = []
    for i in range(90):
        for data in sender.push(codes_of([i])):
            listener.receive(data, i * FRAME)
        played += listener.pull(i * FRAME)
    assert [s for s in spell(played) if s != "."] == list(range(len(played) - spell(played).count(".")))


def test_redundancy_holds_the_frames_before() -> None:
    sender = Sender(FORMAT, SenderSettings(4, 2, redundant_codebooks=2, redundant_frames=5))
    packets = [parse_packet(data) for data in sender.push(codes_of(range(1, 13)))]
    for i, packet in enumerate(packets):
        expected = [max(0, 2 * i - 5 + k + 1) for k in range(5)]
        assert packet.redundancy is not None
        assert packet.redundancy.tolist() == [expected, expected]


def test_in_silence_little_is_sent_and_none_of_it_counts_as_lost() -> None:
    settings = SenderSettings(4, 3, redundant_codebooks=2, redundant_frames=6, noise_every_frames=30)
    sender, listener = Sender(FORMAT, settings), receiver()
    sent, played = 0, []
    for i in range(300):
        silent = 100 <= i < 200
        for data in sender.push(codes_of([i]), noise=NOISE if silent else None):
            sent += silent
            listener.receive(data, i * FRAME)
        played += listener.pull(i * FRAME)
    stats = listener.statistics
    assert sent <= 6
    assert stats.packets_lost == stats.concealed_samples == 0
    heard = [s for s in spell(played) if isinstance(s, int)]
    assert heard == [*range(100), *range(200, 200 + len(heard) - 100)]
    assert sum(m.kind is Kind.NOISE for m in played) > 90


def test_the_end_sends_what_waits() -> None:
    sender = Sender(FORMAT, SenderSettings(4, 6))
    assert sender.push(codes_of(range(4))) == []
    first, last = [parse_packet(data) for data in sender.end(NOISE)]
    assert first.num_frames == 4
    assert last.end
    assert last.timestamp == 4


RECORDED = {
    (None, 0): (16, "c13d1695399b6d0e"),
    (None, 4): (13, "be0a5ba1916ca32a"),
    (1, 0): (60, "b85162c997b3bd7f"),
    (1, 4): (56, "b970bdde2ada15f7"),
    (2, 0): (30, "71d553219ce93522"),
    (2, 4): (28, "8be82a27aa578b2a"),
    (3, 0): (20, "bdafac7663ea46ac"),
    (3, 4): (18, "e5fbbd1ce7b8ca5b"),
    (6, 0): (10, "12f2fc898f719bec"),
    (6, 4): (9, "2a1ddd284f018788"),
}
"""Packets, and the start of their SHA-256, as `VoiceEncoder` made them when it had a packetiser of its own."""


@pytest.mark.parametrize(("per_packet", "red"), RECORDED)
def test_packets_of_whole_frames_are_byte_for_byte_those_recorded(per_packet: int | None, red: int) -> None:
    """Waiting for full packets, or sending what is there (None), with an end that the last frames bear."""
    codes = (np.arange(8 * 60, dtype=np.int64).reshape(60, 8).T * 40503 + 7) % 1024
    first = 2**32 - 12
    habits = SenderSettings(8, per_packet or 6, redundant_codebooks=2, redundant_frames=red)
    sender = Sender(FORMAT, habits, first_sequence=65_530, first_timestamp=first)
    made, at = [], 0
    for count in (1, 2, 1, 2, 7, 3, 13, 6, 0, 12, 5, 3):
        made += sender.push(codes[:, at : at + count])
        made += [] if per_packet else sender.send_waiting()
        at += count
    made += sender.finish(codes[:, at:])
    # While the stream is younger than its redundancy, columns are missing; then they are zeros, as the protocol says.
    old = [data for data in made if (parse_packet(data).timestamp - first) % 2**32 >= red]
    assert (len(old), hashlib.sha256(b"".join(old)).hexdigest()[:16]) == RECORDED[per_packet, red]


def test_an_end_without_frames_is_a_noise_packet_and_nothing_ends_that_never_began() -> None:
    sender, nothing = Sender(FORMAT, SenderSettings(4, 2)), codes_of([])
    assert sender.finish(nothing) == []
    sender.push(codes_of(range(2)))
    (last,) = [parse_packet(data) for data in sender.finish(nothing)]
    assert (last.end, last.num_codebooks, last.timestamp, last.sequence) == (True, 0, 2, 1)


def test_redundancy_has_no_codebook_that_a_frame_has_not() -> None:
    """Zeros in its place would be codes, and heard."""
    sender = Sender(FORMAT, SenderSettings(8, 1, redundant_codebooks=4, redundant_frames=2))
    packets = [parse_packet(data) for data in sender.push(codes_of(range(1, 5), codebooks=2))]
    assert [packet.redundancy.tolist() for packet in packets[2:]] == [[[1, 2]] * 2, [[2, 3]] * 2]


def test_redundancy_after_a_gap_holds_no_frames_from_before_it() -> None:
    sender = Sender(FORMAT, SenderSettings(4, 1, redundant_codebooks=2, redundant_frames=3))
    sender.push(codes_of(range(1, 9)))
    sender.skip(100)
    packets = [parse_packet(data) for data in sender.push(codes_of(range(200, 202)))]
    assert [packet.redundancy[0].tolist() for packet in packets] == [[0, 0, 0], [0, 0, 200]]


@pytest.mark.parametrize("pause_s", [0.3, 1.0, 1.5, 60.0])
def test_speaking_again_after_the_end_is_a_new_start_and_no_trouble_of_the_network(pause_s: float) -> None:
    """Push to talk: timestamps stand still in the pauses. Six times two seconds, on a line that never jitters."""
    sender, listener = Sender(FORMAT, SenderSettings(4, 1)), receiver()
    now, frame, made, worst_jitter_s = 0.0, 0, [], 0.0
    for _ in range(6):
        for _ in range(150):
            for data in sender.push(codes_of([frame])):
                listener.receive(data, now)
            made += listener.pull(now)
            now, frame = now + FRAME, frame + 1
            worst_jitter_s = max(worst_jitter_s, listener.statistics.jitter)
        for data in sender.end(NOISE):
            listener.receive(data, now)
        sender.restart()
        for _ in range(round(pause_s / FRAME)):
            made += listener.pull(now)
            now += FRAME
    assert [s for s in spell(made) if s != "."] == list(range(6 * 150))
    assert [m.codes[0, 0] for m in made if m.codes is not None and m.reset] == [0, 150, 300, 450, 600, 750]
    assert listener.statistics.packets_discarded == listener.statistics.concealed_samples == 0
    assert worst_jitter_s < 0.001
    assert listener.target_ms <= 3 * 1000 * FRAME


def test_a_restart_says_so_and_keeps_time() -> None:
    sender = Sender(FORMAT, SenderSettings(4, 2))
    first = [parse_packet(d) for d in sender.push(codes_of(range(5)))]
    sender.restart()
    second = [parse_packet(d) for d in sender.push(codes_of(range(5, 7)))]
    assert [p.start for p in first + second] == [True, False, True]
    assert second[0].timestamp == 5
    assert second[0].sequence == 2


def test_new_settings_hold_from_the_next_packet_on() -> None:
    sender = Sender(FORMAT, SenderSettings(4, 3))
    sender.push(codes_of(range(2)))
    sender.configure(SenderSettings(2, 1))
    packets = [parse_packet(d) for d in sender.push(codes_of([2]))]
    assert [(p.num_codebooks, p.num_frames, p.timestamp) for p in packets] == [
        (2, 1, 0),
        (2, 1, 1),
        (2, 1, 2),
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_codebooks": 0},
        {"frames_per_packet": 7},
        {"redundant_frames": 33},
        {"redundant_codebooks": 9},
        {"noise_every_frames": 0},
    ],
)
def test_settings_that_cannot_be(wrong: dict[str, int]) -> None:
    with pytest.raises(StreamError):
        SenderSettings(**wrong)


def test_codes_that_cannot_be() -> None:
    with pytest.raises(StreamError):
        Sender(FORMAT).push(np.zeros((33, 1), dtype=np.int64))
    with pytest.raises(StreamError):
        Sender(FORMAT).push(np.zeros(8, dtype=np.int64))


def test_speech_is_told_from_a_room_and_keeps_its_ends() -> None:
    rng = np.random.default_rng(0)
    detector = VoiceActivityDetector(FRAME)
    room = (10 ** (-55 / 20) * rng.standard_normal((900, 320))).astype(np.float32)
    voice = (10 ** (-25 / 20) * rng.standard_normal((900, 320))).astype(np.float32)
    talking = np.zeros(900, dtype=bool)
    talking[300:400] = talking[600:620] = True
    silent = np.array([detector.is_silent(v if t else r) for r, v, t in zip(room, voice, talking, strict=True)])
    assert not silent[talking].any()
    assert not silent[400:420].any()  # the hangover
    assert silent[100:300].all()
    assert silent[430:600].all()


def test_a_louder_room_is_learned_and_digital_silence_is_silent() -> None:
    rng = np.random.default_rng(0)
    detector = VoiceActivityDetector(FRAME)
    assert all([detector.is_silent(np.zeros(320, np.float32)) for _ in range(100)][30:])
    fan = (10 ** (-45 / 20) * rng.standard_normal((1500, 320))).astype(np.float32)
    silent = [detector.is_silent(frame) for frame in fan]
    assert not silent[0]
    assert all(silent[-100:])


@pytest.mark.parametrize(("frames", "kbps"), [(1, 61), (3, 24), (6, 15)])
def test_wire_bitrates_are_those_of_the_document(frames: int, kbps: int) -> None:
    """`docs/latency.md`: 6 kbps of codes, 80 bytes below a packet."""
    assert round(SenderSettings(8, frames).wire_kbps(FORMAT, 80)) == kbps


@pytest.mark.parametrize("frames", [40, 120, 300])
def test_a_sender_that_stood_still_is_heard_without_the_pause_as_delay(frames: int) -> None:
    sender, listener = Sender(FORMAT, SenderSettings(4, 1)), receiver()
    played = []
    for i in range(100 + frames):
        pushed = sender.skip(frames) if i == 50 + frames else []
        if not 50 <= i < 50 + frames:
            pushed += sender.push(codes_of([i]))
        for data in pushed:
            listener.receive(data, i * FRAME)
        played += listener.pull(i * FRAME)
    last = 97 + frames  # two frames of delay, as before; or one, where playout leapt ahead
    assert spell(played)[-40:] in (list(range(last - 39, last + 1)), list(range(last - 38, last + 2)))
    assert listener.statistics.packets_lost == 0
    assert listener.statistics.restarts == 0
