"""Whether this machine is fast enough for a call with a model."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from streaming_encodec.live.meters import percentile
from streaming_encodec.model.find import CodecModel
from streaming_encodec.stepping.engine import Engine
from streaming_encodec.streaming.decoder import StreamingDecoder
from streaming_encodec.streaming.encoder import StreamingEncoder

_TRIAL_FRAMES = 40
_WARM_UP_FRAMES = 5
TIGHT = 0.7
"""Share of the deadline above which a busy moment on this machine will be heard."""


@dataclass(frozen=True, slots=True)
class Speed:
    """Milliseconds to encode and decode one frame: the median, the 95th percentile, and the frame's length."""

    usual_ms: float
    slow_ms: float
    deadline_ms: float


def measure_speed(model: CodecModel, engine: Engine, bandwidth: float) -> Speed:
    """Encode and decode at the pace of a call, for half a second.

    Between two frames the caches fill with other things, and a step after a pause takes two or three times what it
    takes in a row.
    """
    encoder = StreamingEncoder(model, bandwidth, engine=engine)
    decoder = StreamingDecoder(model, engine=engine)
    config = model.config
    sound = np.zeros((config.audio_channels, config.hop_length), np.float32)
    times_ms = []
    for _ in range(_TRIAL_FRAMES):
        begin_s = time.perf_counter()
        decoder.push(encoder.push(sound))
        took_s = time.perf_counter() - begin_s
        times_ms.append(1000 * took_s)
        time.sleep(max(0.0, config.frame_ms / 1000 - took_s))
    settled = times_ms[_WARM_UP_FRAMES:]
    return Speed(percentile(settled, 50), percentile(settled, 95), config.frame_ms)
