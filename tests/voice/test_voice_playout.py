"""From decisions to samples."""

from __future__ import annotations

import numpy as np
import pytest
from voice.voice_cases import FORMAT, FRAME, noise_packet, packet, receiver

from streaming_encodec.bench.simulated_call import made_up_voice
from streaming_encodec.errors import StreamError
from streaming_encodec.types import IntArray
from streaming_encodec.voice.noise import BackgroundEstimator, ComfortNoise, NoiseMeter
from streaming_encodec.voice.playout import PcmPlayout

N = FORMAT.frame_samples
VOICE = made_up_voice(FORMAT).reshape(-1, 1, N)


class Decoder:
    """Looks frames up by the number their codes spell; counts what it is asked."""

    def __init__(self) -> None:
        self.steps = self.lost = self.resets = 0
        self._last = np.zeros((1, N), dtype=np.float32)

    def __call__(self, codes: IntArray | None) -> np.ndarray:
        self.steps += 1
        if codes is None:
            self.lost += 1
        else:
            self._last = VOICE[int(codes[0, 0])]
        return self._last

    def reset(self) -> None:
        self.resets += 1


def play(arrivals: dict[int, bytes], frames: int, block: int = N) -> tuple[np.ndarray, Decoder, PcmPlayout]:
    decoder = Decoder()
    playout = PcmPlayout(receiver(), decoder, decoder.reset)
    waiting = dict(arrivals)
    made = []
    for i in range(frames * N // block):
        now = i * block / FORMAT.sample_rate
        for number in [n for n in waiting if n * FRAME <= now + 1e-9]:
            playout.receiver.receive(waiting.pop(number), number * FRAME)
        made.append(playout.read(block, now))
    return np.concatenate(made, axis=1), decoder, playout


@pytest.mark.parametrize("block", [N, 160, 64, 960])
def test_on_a_clean_line_the_output_is_the_decoders_bit_for_bit(block: int) -> None:
    sound, decoder, playout = play({i: packet(i) for i in range(300)}, 300, block)
    begin = int(np.flatnonzero(sound[0])[0])
    expected = np.concatenate(list(VOICE[:300]), axis=1)[:, : sound.shape[1] - begin]
    assert np.array_equal(sound[:, begin:], expected)
    assert begin <= 3 * N
    assert decoder.lost == 0
    assert playout.receiver.statistics.concealed_samples == 0


def test_the_decoder_steps_once_a_frame_also_where_frames_are_lost() -> None:
    lost = range(100, 104)
    _, decoder, _ = play({i: packet(i) for i in range(200) if i not in lost}, 200)
    assert decoder.lost == 4
    assert decoder.steps == 198


def click_of(sound: np.ndarray) -> float:
    return float(np.abs(np.diff(sound, n=2)).max())


@pytest.mark.parametrize("hole", [1, 3, 6, 20])
def test_holes_do_not_click(hole: int) -> None:
    """The decoder here goes on as a sine whatever it is given; the playout must not add jumps of its own."""
    smooth = (0.2 * np.sin(2 * np.pi * 150 * np.arange(N) / FORMAT.sample_rate)).astype(np.float32)[None]
    decoder_like = {i: packet(i) for i in range(200) if not 100 <= i < 100 + hole}
    playout = PcmPlayout(receiver(), lambda codes: smooth)
    made = []
    for i in range(200):
        if i in decoder_like:
            playout.receiver.receive(decoder_like[i], i * FRAME)
        made.append(playout.read(N, i * FRAME))
    sound = np.concatenate(made, axis=1)[:, 4 * N :]
    assert click_of(sound) < 3 * click_of(np.concatenate([smooth] * 3, axis=1))


def test_a_long_hole_fades_to_the_rooms_noise_and_not_to_nothing() -> None:
    sound, _, _ = play({i: packet(i) for i in range(400) if not 300 <= i < 340}, 400)
    room = np.sqrt(np.mean(sound[0, 320 * N : 335 * N] ** 2))
    assert 10 ** (-75 / 20) < room < 10 ** (-45 / 20)


def test_in_dtx_the_senders_noise_is_heard_and_the_decoder_rests() -> None:
    arrivals = {i: packet(i) for i in range(50)} | {50: noise_packet(50, 50)}
    sound, decoder, _ = play(arrivals, 150)
    level = 10 * np.log10(np.mean(sound[0, 60 * N :] ** 2))
    assert level == pytest.approx(-60 + 10 * np.log10(6), abs=1.5)
    assert decoder.steps == 51  # one more, for the voice to fade on


def test_a_new_start_resets_the_decoder() -> None:
    arrivals = {i: packet(i, start=i in (0, 50)) for i in range(100)}
    _, decoder, _ = play(arrivals, 100)
    assert decoder.resets == 2


@pytest.mark.parametrize("given", [0, 100, 700])
def test_a_decoder_may_give_more_or_less_than_a_frame(given: int) -> None:
    playout = PcmPlayout(receiver(), lambda codes: np.zeros((1, given), np.float32))
    for i in range(50):
        playout.receiver.receive(packet(i), i * FRAME)
        assert playout.read(N, i * FRAME).shape == (1, N)


def test_wrong_shapes_are_told() -> None:
    playout = PcmPlayout(receiver(), lambda codes: np.zeros(N, np.float32))
    for i in range(3):
        playout.receiver.receive(packet(i), i * FRAME)
    with pytest.raises(StreamError, match="decoder"):
        playout.read(N, 3 * FRAME)
    with pytest.raises(StreamError, match="negative"):
        playout.read(-1, 0.0)


@pytest.mark.parametrize("rate", [16_000, 24_000, 48_000])
def test_noise_comes_back_as_it_was_measured(rate: int) -> None:
    levels = (50, 55, 60, 62, 70, 75) if rate > 16_000 else (50, 55, 60, 62, 70, 127)
    sound = ComfortNoise(rate, seed=1).make(rate * 4, levels)
    meter = NoiseMeter(rate, 320)
    powers = np.mean([meter.band_powers(f) for f in sound[: len(sound) // 320 * 320].reshape(-1, 320)], axis=0)
    decibels = -10 * np.log10(np.maximum(powers, 1e-13))
    for sent, found in zip(levels, decibels, strict=True):
        assert found == pytest.approx(sent, abs=2.0) or (sent == 127 and found > 85)


def test_noise_is_seeded_and_does_not_repeat() -> None:
    levels = (50,) * 6
    first = ComfortNoise(24_000, seed=3).make(9_600, levels)
    parts = ComfortNoise(24_000, seed=3)
    assert np.array_equal(first, np.concatenate([parts.make(n, levels) for n in (1, 99, 500, 9_000)]))
    assert abs(np.corrcoef(first[:4_800], first[4_800:])[0, 1]) < 0.1


def test_the_room_is_found_behind_the_voice() -> None:
    room = BackgroundEstimator(24_000, N)
    for frame in VOICE[:600]:
        room.update(frame)
    total = 10 * np.log10(sum(10 ** (-v / 10) for v in room.levels()))
    assert -72 < total < -52  # the made-up room is at -60
