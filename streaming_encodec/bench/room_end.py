"""The other end of a bridged call: a participant of this package who speaks and listens, without a sound card."""

from __future__ import annotations

import asyncio
import contextlib
import time

import numpy as np

from streaming_encodec.bench.telephones import Ear
from streaming_encodec.client.client import VoiceClient
from streaming_encodec.client.settings import CodecSettings, ConnectionSettings
from streaming_encodec.model.find import AnyModel, find_model
from streaming_encodec.types import Pcm
from streaming_encodec.voice.sender import SenderSettings

_BLOCK_S = 0.01
"""As a sound card takes and gives it."""
_LINE_DB = -66.0
"""What a quiet telephone line has of noise, of full scale."""


class RoomEnd:
    """Says `said` [n], at the model's rate, and hears what the telephone says meanwhile."""

    def __init__(self, said: Pcm) -> None:
        self.said = said
        self.begin_s = 0.0
        """When the first block began to be spoken."""
        self.ear: Ear | None = None

    async def run(self, url: str, room: str, model: AnyModel) -> None:
        """Until all is said."""
        codec = CodecSettings(packets=SenderSettings(frames_per_packet=2), adapt=False)
        where = ConnectionSettings(transport="websocket")
        async with VoiceClient(url, None, model, room=room, codec=codec, connection=where) as call:
            self.ear = Ear(call.format.sample_rate)
            hearing = asyncio.create_task(self._hear(call, self.ear))
            try:
                await self._say(call)
            finally:
                hearing.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await hearing

    async def _say(self, call: VoiceClient) -> None:
        count = round(_BLOCK_S * call.format.sample_rate)
        begin_s = self.begin_s = time.monotonic()
        for number in range(len(self.said) // count):
            # A block can be sent when its last sample is spoken.
            await asyncio.sleep(max(0.0, begin_s + (number + 1) * _BLOCK_S - time.monotonic()))
            await call.send(self.said[number * count : (number + 1) * count])

    @staticmethod
    async def _hear(call: VoiceClient, ear: Ear) -> None:
        async for block in call.receive(round(_BLOCK_S * call.format.sample_rate)):
            ear.came(block[0])


def speak_and_listen(url: str, room: str, model: str, said: Pcm) -> RoomEnd:
    """`RoomEnd.run`, for a process of its own: a telephone in the same one would wait for its codec."""
    end = RoomEnd(said)
    asyncio.run(end.run(url, room, find_model(model)))
    return end


def in_turns(said: Pcm, rate: int, speaks_s: float, period_s: float) -> Pcm:
    """Speech [n] of somebody who speaks for `speaks_s` of each `period_s`, and else is heard as a quiet line."""
    at_s = np.arange(len(said)) / rate % period_s
    line = np.random.default_rng(0).normal(0, 10 ** (_LINE_DB / 20), len(said))
    return np.where(at_s < speaks_s, said, line).astype(np.float32)
