"""The analysis on made-up recordings: a known delay, a known gap, a known outage."""

from __future__ import annotations

import numpy as np
import pytest

from streaming_encodec.bench.network.figures import Playback, Speech, delays_ms, figures, find_first_frame
from streaming_encodec.errors import StreamingEncodecError
from streaming_encodec.types import Pcm

RATE, FRAME = 24_000, 320
FIRST = 4_000_000
BEGIN_S = 1000.0
FRAME_S = FRAME / RATE

rng = np.random.default_rng(1)
CLEAN: Pcm = (0.1 * rng.standard_normal(40 * RATE)).astype(np.float32)


def speech(late: dict[int, float] | None = None) -> Speech:
    """40 s spoken in blocks of 20 ms; some were handed over late."""
    blocks = [
        {"first_sample": 480 * n, "samples": 480, "at_s": BEGIN_S + 0.02 * (n + 1) + (late or {}).get(n, 0.0)}
        for n in range(2000)
    ]
    return Speech.read(blocks, RATE)


def playback(
    frames: list[int | None], delay_s: float = 0.1, silent: bool = False, seconds_late: float = 0.0
) -> Playback:
    """What is heard: a block a frame, evenly, from `delay_s` after the first word on; None is a made-up one."""
    sound, blocks = [], []
    played = concealed = 0
    newest, heard_s = 0, 0.0
    for n, frame in enumerate(frames):
        due_s = BEGIN_S + delay_s + n * FRAME_S
        if frame is not None:
            newest, heard_s = FIRST + frame, due_s
            sound.append(CLEAN[frame * FRAME : (frame + 1) * FRAME])
        else:
            sound.append(np.full(FRAME, 0.0 if silent else 1e-3, np.float32))
            concealed += 0 if silent else FRAME
        played += 0 if frame is None and silent else FRAME
        speaker = {"frame": newest, "heard_s": heard_s, "played_samples": played, "concealed_samples": concealed}
        late_s = seconds_late if n % 7 == 3 else 0.0
        blocks.append({"first_sample": n * FRAME, "samples": FRAME, "at_s": due_s + late_s, "speakers": [speaker]})
    return Playback.read(blocks, np.concatenate(sound), RATE)


def test_a_steady_call_has_its_delay_and_nothing_else() -> None:
    heard = playback(list(range(2900)), delay_s=0.12)
    assert find_first_frame(heard, CLEAN) == (FIRST, 1.0)
    assert figures(heard, speech(), FIRST, None) == pytest.approx(
        {
            "concealed_percent": 0,
            "delay_p50_ms": 120,
            "delay_p95_ms": 120,
            "delay_max_ms": 120,
            "above_400_percent": 0,
            "longest_gap_ms": 0,
        },
        abs=1e-3,
    )


def test_lateness_of_the_programs_themselves_is_no_delay_of_the_voice() -> None:
    heard = playback(list(range(2900)), delay_s=0.12, seconds_late=0.3)
    assert delays_ms(heard, speech(dict.fromkeys(range(5, 1990, 4), 0.2)), FIRST) == pytest.approx(
        [120] * 2900, abs=1e-3
    )


def test_the_first_frame_is_found_though_the_beginning_was_lost() -> None:
    assert find_first_frame(playback(list(range(700, 2900))), CLEAN) == (FIRST, 1.0)


@pytest.mark.parametrize("silent", [False, True])
def test_a_gap_is_as_long_as_it_was_and_what_follows_is_older(silent: bool) -> None:
    heard = playback([*range(1000), *[None] * 75, *range(1000, 2900)], silent=silent)
    result = figures(heard, speech(), FIRST, None)
    assert result["longest_gap_ms"] == pytest.approx(1000)
    assert result["concealed_percent"] == pytest.approx(100 * 75 / 2975)
    assert result["delay_max_ms"] == pytest.approx(1100, abs=1)
    assert result["above_400_percent"] == pytest.approx(100 * 1900 / 2900)


def test_noise_after_the_last_word_is_no_gap() -> None:
    assert figures(playback([*range(2900), *[None] * 900]), speech(), FIRST, None)["longest_gap_ms"] == 0


def test_an_outage_is_followed_by_old_voice_and_then_by_recovery() -> None:
    """2 s without a line, 0.5 s more of nothing, 1 s of voice that is 2.5 s older, then a leap back to the present."""
    down = 1500
    frames = [*range(down), *[None] * 187, *range(down, down + 75), *range(down + 262, 2900)]
    begins_s = BEGIN_S + 0.1 + down * FRAME_S
    result = figures(playback(frames), speech(), FIRST, (begins_s, begins_s + 2))
    assert result["first_voice_s"] == pytest.approx(187 * FRAME_S - 2, abs=FRAME_S)
    assert result["oldest_voice_s"] == pytest.approx(0.1 + 187 * FRAME_S, abs=FRAME_S)
    assert result["recovered_s"] == pytest.approx((187 + 75) * FRAME_S - 2, abs=2 * FRAME_S)


def test_a_call_that_never_comes_back_has_not_recovered() -> None:
    begins_s = BEGIN_S + 0.1 + 1500 * FRAME_S
    result = figures(playback(list(range(1500))), speech(), FIRST, (begins_s, begins_s + 2))
    assert (result["first_voice_s"], result["recovered_s"], result["oldest_voice_s"]) == (None, None, None)


def test_a_recording_of_something_else_is_refused() -> None:
    other = np.random.default_rng(2).standard_normal(len(CLEAN)).astype(np.float32)
    with pytest.raises(StreamingEncodecError, match="could be recognised"):
        find_first_frame(playback(list(range(2900))), other)
    with pytest.raises(StreamingEncodecError, match="nothing of what was said was heard"):
        playback([None] * 100)


def test_a_time_line_that_is_wrong_is_found_out_by_the_recording() -> None:
    """Where the frames' numbers do not fit what is heard, the share of pieces that agree says so."""
    heard = playback([*range(1400), *range(1450, 2900)])
    heard.frame[1400:] -= 50
    assert find_first_frame(heard, CLEAN)[1] < 0.7
