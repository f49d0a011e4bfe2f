"""The bad network that good ones are tried with, and the delay that playout aims at beside a sound card."""

from __future__ import annotations

import numpy as np
import pytest

from streaming_encodec.errors import StreamError
from streaming_encodec.voice.delay import DelayEstimator, DelaySettings
from streaming_encodec.voice.network import NetworkImpairment

FRAME_S = 1 / 75


def through(impairment: NetworkImpairment, packets: int = 4000) -> dict[int, float]:
    """How long each of these packets took; those that were lost are missing."""
    took = {}
    for number in range(packets + 1000):
        now = number / 75
        if number < packets:
            impairment.enter(number.to_bytes(4, "little"), now)
        for moment, data in impairment.leave(now):
            assert moment <= now
            took[int.from_bytes(data, "little")] = moment - int.from_bytes(data, "little") / 75
    return took


def test_an_impairment_without_settings_is_none() -> None:
    took = through(NetworkImpairment())
    assert len(took) == 4000
    assert max(took.values()) == 0


def test_loss_and_jitter_are_what_was_asked_for() -> None:
    took = through(NetworkImpairment(loss=0.1, jitter_ms=20.0))
    assert 1 - len(took) / 4000 == pytest.approx(0.1, abs=0.03)
    assert np.mean(list(took.values())) == pytest.approx(0.020, rel=0.1)
    assert through(NetworkImpairment(0.1, 20.0, seed=3)) == through(NetworkImpairment(0.1, 20.0, seed=3)) != took


def test_settings_change_on_the_way() -> None:
    impairment = NetworkImpairment(loss=0.5)
    for number in range(200):
        impairment.enter(b"x", number / 75)
    lost = 200 - len(impairment.leave(10.0))
    assert 50 < lost < 150
    impairment.set(0.0, 0.0)
    for number in range(200):
        impairment.enter(b"x", 10 + number / 75)
    assert len(impairment.leave(20.0)) == 200


def target_after(jitter_frames: float, settings: DelaySettings) -> float:
    """Every second packet is late by so much, for ten seconds."""
    estimator = DelayEstimator(FRAME_S, settings)
    for number in range(750):
        estimator.on_packet(number, number + jitter_frames * (number % 2))
    return estimator.target_frames


@pytest.mark.parametrize("jitter_frames", [0.1, 0.4, 0.6, 0.8, 1.3, 2.6])
def test_finer_bins_aim_closer_and_still_behind_the_latest(jitter_frames: float) -> None:
    coarse = target_after(
        jitter_frames, DelaySettings(minimum_frames=1, initial_frames=2, bins_per_frame=1, spare_frames=1)
    )
    fine = target_after(jitter_frames, DelaySettings(minimum_frames=0.5, initial_frames=2))
    assert coarse == np.ceil(jitter_frames - 0.05) + 1
    assert fine < coarse
    # Playout may lag behind the target by half a frame before it does something about it.
    assert fine - 0.5 >= jitter_frames


def test_a_call_is_on_trial_before_the_target_falls_below_the_first() -> None:
    def target(seconds: float) -> float:
        estimator = DelayEstimator(FRAME_S, DelaySettings(minimum_frames=0.5, initial_frames=2.5, trial_buckets=4))
        for number in range(round(seconds / FRAME_S)):
            estimator.on_packet(number, float(number))
        return estimator.target_frames

    assert target(2.4) == 2.5
    assert target(2.6) == 0.5


def test_less_than_a_frame_may_be_enough() -> None:
    fine = DelaySettings(minimum_frames=0.5, initial_frames=1, bins_per_frame=8, spare_frames=0.125)
    assert target_after(0.0, fine) == 0.5
    assert target_after(0.6, fine) == 0.75
    with pytest.raises(StreamError, match="0 < minimum"):
        DelaySettings(minimum_frames=0)


def test_longer_packets_are_no_jitter() -> None:
    estimator = DelayEstimator(FRAME_S, DelaySettings())
    for first in range(0, 750, 2):
        estimator.on_packet(first, first + 2.0, 2)
    short, target = estimator.base, estimator.target_frames
    for first in range(750, 1500, 6):
        estimator.on_packet(first, first + 6.0, 6)
        assert estimator.base == short + 4  # at once: the first frame of each leaves so much later
    assert estimator.target_frames == target
    estimator.on_packet(1500, 1503.0, 3)  # the last one before a pause
    assert estimator.base == short + 4


def test_a_queue_that_grows_is_not_remembered_as_jitter() -> None:
    estimator = DelayEstimator(FRAME_S, DelaySettings())
    for number in range(750):
        queue = max(0.0, min(number - 375, 75) * 0.2) if number < 525 else 0.0
        estimator.on_packet(number, number + queue)
    assert estimator.target_frames == 2.0


def test_what_redundancy_brings_late_is_waited_for_as_the_quantile_says() -> None:
    def target(quantile: float, late: int = 11) -> float:
        estimator = DelayEstimator(FRAME_S, DelaySettings(quantile=quantile))
        for number in range(3000):
            estimator.on_packet(number, float(number))
            if number % 375 == 10:  # one half second in ten
                estimator.on_repair(number - late, float(number))
        return estimator.target_frames

    # A stall as long as that would be held against both once it came twice in half a minute.
    assert target(0.95) == pytest.approx(11.5)
    assert target(0.85) == 2.0
    assert target(0.95, late=15) == pytest.approx(12.5)  # and no longer than that


def test_what_redundancy_brings_late_is_waited_for_at_once_and_longer_where_it_often_does() -> None:
    estimator = DelayEstimator(FRAME_S, DelaySettings())
    waits = []
    for number in range(300):
        estimator.on_packet(number, float(number))
        if number % 38 == 20:  # in each half second
            before = estimator.target_frames
            estimator.on_repair(number - 15, float(number))
            waits.append((before, estimator.target_frames))
    assert waits[0] == (pytest.approx(2.5, abs=0.5), 12.5)
    assert all(after >= before >= 12.5 for before, after in waits[1:])  # until the half second is learned, too
    assert waits[3][1] == pytest.approx(15.5)


def test_a_quantile_lies_between_0_and_1() -> None:
    with pytest.raises(StreamError, match="between 0 and 1, not at 1"):
        DelaySettings(quantile=1.0)


@pytest.mark.parametrize("wrong", [{"bins_per_frame": 0}, {"bins_per_frame": 17}, {"spare_frames": -0.1}])
def test_settings_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(StreamError, match="1 to 16 bins a frame"):
        DelaySettings(**wrong)  # type: ignore[arg-type]
