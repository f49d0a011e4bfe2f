"""Silence is not encoded, and speech after it is as if it had been."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from call_kit import HOP, tiny_model

from streaming_encodec.call.outgoing import OutgoingVoice
from streaming_encodec.call.resting_encoder import WARM_UP_FRAMES, RestingEncoder
from streaming_encodec.call.stream_format import stream_format
from streaming_encodec.errors import StreamError
from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.streaming.encoder import StreamingEncoder
from streaming_encodec.voice.sender import SenderSettings
from streaming_encodec.wire.packet import Packet, parse_packet

STEP = 2 * HOP
RNG = np.random.default_rng(3)


def steps(count: int) -> list[np.ndarray]:
    return [RNG.normal(0, 0.1, (1, STEP)).astype(np.float32) for _ in range(count)]


def resting(model: EncodecModel) -> RestingEncoder:
    return RestingEncoder(StreamingEncoder(model, 6.0, frames_per_step=2, engine="fused"))


def test_after_a_short_rest_codes_are_as_if_there_had_been_none() -> None:
    model, sound = tiny_model(), steps(9)
    whole = StreamingEncoder(model, 6.0, frames_per_step=2, engine="fused").push(np.concatenate(sound, axis=1))
    encoder = resting(model)
    found = [encoder.encode(step)[1] for step in sound[:3]]
    for step in sound[3:7]:
        encoder.rest(step)
    before, own = encoder.encode(sound[7])
    found += [before, own, encoder.encode(sound[8])[1]]
    assert before.shape[1] == WARM_UP_FRAMES
    assert np.array_equal(np.concatenate(found, axis=1), whole)


def test_after_a_long_rest_the_stream_begins_some_frames_before_the_speech() -> None:
    model, sound = tiny_model(), steps(40)
    encoder = resting(model)
    encoder.encode(sound[0])
    for step in sound[1:38]:
        encoder.rest(step)
    before, own = encoder.encode(sound[38])
    later = encoder.encode(sound[39])[1]
    new = StreamingEncoder(model, 6.0, frames_per_step=2, engine="fused")
    expected = new.push(np.concatenate(sound[34:], axis=1))
    assert np.array_equal(np.concatenate([before, own, later], axis=1), expected)


@pytest.mark.parametrize("causal", [True, False])
def test_a_model_that_looks_ahead_gives_each_step_its_own_codes(causal: bool) -> None:
    model, sound = tiny_model(use_causal_conv=causal), np.concatenate(steps(30), axis=1)
    encoder = resting(model)
    assert (encoder.ahead_samples > 0) is not causal
    size = STEP + encoder.ahead_samples
    whole = StreamingEncoder(model, 6.0, frames_per_step=2, engine="fused").push(sound)
    for at in range(24):
        step = sound[:, at * STEP :][:, :size]
        if at in (3, 4):
            encoder.rest(step)
        else:
            assert np.array_equal(encoder.encode(step)[1], whole[:, 2 * at : 2 * at + 2])


# -- in a call ---------------------------------------------------------------------------------------------------


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Samples that were encoded, push by push."""
    sizes: list[int] = []
    push = StreamingEncoder.push

    def counted(self: StreamingEncoder, pcm: Any) -> Any:
        sizes.append(np.shape(pcm)[-1])
        return push(self, pcm)

    monkeypatch.setattr(StreamingEncoder, "push", counted)
    # The level alone decides: noise is no speech to a detector.
    monkeypatch.setattr("streaming_encodec.call.outgoing.find_speech_detector", lambda sample_rate: None)
    return sizes


def voice_of(model: EncodecModel, redundant_frames: int = 0) -> OutgoingVoice:
    settings = SenderSettings(frames_per_packet=2, redundant_codebooks=2, redundant_frames=redundant_frames)
    return OutgoingVoice(
        model, stream_format(model), 6.0, "fused", settings, dtx=True, adapt=False, first_sequence=0, first_timestamp=0
    )


def talk_and_pause(voice: OutgoingVoice) -> list[Packet]:
    """Half a second of loud sound, 2 s of next to nothing, and the loud sound again."""
    loud = RNG.normal(0, 0.1, 38 * HOP).astype(np.float32)
    quiet = RNG.normal(0, 1e-4, 150 * HOP).astype(np.float32)
    sound, packets = np.concatenate([loud, quiet, loud]), []
    for at in range(0, len(sound), 480):
        packets += voice.push(sound[at : at + 480], (at + 480) / 24_000)
    return [parse_packet(data) for data in packets]


def test_silence_is_not_encoded(encoded: list[int]) -> None:
    packets = talk_and_pause(voice_of(tiny_model()))
    sent = HOP * sum(packet.num_frames for packet in packets if packet.noise is None)
    assert sent <= sum(encoded) <= sent + (2 * WARM_UP_FRAMES + 2) * HOP
    assert sum(encoded) < 130 * HOP
    times = [packet.timestamp for packet in packets]
    assert times == sorted(times)
    assert times[-1] == 224  # silence counts, whether it is encoded or not


def test_redundancy_after_a_silence_holds_the_frames_before_it(encoded: list[int]) -> None:
    """If the word of the silence was lost, a listener plays what redundancy says: the room, and not nonsense."""
    packets = talk_and_pause(voice_of(tiny_model(), redundant_frames=12))
    speech = [packet.noise is None for packet in packets]
    first = speech.index(True, speech.index(False))
    noises = [packet for packet in packets[:first] if packet.noise is not None]
    assert noises[0].redundancy is not None
    assert all(packet.redundancy is None for packet in noises[1:])
    onset, later = packets[first].redundancy, packets[first + 6].redundancy
    assert onset is not None
    assert onset.shape == (2, 12)
    assert (onset[:, :4] == onset[:, 4:5]).all()  # further back than what was encoded after all
    own = [packet.codes[:2] for packet in packets[first : first + 6] if packet.codes is not None]
    assert later is not None
    assert np.array_equal(later, np.concatenate(own, axis=1))


def test_a_bad_sample_in_a_silence_leaves_the_stream_as_it_was(encoded: list[int]) -> None:
    voice = voice_of(tiny_model())
    talk_and_pause(voice)
    bad = np.zeros(480, np.float32)
    bad[7] = np.nan
    with pytest.raises(StreamError, match="NaN"):
        voice.push(bad, 10.0)
    assert parse_packet(voice.push(np.full(STEP, 0.1, np.float32), 3.04)[-1]).timestamp < 240


def test_what_is_left_after_a_silence_is_not_sent(encoded: list[int]) -> None:
    voice = voice_of(tiny_model())
    packets = [parse_packet(data) for data in voice.push(np.zeros(60 * HOP, np.float32), 0.8)]
    before = sum(packet.num_frames for packet in packets if packet.noise is None)
    voice.push(np.zeros(HOP // 2, np.float32), 0.81)
    ends = [parse_packet(data) for data in voice.finish()]
    assert [packet.noise is not None for packet in ends] == [True]
    assert ends[0].end
    assert before < 30
    again = parse_packet(voice.push(np.full(STEP, 0.1, np.float32), 3.0)[0])
    assert again.start
