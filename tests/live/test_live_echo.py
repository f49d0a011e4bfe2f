"""A call over a loudspeaker in simulated rooms: the echo goes, the voice in the room stays."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import soundfile
from pystoi import stoi

from streaming_encodec.audio.devices.card import SoundCard
from streaming_encodec.audio.files.bundled import bundled_clip
from streaming_encodec.audio.low_delay import LowDelayResampler
from streaming_encodec.bench.room import ROOMS, Room, SimulatedRoom, impulse_response
from streaming_encodec.bench.room_card import RoomBackend, RoomClock, converse
from streaming_encodec.live.echo import KalmanEchoCanceller

RATE, FRAME = 24_000, 320


def clip(seconds: float, from_s: float = 0.0) -> np.ndarray:
    """The bundled speech, over and over, [n]."""
    sound, _ = soundfile.read(bundled_clip(), dtype="float32")
    sound = np.roll(sound, -round(from_s * RATE)) * np.float32(0.5)
    return np.tile(sound, 1 + round(seconds * RATE) // len(sound))[: round(seconds * RATE)]


def reduction_db(before: np.ndarray, after: np.ndarray, from_s: float, to_s: float) -> float:
    part = slice(round(from_s * RATE), round(to_s * RATE))
    return float(10 * np.log10(np.sum(before[part] ** 2) / np.sum(after[part] ** 2)))


class Call:
    """Plays the far end in a room and cancels it."""

    def __init__(
        self,
        room: Room,
        far: np.ndarray,
        rates: tuple[int, int] = (RATE, RATE),
        ppm: tuple[float, float] = (0, 0),
        near: np.ndarray | None = None,
    ) -> None:
        self.sim = SimulatedRoom(
            room,
            speaker_rate=rates[0],
            microphone_rate=rates[1],
            speaker_ppm=ppm[0],
            microphone_ppm=ppm[1],
            near=None if near is None else LowDelayResampler(RATE, rates[1]).push(near[None])[0],
            seed=7,
        )
        clock = RoomClock()
        backend = RoomBackend(self.sim, clock, rates, ppm)
        self.card, self.echo = SoundCard(RATE, backend=backend, clock=clock), KalmanEchoCanceller(FRAME, RATE)
        self._held = np.zeros((2, 0), np.float32)
        self.microphone, self.sent = converse(self.card, backend, far, self._hear, 2 * FRAME)

    def _hear(self, near: np.ndarray, far: np.ndarray) -> np.ndarray:
        sound = np.concatenate([self._held, np.concatenate([near, far])], axis=1)
        whole = sound.shape[1] // FRAME * FRAME
        self._held = sound[:, whole:]
        return self.echo.process(sound[0, :whole].copy(), sound[1, :whole].copy())[None]


@pytest.mark.parametrize(
    ("room", "rates", "ppm"),
    [
        (ROOMS[0], (24_000, 24_000), (0.0, 0.0)),
        (ROOMS[0], (48_000, 48_000), (100.0, 0.0)),
        (ROOMS[1], (48_000, 16_000), (0.0, 100.0)),
        (ROOMS[2], (44_100, 24_000), (50.0, -50.0)),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_the_echo_goes_in_three_seconds(room: Room, rates: tuple[int, int], ppm: tuple[float, float]) -> None:
    call = Call(room, clip(14), rates, ppm)
    assert reduction_db(call.microphone, call.sent, 3, 6) > 20
    assert reduction_db(call.microphone, call.sent, 10, 13.5) > 30
    assert call.echo.reduction_db is not None
    assert call.echo.reduction_db > 25
    assert call.card.counts.underruns == 0
    assert call.card.drift_ppm == pytest.approx(ppm[0] - ppm[1], abs=16)


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_who_speaks_at_the_same_time_is_heard(room: Room) -> None:
    """The near voice as it arrives at the microphone, louder than the far end's echo, from the sixth second."""
    said = clip(12, from_s=2.3) * np.float32(0.8)
    response = impulse_response(room, room.mouth_m, RATE, 3)
    near = np.convolve(said, response / np.linalg.norm(response))[: len(said)].astype(np.float32)
    near[: 6 * RATE] = 0
    call = Call(room, clip(12), (RATE, RATE), (100.0, 0.0), near)
    heard, was = call.sent[7 * RATE + call.echo.delay_samples : 11 * RATE], near[7 * RATE : 11 * RATE]
    was = was[: len(heard)]
    kept_db = 20 * np.log10(np.dot(was, heard) / np.dot(was, was))
    assert -6 < kept_db < 0.5
    assert stoi(was, heard, RATE) > 0.85


def test_without_an_echo_the_voice_passes() -> None:
    """Nobody hears the loudspeaker here; the voice is late by the canceller's delay, and otherwise nearly the same."""
    silent = dataclasses.replace(ROOMS[0], echo_db=-120.0)
    near = clip(8, from_s=1.0)
    call = Call(silent, clip(8), near=near)
    delay = call.echo.delay_samples
    assert 1000 * delay / RATE < 10
    heard, was = call.sent[4 * RATE + delay : 7 * RATE], near[4 * RATE : 7 * RATE][: 3 * RATE - delay]
    assert np.argmax(np.correlate(heard[:RATE], was[: RATE - 200], "valid")) <= 1
    assert 10 * np.log10(np.sum(was**2) / np.sum((heard - was) ** 2)) > 10


def test_a_loudspeaker_that_is_moved_is_learned_again() -> None:
    far, canceller = clip(20), KalmanEchoCanceller(FRAME, RATE)
    places = [ROOMS[1], dataclasses.replace(ROOMS[1], loudspeaker_m=(3.4, 3.1, 1.4), echo_db=-8.0)]
    mics = []
    for room in places:
        sim = SimulatedRoom(room, block=FRAME, seed=1)
        for at in range(0, len(far), FRAME):
            sim.play(far[at : at + FRAME])
        mics.append(sim.record(len(far)))
    mic = np.where(np.arange(len(far)) < 10 * RATE, *mics).astype(np.float32)
    sent = canceller.process(mic, far)
    assert reduction_db(mic, sent, 8, 10) > 25
    assert reduction_db(mic, sent, 16, 20) > 20


def test_after_a_reset_nothing_of_the_first_room_is_left() -> None:
    far, random = clip(2), np.random.default_rng(0)
    mic = (0.01 * random.standard_normal(len(far))).astype(np.float32) + 0.3 * far
    used, fresh = KalmanEchoCanceller(FRAME, RATE), KalmanEchoCanceller(FRAME, RATE)
    used.process(mic, far)
    used.reset()
    assert used.reduction_db is None
    np.testing.assert_array_equal(used.process(mic, far), fresh.process(mic, far))


def test_silence_and_full_scale_stay_finite() -> None:
    canceller = KalmanEchoCanceller(FRAME, RATE)
    silence, loud = np.zeros(RATE // FRAME * FRAME, np.float32), np.ones(RATE // FRAME * FRAME, np.float32)
    for near, far in (
        (silence, silence),
        (loud, silence),
        (silence, loud),
        (100 * loud, 100 * loud),
        (silence, silence),
    ):
        assert np.isfinite(canceller.process(near, far)).all()
