"""What a live command remembers of a call, and what it says of it at the end."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from device_kit import FakeBackend
from rich.console import Console

from streaming_encodec.audio.devices.card import SoundCard
from streaming_encodec.audio.devices.side import CardCounts
from streaming_encodec.cli.shared.live_view import History, panel, summary
from streaming_encodec.live.feedback import FeedbackSuppressor
from streaming_encodec.live.figures import CallFigures
from streaming_encodec.live.loop import LiveLoop
from streaming_encodec.wire.packet import StreamFormat


class Line:
    """A line whose figures are what the test says."""

    format, packet_samples = StreamFormat("0" * 32), 320

    def __init__(self) -> None:
        self.now = CallFigures()

    def send(self, pcm: np.ndarray) -> None: ...

    def on_packet(self, observer: Callable[[bytes, float], object]) -> None: ...

    def read_whole(self, count: int, now_s: float, *, certain: bool) -> np.ndarray | None:
        return None if certain else np.zeros((1, count), np.float32)

    def figures(self) -> CallFigures:
        return self.now


def test_looks_become_a_history_and_the_bitrate_is_that_of_the_last_seconds() -> None:
    line = Line()
    loop = LiveLoop(SoundCard(24_000, backend=FakeBackend()), line, line, line.figures)
    history = History()
    history.look(0.1, loop)
    assert history.seconds == []  # nothing was played yet
    for i in range(1, 101):
        bits = 6_000 * i // 10 if i <= 50 else 30_000  # 6 kbps for five seconds, and then nothing
        line.now = CallFigures(payload_bits=bits, buffer_ms=float(i), skipped_frames=7)
        look = history.look(0.1 + i / 10, loop)
        if i == 50:
            assert look.payload_kbps == pytest.approx(6.0, abs=0.1)
    assert look.payload_kbps == pytest.approx(0.0, abs=0.01)
    assert history.seconds == pytest.approx([0.1 + i / 10 for i in range(1, 101)])
    assert history.parts["buffer"] == list(range(1, 101))
    facts = history.facts(loop, 10.0, CardCounts(underruns=3))
    assert facts["underruns"] == 3
    assert facts["delay_ms"]["buffer"] == pytest.approx(50, abs=1)
    rest = loop.deadline_ms
    assert facts["mouth_to_ear_ms_p95"] == pytest.approx(96 + rest, abs=1.5)
    first, middle, last = facts["mouth_to_ear_ms_by_third"]
    assert first < middle < last
    assert last == pytest.approx(83 + rest, abs=2)
    assert "7 frames left out" in summary(facts)["losses"]
    console = Console(width=80, file=io.StringIO())
    console.print(panel(look, "6 kbps", "q quit"))
    picture = console.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in picture  # it fits an ordinary terminal
    for row in ("6 kbps", "100 ms, aims at 0 ms", "mic 0 + echo 0 + packet 13", "7 left out", "0 underruns", "q quit"):
        assert row in picture


def test_as_long_as_the_speaker_is_turned_down_this_is_said() -> None:
    line, suppressor = Line(), FeedbackSuppressor(24_000)
    loop = LiveLoop(SoundCard(24_000, backend=FakeBackend()), line, line, line.figures, feedback=suppressor)
    assert History().look(1.0, loop).warnings == ()
    tone = 0.15 * np.sin(2 * np.pi * 1000 * np.arange(14_400) / 24_000).astype(np.float32)
    suppressor.process(tone[None])
    assert "turned down to 0 %" in History().look(1.0, loop).warnings[0]
    for _ in range(50):
        suppressor.process(np.zeros((1, 2_400), np.float32))
    assert "turned down to 50 %" in History().look(1.0, loop).warnings[0]
