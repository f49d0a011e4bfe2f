"""Where a detector of speech is installed, a fan and a keyboard do not open the line, and a voice does."""

from __future__ import annotations

import numpy as np
import soundfile

from streaming_encodec.audio.files.bundled import bundled_clip
from streaming_encodec.call.speech import WebRtcSpeech
from streaming_encodec.voice.vad import VoiceActivityDetector

RATE, FRAME = 24_000, 320


def open_share(sound: np.ndarray, speech: bool) -> float:
    """Of the frames after the first second."""
    vad = VoiceActivityDetector(FRAME / RATE, speech=WebRtcSpeech(RATE) if speech else None)
    silent = [vad.is_silent(sound[at : at + FRAME]) for at in range(0, len(sound) - FRAME, FRAME)]
    return 1 - float(np.mean(silent[75:]))


def test_typing_and_a_fan_do_not_open_the_line() -> None:
    random, seconds = np.random.default_rng(0), 8
    typing = (1e-3 * random.standard_normal(seconds * RATE)).astype(np.float32)
    for at in range(0, len(typing) - 600, 4000):
        key = 0.3 * random.standard_normal(600) * np.exp(-np.arange(600) / 100)
        typing[at : at + 600] += key.astype(np.float32)
    fan = (1e-3 * random.standard_normal(seconds * RATE)).astype(np.float32)
    fan[RATE:] *= 20
    assert open_share(typing, speech=False) > 0.9
    assert open_share(fan, speech=False) > 0.5
    assert open_share(typing, speech=True) < 0.15
    assert open_share(fan, speech=True) < 0.25  # its first second startles the detector


def test_a_voice_opens_the_line() -> None:
    clip, _ = soundfile.read(bundled_clip(), dtype="float32")
    assert open_share(clip, speech=True) > 0.9 * open_share(clip, speech=False)
