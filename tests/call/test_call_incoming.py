"""Who leaves is gone, whatever is still on its way; who stays is heard."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from relay_kit import FORMAT, FakeClock

from streaming_encodec.call.incoming import IncomingVoices
from streaming_encodec.transport.limits import Outbox
from streaming_encodec.types import Floats
from streaming_encodec.voice.network import NetworkImpairment
from streaming_encodec.voice.playout import DecodeRequest
from streaming_encodec.wire.control import Joined, Left, Report, parse_control, serialize_control
from streaming_encodec.wire.hello import MAX_SPEAKERS, Welcome
from streaming_encodec.wire.packet import Packet, serialize_packet

HOP = FORMAT.frame_samples


class Silent:
    """A decoder that counts the frames of codes of each speaker."""

    def __init__(self) -> None:
        self.frames: dict[int, int] = {}

    def open(self, speaker: int) -> None:
        self.frames.setdefault(speaker, 0)

    def close(self, speaker: int) -> None:
        pass

    def decode(self, requests: Mapping[int, DecodeRequest]) -> dict[int, Floats]:
        for speaker, request in requests.items():
            self.frames[speaker] += request.codes is not None
        return {speaker: np.zeros((1, HOP), np.float32) for speaker in requests}


class Room:
    """One listener's end, and packets of speakers by their numbers."""

    def __init__(self, impairment: NetworkImpairment | None = None) -> None:
        self.clock, self.decoder = FakeClock(), Silent()
        self.reports: list[Report] = []
        self.voices = IncomingVoices(
            FORMAT, self.decoder, None, clock=self.clock, on_reports=self.reports.extend, impairment=impairment
        )

    def packet(self, sender: int, number: int) -> bytes:
        codes = np.ones((8, 1), np.int64)
        return serialize_packet(Packet(number, number, codes=codes, sender=sender, start=number == 0))

    def hear(self, senders: tuple[int, ...], numbers: range) -> None:
        """A frame of each sender, a frame period apart."""
        for number in numbers:
            for sender in senders:
                self.voices.on_packet(self.packet(sender, number), self.clock.now_s)
            self.wait(1)

    def wait(self, frames: int) -> None:
        for _ in range(frames):
            self.voices.read(HOP, self.clock.now_s)
            self.clock.now_s += FORMAT.frame_seconds


def test_word_of_leaving_that_overtakes_voice_leaves_no_ghost() -> None:
    """As a relay hands it to a listener that was slow: controls first."""
    room = Room()
    room.hear((7, 8), range(75))
    outbox = Outbox(20)
    for number in range(75, 90):
        outbox.put(7, 1, room.packet(7, number), room.clock.now_s)
    outbox.put_control(serialize_control(Left(7)).encode())
    room.clock.now_s += 0.2
    room.wait(15)
    while (data := outbox.pop(room.clock.now_s)) is not None:
        if data.startswith(b"{"):
            message = parse_control(data)
            assert isinstance(message, Left)
            room.voices.on_control(message)
        else:
            room.voices.on_packet(data, room.clock.now_s)
        room.voices.read(64, room.clock.now_s)
    room.reports.clear()
    room.hear((8,), range(75, 300))
    assert room.voices.mixer.speakers == (8,)
    assert {report.sender for report in room.reports} == {8}


def test_packets_that_an_impaired_network_holds_back_bring_nobody_back() -> None:
    room = Room(NetworkImpairment(jitter_ms=60.0))
    room.hear((7,), range(75))
    room.voices.on_control(Left(7))
    room.wait(75)
    assert room.voices.mixer.speakers == ()


def test_what_came_before_a_speaker_left_is_heard_to_its_end() -> None:
    room = Room()
    for number in range(10):
        room.voices.on_packet(room.packet(7, number), room.clock.now_s)
    room.voices.on_control(Left(7))
    room.wait(30)
    assert room.decoder.frames == {7: 10}
    assert room.voices.mixer.speakers == ()


def test_a_voice_that_left_fades_and_is_forgotten_also_where_blocks_fit_no_frame() -> None:
    for block in (128, 441, HOP, 960):
        room = Room()
        room.hear((7,), range(75))
        room.voices.on_control(Left(7))
        for _ in range(2 * HOP * 10 // block):
            room.voices.read(block, room.clock.now_s)
            room.clock.now_s += block / FORMAT.sample_rate
        assert room.voices.mixer.speakers == (), block


def test_who_left_in_an_outage_is_gone_after_it_and_who_stayed_is_not() -> None:
    room = Room()
    room.hear((7, 8), range(75))
    room.voices.on_control(Welcome(0, resumed=True, speakers=(8,)))
    room.hear((8,), range(75, 150))
    assert room.voices.mixer.speakers == (8,)


def test_a_full_room_is_heard_whole() -> None:
    room = Room()
    room.hear(tuple(range(1, MAX_SPEAKERS + 1)), range(3))
    assert len(room.voices.mixer.speakers) == MAX_SPEAKERS


def test_a_number_that_comes_again_is_somebody_else() -> None:
    for back in (Joined(7), Welcome(0, resumed=True, speakers=(7,)), Welcome(0)):
        room = Room()
        room.hear((7,), range(20))
        room.voices.on_control(Left(7))
        room.wait(10)
        assert room.voices.mixer.speakers == ()
        room.voices.on_control(back)
        room.hear((7,), range(20))
        assert room.voices.mixer.speakers == (7,), back


def test_at_a_relay_begun_anew_what_the_network_holds_back_is_nobodys() -> None:
    room = Room(NetworkImpairment(jitter_ms=500.0))
    room.hear((7,), range(20))
    room.voices.on_control(Welcome(0))
    room.wait(200)
    assert room.voices.mixer.speakers == ()
