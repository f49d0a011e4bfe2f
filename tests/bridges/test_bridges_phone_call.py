"""One call with a made-up connection and room: when sound is asked for."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Self

import numpy as np
import pytest

from streaming_encodec.bridges.config import BridgeLimits
from streaming_encodec.bridges.connection import HungUp
from streaming_encodec.bridges.media_streams import MediaStream
from streaming_encodec.bridges.phone_call import PhoneCall
from streaming_encodec.call.stream_format import stream_format


class _Recorder:
    """In place of a participant: when each read is due, and when it is made."""

    room, format = "tea", stream_format("voice-24khz")

    def __init__(self) -> None:
        self.reads: list[tuple[float, float]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def send(self, pcm: np.ndarray) -> None: ...

    def read(self, count: int, due_s: float) -> np.ndarray:
        self.reads.append((due_s, time.monotonic()))
        return np.zeros((1, count), np.float32)


class _Line:
    """A Twilio connection: start, then silence each 20 ms, until `enough` reads were made."""

    unsent_bytes = 0
    round_trip_s = None

    def __init__(self, recorder: _Recorder, enough: int) -> None:
        self._recorder, self._enough, self._number = recorder, enough, -1
        self._begin_s = time.monotonic()

    async def receive(self) -> str:
        self._number += 1
        if not self._number:
            form = {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}
            start = {"streamSid": "MZ", "callSid": "CA", "mediaFormat": form}
            return json.dumps({"event": "start", "streamSid": "MZ", "start": start})
        if len(self._recorder.reads) >= self._enough:
            raise HungUp("that is enough")
        await asyncio.sleep(max(0.0, self._begin_s + 0.02 * self._number - time.monotonic()))
        media = {"payload": base64.b64encode(b"\xff" * 160).decode(), "timestamp": str(20 * self._number)}
        return json.dumps({"event": "media", "streamSid": "MZ", "media": media})

    async def send(self, message: str | bytes) -> None: ...

    async def measure(self) -> None: ...

    async def close(self, reason: str) -> None: ...


@pytest.mark.parametrize("threads", [0, 1])
async def test_sound_is_taken_out_of_the_room_when_it_is_sent_not_when_it_is_played(threads: int) -> None:
    """What is sent 40 ms ahead can hold nothing of the 40 ms to come: a jitter buffer that is told so conceals a fifth
    of all frames. The times go on by 20 ms, however late this program wakes."""
    recorder = _Recorder()
    with ThreadPoolExecutor(1) if threads else nullcontext() as pool:
        call = PhoneCall(
            _Line(recorder, 40),  # type: ignore[arg-type]
            MediaStream("twilio"),
            lambda _: recorder,  # type: ignore[arg-type,return-value]
            pool=pool,
            limits=BridgeLimits(),
            stopping=asyncio.Event(),
            on_start=lambda _: None,
            on_digit=lambda *_: None,
            clock=time.monotonic,
        )
        figures = await call.run()
    assert figures.reason == "that is enough"
    due_s, read_s = np.array(recorder.reads).T
    assert (due_s <= read_s + 0.003).all()
    # The fastest message so far shows the telephone's clock, so its time may jump by some milliseconds.
    assert (np.diff(due_s) > 0.012).all()
