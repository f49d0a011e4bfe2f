"""A call over a loudspeaker in simulated rooms: the echo goes, the voice in the room stays."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import soundfile
from pystoi import stoi

from streaming_encodec.audio.low_delay import LowDelayResampler
from streaming_encodec.bench.echo import FRAME, RATE, EchoCall, at_the_microphone, echo_tables, kept, measure, speech
from streaming_encodec.bench.room import ROOMS, Room, SimulatedRoom
from streaming_encodec.live.echo import KalmanEchoCanceller


def clip(seconds: float, from_s: float = 0.0) -> np.ndarray:
    """The bundled speech, over and over, [n]."""
    return speech(None, seconds, from_s) * np.float32(0.5)


def reduction_db(before: np.ndarray, after: np.ndarray, from_s: float, to_s: float) -> float:
    part = slice(round(from_s * RATE), round(to_s * RATE))
    return float(10 * np.log10(np.sum(before[part] ** 2) / np.sum(after[part] ** 2)))


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
    call = EchoCall(room, clip(14), rates, ppm)
    assert call.reduction_db(3, 6) > 20
    assert call.reduction_db(10, 13.5) > 30
    assert call.echo.reduction_db is not None
    assert call.echo.reduction_db > 25
    assert call.card.counts.underruns == 0
    assert call.card.drift_ppm == pytest.approx(ppm[0] - ppm[1], abs=16)


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_who_speaks_at_the_same_time_is_heard(room: Room) -> None:
    """The near voice as it arrives at the microphone, louder than the far end's echo, from the sixth second."""
    near = at_the_microphone(room, clip(12, from_s=2.3) * np.float32(0.8))
    near[: 6 * RATE] = 0
    was, heard = kept(EchoCall(room, clip(12), (RATE, RATE), (100.0, 0.0), near), near, 7, 11)
    kept_db = 20 * np.log10(np.dot(was, heard) / np.dot(was, was))
    assert -6 < kept_db < 0.5
    assert stoi(was, heard, RATE) > 0.85


def test_the_bench_reads_and_writes_files(tmp_path: Path) -> None:
    """Another rate than the codec's, and stereo; what is saved gives the figures again."""
    far, near = tmp_path / "far.wav", tmp_path / "near.wav"
    sound = LowDelayResampler(RATE, 48_000).push(clip(6)[None])[0]
    soundfile.write(far, np.stack([sound, sound], axis=1), 48_000)
    soundfile.write(near, clip(6, from_s=2.3), RATE)
    figures = measure(far, near, tmp_path / "saved", rooms=ROOMS[:1], drifts_ppm=(100.0,))
    (run,) = figures["runs"]
    assert run["erle_db_3_s"] > 20
    assert run["erle_db_10_s"] > 30
    assert -6 < run["near_level_db"] < 0.5
    assert run["near_stoi"] > 0.85
    assert figures["added_delay_ms"] == pytest.approx(64 / 24, abs=0.1)
    assert 0 < figures["core_share"]["canceller"] < 1
    saved = [
        soundfile.read(tmp_path / "saved" / f"laptop_+100ppm_alone_{part}.wav")[0] for part in ("microphone", "sent")
    ]
    # Not from 10 s: what is left then is as soft as the steps of 16 bits.
    assert reduction_db(*saved, 3, 6) == pytest.approx(run["erle_db_3_s"], abs=0.2)
    assert all(len(row) == len(table.columns) for table in echo_tables(figures) for row in table.rows)


def test_without_an_echo_the_voice_passes() -> None:
    """Nobody hears the loudspeaker here; the voice is late by the canceller's delay."""
    silent = dataclasses.replace(ROOMS[0], echo_db=-120.0)
    near = clip(8, from_s=1.0)
    call = EchoCall(silent, clip(8), near=near)
    delay = call.echo.delay_samples
    assert 1000 * delay / RATE < 10
    heard, was = call.sent[4 * RATE + delay : 7 * RATE], near[4 * RATE : 7 * RATE][: 3 * RATE - delay]
    assert np.argmax(np.correlate(heard[:RATE], was[: RATE - 200], "valid")) <= 1


def test_without_an_echo_the_voice_is_hardly_changed() -> None:
    """One part of the clip has 9 dB, another 11, so it is the mean of many."""
    far, random = clip(8), np.random.default_rng(1)
    changed_db = []
    for from_s in np.arange(0.3, 8.0, 0.5):
        near, canceller = clip(8, from_s), KalmanEchoCanceller(FRAME, RATE)
        sent = canceller.process(near + (1e-4 * random.standard_normal(len(near))).astype(np.float32), far)
        delay = canceller.delay_samples
        was, heard = near[4 * RATE : 7 * RATE - delay], sent[4 * RATE + delay : 7 * RATE]
        changed_db.append(10 * np.log10(np.sum(was**2) / np.sum((heard - was) ** 2)))
    assert np.mean(changed_db) > 9.7


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
