"""A file at the pace of speech, on machines that stand still now and then."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming_encodec.voice.pace import LATE_S, FilePace
from streaming_encodec.voice.sender import StallMeter

RATE = 24_000
BLOCK = 480
BLOCK_S = BLOCK / RATE


def say(blocks: int, stalls: dict[int, float], drag_s: float = 0.0) -> tuple[FilePace, list[tuple[int, float]]]:
    """Blocks said, with when: the machine stands still before some, and takes its time for each."""
    pace, now_s, said = FilePace(RATE), 100.0, []
    for number in range(blocks):
        now_s += max(0.0, pace.wait_s(now_s))
        now_s += stalls.get(number, 0.0)
        if not pace.is_past(BLOCK, now_s):
            said.append((number, now_s - 100.0))
            now_s += drag_s
    return pace, said


def test_on_time_everything_is_said() -> None:
    pace, said = say(500, {})
    assert [number for number, _ in said] == list(range(500))
    assert said[-1][1] == pytest.approx(499 * BLOCK_S)
    assert (pace.stalls, pace.skipped_samples) == (0, 0)


def test_a_short_delay_is_caught_up() -> None:
    pace, said = say(500, {100: 0.3})
    assert len(said) == 500
    assert pace.stalls == 0


def test_after_a_stall_it_goes_on_from_now_and_counts_what_is_past() -> None:
    pace, said = say(500, {100: 4.0})
    numbers = [number for number, _ in said]
    assert numbers[:100] == list(range(100))
    first = numbers[100]
    assert first in (299, 300)  # by how the time is rounded
    assert numbers[100:] == list(range(first, 500))
    assert said[100][1] == pytest.approx(300 * BLOCK_S, abs=1.01 * BLOCK_S)
    assert pace.stalls == 1
    assert pace.skipped_samples == (first - 100) * BLOCK


def test_a_pipe_that_gave_nothing_for_long_has_lost_nothing() -> None:
    pace, now_s = FilePace(RATE), 100.0
    for number in range(100):
        if number == 50:
            now_s += 4.0
            pace.source_waited(4.0, now_s)
        now_s += max(0.0, pace.wait_s(now_s))
        assert not pace.is_past(BLOCK, now_s), number
    assert now_s == pytest.approx(104.0 + 99 * BLOCK_S, abs=2 * BLOCK_S)
    assert (pace.stalls, pace.skipped_samples) == (0, 0)


def test_a_stall_beyond_the_end_leaves_out_the_rest() -> None:
    pace, said = say(100, {50: 60.0})
    assert len(said) == 50
    assert pace.skipped_samples == 50 * BLOCK


@given(
    stalls=st.dictionaries(st.integers(0, 999), st.floats(0.0, 6.0), max_size=20),
    drag_s=st.floats(0.0, 2 * BLOCK_S),
)
def test_what_is_said_is_never_older_than_useful_nor_a_burst(stalls: dict[int, float], drag_s: float) -> None:
    """Also on a machine too slow for its sound, which is always late."""
    pace, said = say(1000, stalls, drag_s)
    assert len(said) * BLOCK + pace.skipped_samples == 1000 * BLOCK
    assert all(-1e-6 <= at_s - number * BLOCK_S <= LATE_S + 1e-6 for number, at_s in said)
    assert (pace.stalls > 0) == (pace.skipped_samples > 0)
    # So in any time no more is said than that time, and what a listener's buffer holds.
    for (_, begin_s), later in zip(said, range(50, len(said)), strict=False):
        assert said[later][1] - begin_s >= 50 * BLOCK_S - LATE_S - 1e-6


def gaps(meter: StallMeter, *chunks: tuple[float, int]) -> list[float]:
    return [round(meter.gap_s(samples, at_s), 3) for at_s, samples in chunks]


def test_who_speaks_without_pause_has_no_gap() -> None:
    chunks = [(10 + number * BLOCK_S, BLOCK) for number in range(100)]
    assert not any(gaps(StallMeter(RATE), *chunks))


def test_a_pause_is_noticed_with_the_next_sound() -> None:
    meter = StallMeter(RATE)
    assert gaps(meter, (10.0, BLOCK), (10.02, BLOCK), (14.04, BLOCK), (14.06, BLOCK)) == [0, 0, 4.0, 0]
    assert gaps(meter, (14.4, BLOCK)) == [0]  # a short one is the network's everyday
    meter.restart()
    assert gaps(meter, (30.0, BLOCK)) == [0]


def test_sound_that_comes_in_bursts_has_no_gap_before_it_has_passed() -> None:
    assert gaps(StallMeter(RATE), (10.0, RATE), (10.0, RATE), (11.9, RATE), (16.0, RATE)) == [0, 0, 0, 3.0]


def test_a_clock_that_stands_still_has_no_gaps() -> None:
    assert not any(gaps(StallMeter(RATE), *[(7.0, BLOCK)] * 50))
