"""Feedback suppression: catches a loop that rings, and leaves speech alone."""

from importlib.resources import files

import numpy as np
import soundfile

from streaming_encodec.live.feedback import FeedbackSuppressor

RATE, BLOCK = 24_000, 320


def speech() -> np.ndarray:
    with files("streaming_encodec").joinpath("assets/speech.flac").open("rb") as file:
        sound, rate = soundfile.read(file, dtype="float32")
    assert rate == RATE
    return sound


def through_the_room(suppressor: FeedbackSuppressor | None, gain: float, seconds: float = 12.0) -> np.ndarray:
    """A loop with 80 ms of delay and a room that likes 900 Hz; a word at the beginning sets it off."""
    rng = np.random.default_rng(0)
    delay = 6  # blocks
    played = [np.zeros(BLOCK, np.float32)] * delay
    phase = np.zeros(2)
    pole = 0.97 * np.exp(2j * np.pi * 900 / RATE)
    a1, a2 = -2 * pole.real, abs(pole) ** 2
    peak_gain = 1 / abs(
        (1 - pole * np.exp(-2j * np.pi * 900 / RATE)) * (1 - np.conj(pole) * np.exp(-2j * np.pi * 900 / RATE))
    )
    for number in range(round(seconds * RATE / BLOCK)):
        heard = np.empty(BLOCK)
        room = played[-delay] * gain / peak_gain
        for i in range(BLOCK):
            y = room[i] - a1 * phase[0] - a2 * phase[1]
            phase[:] = y, phase[0]
            heard[i] = y
        if number < 20:
            heard += 0.1 * rng.standard_normal(BLOCK)
        out = np.clip(heard, -1, 1).astype(np.float32)[None]
        played.append((suppressor.process(out) if suppressor is not None else out)[0])
    return np.concatenate(played)


def loudness(sound: np.ndarray) -> float:
    return float(np.sqrt(np.mean(sound**2)))


def test_a_ringing_loop_is_silenced_and_does_not_come_back_as_loud() -> None:
    wild = through_the_room(None, 1.6)
    assert loudness(wild[-RATE:]) > 0.4  # without the suppressor it screams
    suppressor = FeedbackSuppressor(RATE)
    tamed = through_the_room(suppressor, 1.6)
    assert suppressor.caught >= 1
    assert loudness(tamed[-3 * RATE :]) < 0.05


def test_speech_passes_untouched() -> None:
    suppressor, sound = FeedbackSuppressor(RATE), speech()
    loud = sound / np.abs(sound).max()
    out = [suppressor.process(loud[None, i : i + BLOCK])[0] for i in range(0, len(loud), BLOCK)]
    assert suppressor.caught == 0
    assert suppressor.gain == 1
    np.testing.assert_array_equal(np.concatenate(out), loud)


def test_full_scale_that_does_not_end_is_stopped_and_comes_back_softer() -> None:
    suppressor = FeedbackSuppressor(RATE)
    noise = np.clip(np.random.default_rng(0).standard_normal((1, RATE // 10)), -1, 1).astype(np.float32)
    for _ in range(12):
        suppressor.process(noise)
    assert suppressor.caught == 1
    assert suppressor.gain == 0
    assert not suppressor.process(noise[:, :BLOCK]).any()
    quiet = 0.01 * noise
    for _ in range(60):
        last = suppressor.process(quiet)
    assert suppressor.gain == 0.5
    np.testing.assert_allclose(last, 0.5 * quiet, rtol=1e-5)


def test_minutes_without_a_howl_give_the_loudness_back_and_each_howl_makes_it_more_of_them() -> None:
    suppressor = FeedbackSuppressor(RATE)
    beep = (0.15 * np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE)).astype(np.float32)  # passes for a howl
    talk = speech()

    def hear(sound: np.ndarray, seconds: float) -> float:
        for at in range(0, round(seconds * RATE), RATE // 10):
            suppressor.process(np.roll(sound, -at)[None, : RATE // 10])
        return suppressor.gain

    hear(beep, 0.6)
    assert suppressor.caught == 1
    assert hear(talk, 55) == 0.5
    assert hear(talk, 10) == 1.0
    for _ in range(2):
        hear(beep, 0.6)
    assert suppressor.caught == 3
    assert hear(talk, 175) == 0.25
    assert hear(talk, 10) == 0.5
    assert hear(talk, 180) == 1.0
    np.testing.assert_array_equal(suppressor.process(talk[None]), talk[None])
