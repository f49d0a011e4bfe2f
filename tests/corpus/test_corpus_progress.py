"""How far a corpus is, in words: hours of sound, their rate, and what is left."""

from __future__ import annotations

import pytest

from streaming_encodec.cli.shared.corpus_progress import corpus_progress, progress_text
from streaming_encodec.corpus.encode import Progress

HOUR = 3600.0


def test_what_is_left_follows_from_the_seconds_where_these_are_known() -> None:
    now = Progress(10, 1000, 2 * HOUR, 8 * HOUR)
    assert progress_text(now, 120.0) == "2.0 of 8.0 h of sound, 60 h an hour, 6 min 00 s left"
    assert progress_text(Progress(1000, 1000, 8 * HOUR, 8 * HOUR), 480.0).endswith("0.00 s left")


def test_else_it_follows_from_the_recordings() -> None:
    now = Progress(250, 1000, 1 * HOUR, None)
    assert progress_text(now, 60.0) == "1.0 of about 4.0 h of sound, 60 h an hour, 3 min 00 s left"
    assert progress_text(Progress(0, 1000, 0.0, None), 60.0) == ""
    assert "left" in progress_text(Progress(5, 10, 0.0, None), 10.0)  # all broken, or of no length


def test_a_log_gets_a_line_a_minute(capsys: pytest.CaptureFixture[str]) -> None:
    now_s = 1000.0
    with corpus_progress(lambda: now_s) as show:
        for second in range(0, 181, 10):
            now_s = 1000.0 + second
            show(Progress(second, 1000, second * 60.0, None))
    written = [line for line in capsys.readouterr().err.splitlines() if line]
    assert [line.split(" recordings")[0] for line in written] == [
        "note: 60 of 1000",
        "note: 120 of 1000",
        "note: 180 of 1000",
    ]
    assert "60 h an hour" in written[0]
