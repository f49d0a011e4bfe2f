"""How likely it is that somebody speaks: WebRTC's recurrent network, from the package `pywebrtc-audio`."""

from __future__ import annotations

import numpy as np

from streaming_encodec.types import Pcm
from streaming_encodec.voice.vad import SpeechDetector

_CELL_S = 0.010


class WebRtcSpeech:
    """The detector that WebRTC's gain control decides by; a fan or a keyboard does not deceive it as they do a level.

    sample_rate: in Hz. Raises ImportError where the package can't be loaded.
    """

    def __init__(self, sample_rate: int) -> None:
        from pywebrtc_audio import AudioProcessor

        # Only with gain control does it run the network; what it makes of the sound is thrown away.
        self._processor = AudioProcessor(sample_rate=sample_rate, auto_gain_control=True)
        self._cell = round(_CELL_S * sample_rate)
        self._held: Pcm = np.zeros(0, np.float32)
        self._last = 0.0

    def probability(self, pcm: Pcm) -> float:
        """See `SpeechDetector`."""
        sound = np.concatenate([self._held, pcm])
        whole = len(sound) // self._cell * self._cell
        if whole:
            self._processor.process(sound[:whole])
            self._last = float(self._processor.speech_probability)
        self._held = sound[whole:]
        return self._last


def find_speech_detector(sample_rate: int) -> SpeechDetector | None:
    """None where the package is missing: then a level decides."""
    try:
        return WebRtcSpeech(sample_rate)
    except ImportError:
        return None
