"""A telephone's sound at the room's rate, and the room's at the telephone's. Pure.

`LowDelayResampler` both ways: at 8 kHz it holds back 2.8 ms, soxr 12 (quality LQ) to 60 (HQ), more than a packet.
"""

from __future__ import annotations

import numpy as np

from streaming_encodec.audio.low_delay import LowDelayResampler
from streaming_encodec.audio.resample import mix_channels
from streaming_encodec.samples import clip_amplitude
from streaming_encodec.types import Pcm
from streaming_encodec.wire.packet import StreamFormat


class PhoneLine:
    """Both directions of one call; each may be used by a thread of its own.

    phone_rate: Hz, of the telephone. Samples to and from it are mono [n], those of the room [C, n].
    """

    def __init__(self, phone_rate: int, room: StreamFormat) -> None:
        self._channels = room.channels
        self._up = LowDelayResampler(phone_rate, room.sample_rate)
        self._down = LowDelayResampler(room.sample_rate, phone_rate)
        self._ready: Pcm = np.zeros(0, np.float32)

    @property
    def delay_ms(self) -> float:
        """Of both directions together."""
        return self._up.delay_ms + self._down.delay_ms

    def to_room(self, samples: Pcm) -> Pcm:
        """What the caller said, for the room."""
        return mix_channels(clip_amplitude(self._up.push(samples[None])), self._channels)

    def wanted(self, count: int) -> int:
        """Samples of the room that make so many for the telephone, with what is left over."""
        return self._down.inputs_for(count - len(self._ready))

    def to_phone(self, sound: Pcm, count: int) -> Pcm:
        """`wanted` samples of the room, as `count` for the telephone."""
        made = np.concatenate([self._ready, self._down.push(mix_channels(sound, 1))[0]])
        self._ready = made[count:]
        return made[:count]
