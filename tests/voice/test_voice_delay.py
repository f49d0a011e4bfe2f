"""The delay target: jitter is learned, a lone stall is not, a queue that grows is covered, then forgotten."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from streaming_encodec.voice.delay import DelayEstimator, DelaySettings

FRAME_S = 1 / 75


def targets(extra_s: Callable[[float], float], seconds: float, settings: DelaySettings | None = None) -> list[float]:
    """The target in frames after each second, of packets of one frame that are so late by the time they were sent."""
    estimator = DelayEstimator(FRAME_S, settings or DelaySettings())
    arrivals = sorted((number * FRAME_S + extra_s(number * FRAME_S), number) for number in range(int(75 * seconds)))
    found: list[float] = []
    for at_s, number in arrivals:
        while at_s >= len(found) + 1:
            found.append(estimator.target_frames)
        estimator.on_packet(number, at_s / FRAME_S)
    return found


def stall(begin_s: float, length_s: float) -> Callable[[float], float]:
    """Nothing comes for a while, then all of it at once."""
    return lambda at_s: max(0.0, begin_s + length_s - at_s) if at_s >= begin_s else 0.0


def test_a_lone_stall_does_not_count_and_a_second_one_does() -> None:
    once, twice = stall(10.0, 0.6), stall(20.0, 0.6)
    assert max(targets(once, 40.0)) <= 3
    both = targets(lambda at_s: max(once(at_s) if at_s < 15.0 else 0.0, twice(at_s)), 40.0)
    assert max(both[:20]) <= 3
    assert both[22] == DelaySettings().maximum_frames


@pytest.mark.parametrize("seconds", [1.0, 2.0])
def test_a_queue_that_grows_is_covered_while_it_does(seconds: float) -> None:
    grows = targets(lambda at_s: 0.4 * min(max(0.0, at_s - 10.0), seconds), 30.0)
    assert grows[9] <= 3
    assert max(grows[11:15]) > 10  # against the fastest of the last two seconds it is late by up to 0.8 s
    assert max(grows[19:]) <= 3 + 6  # what is no higher than jitter may be learned as such


def test_a_queue_that_stands_leaves_less_time_to_wait_for_stalls() -> None:
    def extra_s(queue_s: float) -> Callable[[float], float]:
        stalls = [stall(begin_s, 1.2) for begin_s in (20.0, 24.0)]

        def late_s(at_s: float) -> float:
            stalled_s = max((one(at_s) for one in stalls if at_s < 24.0 or one is stalls[1]), default=0.0)
            return max(stalled_s, queue_s if at_s > 10.0 else 0.0)

        return late_s

    assert targets(extra_s(0.0), 30.0)[-1] == 30
    assert targets(extra_s(0.1), 30.0)[-1] == 30
    assert targets(extra_s(0.4), 30.0)[-1] == pytest.approx(30 + 10 - 0.4 / FRAME_S)
    assert targets(extra_s(0.4), 30.0, DelaySettings(free_queue_frames=30))[-1] == 30


def test_the_blocks_of_a_sender_are_known_from_the_first_one_on() -> None:
    """Three packets at once every three frames: the first of them is two frames old, and so is never late."""
    estimator = DelayEstimator(1 / 75, DelaySettings(minimum_frames=0.5, initial_frames=1, spare_frames=0))
    for block in range(10):
        for frame in range(3):
            estimator.on_packet(3 * block + frame, 3.0 * block + 3)
        assert estimator.target_frames == 2


def test_a_stall_in_the_first_half_second_is_no_block() -> None:
    estimator = DelayEstimator(1 / 75, DelaySettings())
    for frame in range(10):
        estimator.on_packet(frame, float(frame))
    estimator.on_packet(10, 25.0)
    assert estimator.target_frames == DelaySettings().initial_frames
