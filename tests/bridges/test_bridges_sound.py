"""What a telephone's sound becomes on its way through the room's codec, in simulated time."""

from __future__ import annotations

import numpy as np
import pytest

from streaming_encodec.bench.bridge_calls import speech
from streaming_encodec.bench.telephones import best_lag
from streaming_encodec.bridges.line import PhoneLine
from streaming_encodec.bridges.protocol import Encoding
from streaming_encodec.call.decoders import make_decoders
from streaming_encodec.call.incoming import IncomingVoices
from streaming_encodec.call.outgoing import OutgoingVoice
from streaming_encodec.call.stream_format import stream_format
from streaming_encodec.engines.registry import find_engine
from streaming_encodec.model.folder import ModelFolder
from streaming_encodec.types import Pcm
from streaming_encodec.voice.sender import SenderSettings


def through(said: Pcm, encoding: Encoding, bandwidth: float) -> tuple[Pcm, float]:
    """From a telephone into a room and out of it to another: what is heard, and its delay in ms.

    The path of a bridge's call but for sockets: blocks of 20 ms, as they come from and go to the telephone.
    """
    model = ModelFolder.from_pretrained("voice-24khz")
    room, engine = stream_format(model), find_engine("auto", model)
    now_s = [0.0]
    settings = SenderSettings(frames_per_packet=2)
    voice = OutgoingVoice(
        model, room, bandwidth, engine, settings, dtx=False, adapt=False, first_sequence=1, first_timestamp=1
    )
    voices = IncomingVoices(room, make_decoders(model, engine), None, clock=lambda: now_s[0], on_reports=lambda _: None)
    there, here = PhoneLine(encoding.rate, room), PhoneLine(encoding.rate, room)
    count = encoding.rate // 50
    heard = []
    for at in range(0, len(said) - count + 1, count):
        now_s[0] += 0.02  # the block is spoken
        block = encoding.decode(encoding.encode(said[at : at + count]))
        for packet in voice.push(there.to_room(block), now_s[0]):
            voices.on_packet(packet[:4] + b"\1\0" + packet[6:], now_s[0])
        sound = here.to_phone(voices.read(here.wanted(count), now_s[0]), count)
        heard.append(encoding.decode(encoding.encode(sound)))
    pcm = np.concatenate(heard)
    lag = best_lag(said, pcm, encoding.rate)
    return pcm, 20 + 1000 * lag / encoding.rate  # a block that is heard at the time when it was spoken is 20 ms late


@pytest.mark.parametrize(("bandwidth", "least"), [(6.0, 0.8), (12.0, 0.85)])
def test_speech_is_understood(bandwidth: float, least: float) -> None:
    stoi = pytest.importorskip("pystoi", reason="pystoi is not installed").stoi
    said = speech(8.0)
    heard, delay_ms = through(said, Encoding("ulaw", 8000), bandwidth)
    lag = round((delay_ms - 20) * 8)
    assert stoi(said[: len(heard) - lag], heard[lag:], 8000) >= least
    assert delay_ms <= 120


@pytest.mark.parametrize("rate", [8000, 12_000, 16_000, 24_000, 32_000, 44_100, 48_000])
def test_a_line_loses_and_adds_no_sample_at_any_rate(rate: int) -> None:
    room = stream_format("voice-24khz")
    line = PhoneLine(rate, room)
    seconds = 3
    tone = np.sin(2 * np.pi * 440 * np.arange(rate * seconds) / rate).astype(np.float32) / 2
    blocks = [line.to_room(tone[at : at + rate // 50]) for at in range(0, len(tone), rate // 50)]
    up = np.concatenate(blocks, axis=1)
    assert up.shape == (1, 24_000 * seconds)
    at, back = 0, []
    for _ in range(50 * seconds - 1):
        wanted = line.wanted(rate // 50)
        back.append(line.to_phone(up[:, at : at + wanted], rate // 50))
        at += wanted
    assert all(len(block) == rate // 50 for block in back)
    heard = np.concatenate(back)
    # A tone is the same at another time, but for its phase.
    assert np.abs(heard[rate:]).max() == pytest.approx(0.5, abs=0.02)
    assert abs(at - 24_000 * (seconds - 0.02)) <= 3


@pytest.mark.slow
@pytest.mark.parametrize("ppm", [-100, 100])
def test_half_an_hour_of_a_caller_with_another_clock(ppm: float) -> None:
    """Both ends of the room's path for 30 minutes: the receiver follows the caller's clock, and its delay stays."""
    from streaming_encodec.voice.receiver import Receiver
    from streaming_encodec.voice.sender import Sender

    room = stream_format("voice-24khz")
    sender, receiver = Sender(room, SenderSettings(2, 2)), Receiver(room)
    from streaming_encodec.voice.playout import PcmPlayout

    playout = PcmPlayout(receiver, lambda codes: np.zeros((1, 320), np.float32))
    spoken_s = 0.0
    delays = []
    for block in range(90_000):
        now_s = 0.02 * block
        while spoken_s + 320 / 24_000 <= now_s * (1 + ppm / 1e6):
            spoken_s += 320 / 24_000
            for packet in sender.push(np.zeros((2, 1), np.int64)):
                receiver.receive(packet, now_s)
        playout.read(480, now_s)
        if block % 500 == 499:
            delays.append(receiver.buffered_frames)
    statistics = receiver.statistics
    assert max(delays[2:]) - min(delays[2:]) <= 4
    assert statistics.concealed_samples / 24_000 < 1.0
    assert statistics.skipped_frames < 75
