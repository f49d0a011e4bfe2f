"""Pipecat's frames through the serializer, and a pipeline's transports that use it."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from call_kit import tiny_model

frames = pytest.importorskip("pipecat.frames.frames", reason="Pipecat is not installed: pip install pipecat-ai")

from streaming_encodec.bridges.pipecat import EncodecSerializer  # noqa: E402
from streaming_encodec.model.encodec import EncodecModel  # noqa: E402


@pytest.fixture(scope="module")
def model() -> EncodecModel:
    return tiny_model()


def tone(seconds: float, rate: int, channels: int = 1) -> bytes:
    samples = 8000 * np.sin(2 * np.pi * 300 * np.arange(round(seconds * rate)) / rate)
    return np.repeat(samples, channels).astype("<i2").tobytes()


async def through(
    there: EncodecSerializer, here: EncodecSerializer, audio: bytes, rate: int, channels: int = 1
) -> list[Any]:
    """40 ms at a time, as Pipecat's transports do."""
    got, size = [], rate // 25 * 2 * channels
    for at in range(0, len(audio), size):
        message = await there.serialize(frames.OutputAudioRawFrame(audio[at : at + size], rate, channels))
        frame = None if message is None else await here.deserialize(message)
        if frame is not None:
            got.append(frame)
    return got


@pytest.mark.parametrize(("out_rate", "in_rate"), [(24_000, 16_000), (16_000, 16_000), (48_000, 8000), (8000, 24_000)])
async def test_both_ends_have_rates_of_their_own(model: EncodecModel, out_rate: int, in_rate: int) -> None:
    bot, person = EncodecSerializer(model), EncodecSerializer(model)
    await person.setup(SimpleNamespace(audio_in_sample_rate=in_rate, audio_out_sample_rate=out_rate))
    got = await through(bot, person, tone(2.0, out_rate), out_rate)
    assert {type(frame) for frame in got} == {frames.InputAudioRawFrame}
    assert {(frame.sample_rate, frame.num_channels) for frame in got} == {(in_rate, 1)}
    seconds = sum(frame.num_frames for frame in got) / in_rate
    assert seconds == pytest.approx(2.0, abs=0.03)
    assert np.abs(np.frombuffer(b"".join(frame.audio for frame in got), "<i2")).max() > 0
    # And the other way, at the same time.
    assert await through(person, bot, tone(0.2, in_rate), in_rate)


async def test_speech_comes_through() -> None:
    from streaming_encodec.bench.bridge_calls import speech

    bot, person = EncodecSerializer("voice-24khz"), EncodecSerializer("voice-24khz", in_rate=8000)
    said = speech(3.0)
    got = await through(bot, person, (said * 32_767).astype("<i2").tobytes(), 8000)
    heard = np.frombuffer(b"".join(frame.audio for frame in got), "<i2") / 32_768
    loud = [np.sqrt(np.mean(sound[: 23_000 // 400 * 400].reshape(-1, 400) ** 2, axis=1)) for sound in (said, heard)]
    assert np.corrcoef(*loud)[0, 1] > 0.8


async def test_stereo_and_a_change_of_rate(model: EncodecModel) -> None:
    bot, person = EncodecSerializer(model), EncodecSerializer(model)
    assert await through(bot, person, tone(0.4, 24_000, 2), 24_000, 2)
    got = await through(bot, person, tone(0.4, 16_000), 16_000)
    assert sum(frame.num_frames for frame in got) == pytest.approx(6400, abs=500)


async def test_an_interruption_silences_what_was_under_way(model: EncodecModel) -> None:
    bot, person = EncodecSerializer(model), EncodecSerializer(model)
    await through(bot, person, tone(0.4, 24_000), 24_000)
    message = await bot.serialize(frames.InterruptionFrame())
    assert message == '{"type":"clear"}'
    late = b"\x00" + b"\x00\x00"
    assert isinstance(await person.deserialize(message), frames.InterruptionFrame)
    assert await person.deserialize(late) is None
    assert await through(bot, person, tone(0.4, 24_000), 24_000)  # a new stream begins


async def test_another_model_is_one_warning_and_no_noise(model: EncodecModel, caplog: pytest.LogCaptureFixture) -> None:
    bot, person = EncodecSerializer(tiny_model(seed=9)), EncodecSerializer(model)
    assert await through(bot, person, tone(1.0, 24_000), 24_000) == []
    assert [record.getMessage() for record in caplog.records if "another model" in record.getMessage()]
    assert len(caplog.records) == 1


async def test_other_frames_and_texts_are_passed_over(model: EncodecModel) -> None:
    serializer = EncodecSerializer(model)
    assert await serializer.serialize(frames.TextFrame("hello")) is None
    assert await serializer.serialize(frames.OutputAudioRawFrame(b"", 24_000, 1)) is None
    assert await serializer.deserialize("hello") is None


async def test_any_bytes_are_a_frame_or_nothing(model: EncodecModel) -> None:
    bot, person = EncodecSerializer(model), EncodecSerializer(model)
    rng = random.Random(1)
    good = [await bot.serialize(frames.OutputAudioRawFrame(tone(0.04, 24_000), 24_000, 1)) for _ in range(20)]
    for _ in range(1000):
        data = bytearray(rng.choice(good) or b"")
        for _ in range(rng.randrange(4)):
            at = rng.randrange(len(data) + 1)
            data[at : at + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
        frame = await person.deserialize(bytes(data))
        assert frame is None or isinstance(frame, frames.InputAudioRawFrame)
