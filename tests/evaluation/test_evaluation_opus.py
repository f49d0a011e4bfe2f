"""The Opus baseline: aligned, at its rate, and its concealment runs."""

from __future__ import annotations

import numpy as np
import pytest
from evaluation_kit import RATE, speech

from streaming_encodec.errors import MissingExtraError, StreamError
from streaming_encodec.evaluation import opus as opus_module
from streaming_encodec.evaluation.clips import Clip
from streaming_encodec.evaluation.opus import Opus


@pytest.fixture
def opus() -> Opus:
    try:
        return Opus()
    except MissingExtraError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("kbps", [6.0, 12.0, 24.0])
def test_rate_length_and_alignment(opus: Opus, kbps: float) -> None:
    clip = speech()
    stream = opus.encode(clip.samples, RATE, kbps)
    out = opus.decode(stream)
    assert out.shape == clip.samples.shape
    assert stream.kbps == pytest.approx(kbps, rel=0.25)
    shifts = range(-120, 121)
    match = [float(np.dot(np.roll(out, shift), clip.samples)) for shift in shifts]
    assert abs(shifts[int(np.argmax(match))]) <= 12, "the encoder's delay is taken out, to half a millisecond"


def test_constant_rate_is_constant(opus: Opus) -> None:
    stream = opus.encode(speech(2.0).samples, RATE, 12.0, vbr=False)
    assert {len(packet) for packet in stream.packets} == {30}


def test_lost_packets_are_concealed(opus: Opus) -> None:
    clip = speech()
    stream = opus.encode(clip.samples, RATE, 12.0)
    lost = np.zeros(len(stream.packets), np.bool_)
    assert np.array_equal(opus.decode(stream, lost), opus.decode(stream))
    lost[100:102] = True
    out, whole = opus.decode(stream, lost), opus.decode(stream)
    start = 100 * stream.packet_samples - stream.delay_samples
    assert np.array_equal(out[:start], whole[:start])
    gap = slice(start, start + 2 * stream.packet_samples)
    assert not np.array_equal(out[gap], whole[gap])
    assert np.isfinite(out).all()
    assert np.abs(out[gap]).max() > 0, "concealed, not muted"


def test_a_rate_that_opus_has_not(opus: Opus) -> None:
    with pytest.raises(StreamError, match="not 44100: resample first"):
        opus.encode(np.zeros(100, np.float32), 44_100, 6.0)


def test_without_libopus(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(opus_module.ctypes.util, "find_library", lambda name: None)
    monkeypatch.setattr(opus_module, "package_folder", lambda *_: tmp_path / "av")
    with pytest.raises(MissingExtraError, match="needs libopus: install it"):
        Opus()


def test_silence_stays_silent(opus: Opus) -> None:
    clip = Clip("silence", np.zeros(RATE, np.float32), RATE)
    assert np.abs(opus.decode(opus.encode(clip.samples, RATE, 6.0))).max() < 1e-3
