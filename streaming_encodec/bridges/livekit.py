"""A LiveKit agent as a participant of a room: its ears and its mouth are a `VoiceClient`.

```python
async with VoiceClient(url, token, model) as call:
    session = AgentSession(...)
    session.input.audio, session.output.audio = RoomAudioInput(call), RoomAudioOutput(call)
    await session.start(agent)
```

Needs `pip install livekit-agents`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import numpy as np

from streaming_encodec.audio.resample import mix_channels
from streaming_encodec.call.pcm import give_pcm
from streaming_encodec.errors import CallError, MissingExtraError, StreamError
from streaming_encodec.transport.limits import MAX_VOICE_AGE_S
from streaming_encodec.types import Pcm

try:
    from livekit import rtc
    from livekit.agents.voice.io import AudioInput, AudioOutput, AudioOutputCapabilities
except ImportError as error:
    raise MissingExtraError("this needs LiveKit Agents: pip install livekit-agents") from error

if TYPE_CHECKING:
    from streaming_encodec.client.client import VoiceClient

_BLOCK_S = 0.02


class RoomAudioInput(AudioInput):  # type: ignore[misc]  # LiveKit's types are not looked at
    """What the room says: frames of 20 ms at the model's rate, mono, at the pace of the clock; ends with the call."""

    def __init__(self, call: VoiceClient) -> None:
        super().__init__(label="streaming-encodec room")
        self._rate = call.format.sample_rate
        self._blocks: AsyncIterator[Pcm] = call.receive(round(self._rate * _BLOCK_S))

    async def __anext__(self) -> rtc.AudioFrame:
        """The next frame."""
        try:
            block = await anext(self._blocks)
        except CallError as error:
            raise StopAsyncIteration from error
        samples = mix_channels(block, 1)[0]
        return rtc.AudioFrame(give_pcm(samples, "bytes"), self._rate, 1, len(samples))


class RoomAudioOutput(AudioOutput):  # type: ignore[misc]
    """What the agent says, into the room at the pace of speech. Takes frames at the model's rate, as fast as they come.

    At most 0.4 s wait here: then `capture_frame` waits. `clear_buffer` drops them, and reports how much was said.
    """

    def __init__(self, call: VoiceClient) -> None:
        self._rate = call.format.sample_rate
        super().__init__(
            label="streaming-encodec room", capabilities=AudioOutputCapabilities(pause=False), sample_rate=self._rate
        )
        self._call = call
        self._waiting: deque[Pcm] = deque()  # [n] each
        self._waiting_samples = 0
        self._changed = asyncio.Event()
        self._segment = 0  # number of the present one
        self._said_samples = 0  # of the present segment
        self._complete = self._open = False
        self._pump: asyncio.Task[None] | None = None

    async def capture_frame(self, frame: rtc.AudioFrame) -> None:
        """Take a frame to be said. Raises StreamError for one at another rate."""
        if frame.sample_rate != self._rate:
            raise StreamError(f"frames at {self._rate} Hz are taken, not at {frame.sample_rate}")
        await super().capture_frame(frame)
        self._open, self._complete = True, False
        if self._pump is None or self._pump.done():
            self._pump = asyncio.create_task(self._say())
        segment = self._segment
        while self._waiting_samples > MAX_VOICE_AGE_S * self._rate:
            self._changed.clear()
            await self._changed.wait()
            if self._pump.done():
                self._pump.result()  # the call is over
        if segment != self._segment:
            return  # it was interrupted meanwhile
        sound = np.frombuffer(bytes(frame.data), "<i2").astype(np.float32).reshape(-1, frame.num_channels)
        samples = sound.mean(axis=1, dtype=np.float32) / np.float32(32_768)
        self._waiting.append(samples)
        self._waiting_samples += len(samples)
        self._changed.set()

    def flush(self) -> None:
        """The segment is complete: it ends when all of it was said."""
        super().flush()
        self._complete = True
        self._changed.set()

    def clear_buffer(self) -> None:
        """Stop speaking: what waits is not said any more."""
        self._waiting.clear()
        self._waiting_samples = 0
        self._end(interrupted=True)

    async def aclose(self) -> None:
        """Stop, before the call ends."""
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)

    def _end(self, *, interrupted: bool) -> None:
        self._changed.set()
        if not self._open:
            return
        position_s, self._said_samples = self._said_samples / self._rate, 0
        self._segment += 1
        self._open = self._complete = False
        self.on_playback_finished(playback_position=position_s, interrupted=interrupted)

    async def _say(self) -> None:
        """Send what waits, 20 ms each 20 ms."""
        block_samples = round(self._rate * _BLOCK_S)
        loop = asyncio.get_running_loop()
        due_s = 0.0
        try:
            while True:
                while not self._waiting:
                    if self._complete:
                        await self._call.finish()
                        if not self._waiting and self._complete:
                            self._end(interrupted=False)
                    self._changed.clear()
                    if not self._waiting and not self._complete:
                        await self._changed.wait()
                due_s = max(due_s, loop.time())
                await asyncio.sleep(due_s - loop.time())
                block = self._take(block_samples)
                if not len(block):
                    continue
                due_s += len(block) / self._rate
                if not self._said_samples:
                    self.on_playback_started(created_at=time.time())
                self._said_samples += len(block)
                await self._call.send(np.repeat(block[None], self._call.format.channels, axis=0))
                self._changed.set()
        finally:
            self._changed.set()

    def _take(self, count: int) -> Pcm:
        taken: list[Pcm] = [np.zeros(0, np.float32)]
        with contextlib.suppress(IndexError):
            while count > 0:
                block = self._waiting.popleft()
                taken.append(block[:count])
                if len(block) > count:
                    self._waiting.appendleft(block[count:])
                count -= len(taken[-1])
        samples = np.concatenate(taken)
        self._waiting_samples -= len(samples)
        return samples
