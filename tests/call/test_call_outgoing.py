"""One voice on its way out, without sockets."""

from __future__ import annotations

import numpy as np
from call_kit import HOP, tiny_model

from streaming_encodec.call.outgoing import OutgoingVoice
from streaming_encodec.call.stream_format import stream_format
from streaming_encodec.voice.sender import SenderSettings
from streaming_encodec.wire.control import Report
from streaming_encodec.wire.packet import parse_packet


def test_another_bandwidth_goes_back_to_the_redundancy_that_was_asked_for() -> None:
    """What loss has added is not taken for a wish."""
    model = tiny_model()
    asked = SenderSettings(frames_per_packet=1, redundant_codebooks=2, redundant_frames=4)
    voice = OutgoingVoice(
        model, stream_format(model), 6.0, "fused", asked, dtx=False, adapt=True, first_sequence=0, first_timestamp=0
    )

    def told(loss: float) -> int:
        for second in range(20):
            voice.on_report(Report(1, loss, loss, 9.0, 5.0, 40.0, 2, ordered=False), float(second))
        voice.push(np.zeros((1, HOP), np.float32), 0.0)
        return voice.settings.redundant_frames

    assert told(0.0) == 4
    assert told(0.3) > 4
    voice.bandwidth = 3.0
    assert voice.settings.redundant_frames == 4
    assert told(0.0) == 4


def test_after_a_pause_of_the_caller_the_stream_lies_so_much_later() -> None:
    """Where timestamps stood still, listeners would hear all that follows with the pause as its delay."""
    model = tiny_model()
    voice = OutgoingVoice(
        model,
        stream_format(model),
        6.0,
        "fused",
        SenderSettings(frames_per_packet=2),
        dtx=False,
        adapt=True,
        first_sequence=0,
        first_timestamp=0,
    )
    frame_s = HOP / 24_000
    packets = []
    for number in range(31):
        pause_s = 4.0 if number >= 15 else 0.0
        packets += voice.push(np.zeros(HOP, np.float32), number * frame_s + pause_s)
    made = [parse_packet(data) for data in packets]
    assert [packet.sequence for packet in made] == list(range(15))
    assert [packet.timestamp for packet in made] == [*range(0, 14, 2), *range(314, 330, 2)]
    packets = voice.finish() + voice.push(np.zeros(2 * HOP, np.float32), 100.0)
    assert parse_packet(packets[-1]).timestamp < 400  # after a proper end there is no need
