"""The reference of echo cancellation: what was handed to the speaker, in step with the microphone."""

from __future__ import annotations

import numpy as np
import pytest
from device_kit import Clock, FakeBackend

from streaming_encodec.audio.devices.card import SoundCard
from streaming_encodec.audio.devices.port import Port
from streaming_encodec.audio.devices.reference import Reference

RATE, BLOCK = 24_000, 240


class Duplex:
    """Both devices call back every 10 ms; the speaker's number n in the order of samples is worth n."""

    def __init__(self, latency_s: float = 0.015) -> None:
        self.clock, self.backend, self._latency_s = Clock(), FakeBackend(), latency_s
        self.card = SoundCard(RATE, backend=self.backend, clock=self.clock)
        self.numbered = 0
        self.reference: list[np.ndarray] = []

    def turn(self, callbacks: int, *, write: bool = True) -> None:
        for _ in range(callbacks):
            self.clock.now += BLOCK / RATE
            if write:
                self.card.write(np.arange(self.numbered, self.numbered + BLOCK, dtype=np.float32)[None])
                self.numbered += BLOCK
            self.backend.stream("output").turn(BLOCK, latency_s=self._latency_s)
            self.backend.stream("input").turn(np.zeros((BLOCK, 1), np.float32), latency_s=self._latency_s)
            near, far = self.card.read_with_reference()
            assert near.shape == far.shape
            self.reference.append(far[0])


def test_the_reference_goes_ahead_of_its_echo() -> None:
    """Sample n of the microphone hears what was played 30 ms ago; the reference is 20 ms ahead of that."""
    duplex = Duplex()
    duplex.turn(200)
    # The first call of the microphone came before there was a reference.
    np.testing.assert_array_equal(duplex.reference[-1], np.arange(BLOCK) + 199 * BLOCK - 0.010 * RATE)
    assert duplex.card.drift_ppm == 0


def test_what_the_speaker_lacked_is_silent_in_the_reference() -> None:
    duplex = Duplex()
    duplex.turn(100)
    duplex.turn(1, write=False)
    duplex.turn(5)
    played = np.concatenate(duplex.reference)
    gap = np.flatnonzero(played == 0)
    assert len(gap[gap > 50 * BLOCK]) == BLOCK
    after = np.concatenate(duplex.reference[-3:])
    assert (np.diff(after) == 1).all()  # and what came after it is in its place


def test_a_device_that_comes_back_has_a_reference_of_its_own() -> None:
    duplex = Duplex()
    duplex.turn(100)
    before = duplex.card.changes
    duplex.backend.stream("output").active = False
    duplex.card.maintain()
    assert duplex.card.changes == before + 1
    near, far = duplex.card.read_with_reference()
    assert near.shape == far.shape
    assert not far.any()
    duplex.clock.now += 2
    duplex.card.maintain()
    assert duplex.card.changes == before + 2
    duplex.reference = []
    duplex.turn(100)
    assert (np.diff(duplex.reference[-1]) == 1).all()


@pytest.mark.parametrize("latency_s", [0.001, 0.2])
def test_no_latency_makes_it_read_what_was_not_played_yet(latency_s: float) -> None:
    duplex = Duplex(latency_s)
    duplex.turn(300)
    assert (np.diff(np.concatenate(duplex.reference[-100:])) == 1).all()


@pytest.mark.parametrize("ppm", [-3000.0, -100.0, -7.0, 7.0, 100.0, 3000.0])
@pytest.mark.parametrize("count", [1, 333, 640, 2000])
def test_between_two_samples_a_tone_keeps_its_phase(ppm: float, count: int) -> None:
    """Read at a drift, in blocks of any size: the tone, at the place of each sample."""
    speaker, microphone = Port("output", RATE, 1), Port("input", RATE, 1)
    reference = Reference(microphone, speaker, RATE)
    omega = 2 * np.pi * 2000 / RATE
    reference._far = np.sin(omega * np.arange(8000)).astype(np.float32)
    reference.drift, position = 1e-6 * ppm, 100.3
    for _ in range(3):
        read = reference._cut(count, position)
        places = position + (1 + reference.drift) * np.arange(count)
        np.testing.assert_allclose(read, np.sin(omega * places), atol=2e-3)
        assert reference._position == pytest.approx(position + (1 + reference.drift) * count)
        position = reference._position
    assert reference.realigned == 0


def test_nobody_who_wants_no_reference_pays_for_it() -> None:
    port = Port("output", RATE, 1)
    port.ring.write(np.ones((BLOCK, 1), np.float32))
    port.fill_block(np.zeros((BLOCK, 1), np.float32), 0.0, False)
    assert port.played.written == 0
    port.remember(True)
    port.fill_block(np.zeros((BLOCK, 1), np.float32), 0.0, False)
    assert port.played.written == BLOCK


def test_a_moment_is_of_one_callback() -> None:
    """What a callback has begun and not ended is not looked at: the next look waits for it."""
    clock = Clock()
    port = Port("input", RATE, 1, clock=clock)
    clock.now = 3.0
    port.take_block(np.zeros((BLOCK, 1), np.float32), 0.004, False)
    assert port.moment() == (BLOCK, 3.0, 0.004)
