"""A LiveKit agent's audio input and output on a room. The package takes 200 MB, so it is not among the tests' own."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from call_kit import Ear, VoiceClient, sound, tiny_model
from relay_kit import running

pytest.importorskip("livekit.agents", reason="LiveKit Agents is not installed: pip install livekit-agents")

from livekit import rtc

from streaming_encodec.bridges.livekit import RoomAudioInput, RoomAudioOutput
from streaming_encodec.errors import StreamError
from streaming_encodec.model.encodec import EncodecModel

RATE = 24_000


@pytest.fixture(scope="module")
def model() -> EncodecModel:
    return tiny_model()


def frame(samples: np.ndarray, rate: int = RATE) -> rtc.AudioFrame:
    return rtc.AudioFrame((samples * 32_767).astype("<i2").tobytes(), rate, 1, len(samples))


async def test_an_agent_hears_the_room(model: EncodecModel) -> None:
    async with (
        running() as relay,
        VoiceClient(relay.url, None, model, room="r") as agent,
        VoiceClient(relay.url, None, model, room="r") as person,
    ):
        ears = RoomAudioInput(agent)
        loudest = 0
        pcm = sound(0.1)
        for _ in range(300):
            await person.send(pcm[:480])
            heard = await anext(ears)
            assert (heard.sample_rate, heard.num_channels, heard.samples_per_channel) == (RATE, 1, 480)
            loudest = max(loudest, int(np.abs(np.frombuffer(bytes(heard.data), "<i2")).max()))
            if loudest > 50:
                break
        assert loudest > 50


async def test_the_room_hears_an_agent_that_speaks_faster_than_real_time(model: EncodecModel) -> None:
    async with (
        running() as relay,
        VoiceClient(relay.url, None, model, room="r") as agent,
        VoiceClient(relay.url, None, model, room="r") as person,
        Ear(person) as ear,
    ):
        mouth = RoomAudioOutput(agent)
        events: list[Any] = []
        mouth.on("playback_started", events.append)
        for at in range(0, RATE, 2400):
            await mouth.capture_frame(frame(sound(1.0)[at : at + 2400]))
            assert mouth._waiting_samples <= 0.5 * RATE + 2400  # bounded: it waits
        mouth.flush()
        finished = await asyncio.wait_for(mouth.wait_for_playout(), 30)
        assert finished.playback_position == pytest.approx(1.0)
        assert not finished.interrupted
        assert len(events) == 1
        for _ in range(2000):
            if ear.frames(agent.sender) >= 60:
                break
            await asyncio.sleep(0.01)
        assert ear.frames(agent.sender) >= 60  # of 75
        await mouth.aclose()


async def test_an_interruption_tells_how_much_was_said(model: EncodecModel) -> None:
    async with running() as relay, VoiceClient(relay.url, None, model, room="r") as agent:
        mouth = RoomAudioOutput(agent)
        speaking = asyncio.create_task(_push(mouth, 20))
        while mouth._said_samples < 2400:
            await asyncio.sleep(0.01)
        mouth.clear_buffer()
        speaking.cancel()
        await asyncio.gather(speaking, return_exceptions=True)
        finished = await asyncio.wait_for(mouth.wait_for_playout(), 30)
        assert finished.interrupted
        assert 0.1 <= finished.playback_position < 2.0
        mouth.flush()
        # And it can speak again.
        await mouth.capture_frame(frame(sound(0.1)))
        mouth.flush()
        finished = await asyncio.wait_for(mouth.wait_for_playout(), 30)
        assert not finished.interrupted
        await mouth.aclose()


async def _push(mouth: RoomAudioOutput, tenths: int) -> None:
    for _ in range(tenths):
        await mouth.capture_frame(frame(sound(0.1)))


async def test_another_rate_is_refused(model: EncodecModel) -> None:
    async with running() as relay, VoiceClient(relay.url, None, model, room="r") as agent:
        with pytest.raises(StreamError, match="24000 Hz"):
            await RoomAudioOutput(agent).capture_frame(frame(sound(0.1), 16_000))
