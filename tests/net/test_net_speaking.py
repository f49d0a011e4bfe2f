"""One voice on its way out, without sockets."""

from __future__ import annotations

import numpy as np
from net.call_support import HOP, tiny_model

from streaming_encodec.net.formats import stream_format
from streaming_encodec.net.speaking import OutgoingVoice
from streaming_encodec.voice.sender import SenderSettings
from streaming_encodec.wire.control import Report


def test_another_bandwidth_goes_back_to_the_redundancy_that_was_asked_for() -> None:
    """What loss has added is not taken for a wish."""
    model = tiny_model()
    asked = SenderSettings(frames_per_packet=1, redundant_codebooks=2, redundant_frames=4)
    voice = OutgoingVoice(
        model, stream_format(model), 6.0, "fused", asked, dtx=False, adapt=True, first_sequence=0, first_timestamp=0
    )

    def told(loss: float) -> int:
        for second in range(20):
            voice.heard_of(Report(1, loss, loss, 9.0, 5.0, 40.0, 2), float(second))
        voice.push(np.zeros((1, HOP), np.float32))
        return voice.settings.redundant_frames

    assert told(0.0) == 4
    assert told(0.3) > 4
    voice.bandwidth = 3.0
    assert voice.settings.redundant_frames == 4
    assert told(0.0) == 4
