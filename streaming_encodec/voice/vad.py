"""Voice activity detection (VAD): little is sent while nobody speaks (DTX)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from streaming_encodec.types import Pcm


class SpeechDetector(Protocol):
    """Follows a stream, frame by frame."""

    def probability(self, pcm: Pcm) -> float:
        """Of speech at the end of these samples, [n], 0 to 1."""
        ...


@dataclass(frozen=True, slots=True)
class VadSettings:
    """Thresholds, in decibels of mean square to full scale, and times.

    margin_db: how far speech is above the room, at least. floor_db: anything below this is silence.
    hangover_s: how long after the last loud frame sound still counts as speech, to keep word ends and short pauses.
    rise_db_per_s: how fast the estimate of the room's level rises. speech: the least probability, where a detector of
    speech says it.
    """

    margin_db: float = 9.0
    floor_db: float = -65.0
    hangover_s: float = 0.3
    rise_db_per_s: float = 3.0
    speech: float = 0.8


class VoiceActivityDetector:
    """Follows the room's level by its quietest frames, and tells frames of speech from frames of the room alone.

    speech: what is loud must also be likely to be speech, so that typing and fans do not open the line; None asks the
    level alone.
    """

    def __init__(
        self, frame_seconds: float, settings: VadSettings | None = None, speech: SpeechDetector | None = None
    ) -> None:
        self._speech = speech
        self.settings = settings or VadSettings()
        self._rise = self.settings.rise_db_per_s * frame_seconds
        self._hangover = round(self.settings.hangover_s / frame_seconds)
        self._room_db: float | None = None
        self._left = self._hangover

    def is_silent(self, pcm: Pcm) -> bool:
        """pcm: one frame, any shape, full scale 1. The first frames count as speech."""
        power = float(np.mean(np.square(pcm, dtype=np.float64))) if pcm.size else 0.0
        level = 10 * float(np.log10(max(power, 1e-12)))
        if self._room_db is None:
            self._room_db = min(level, self.settings.floor_db + 20)
        # Digital silence is no room: after it, the estimate must reach a microphone's level within seconds.
        self._room_db = max(min(level, self._room_db + self._rise), self.settings.floor_db - 20)
        loud = level > max(self._room_db + self.settings.margin_db, self.settings.floor_db)
        # The detector is asked about every frame: it follows the stream.
        if self._speech is not None and self._speech.probability(pcm.reshape(-1)) < self.settings.speech:
            loud = False
        if loud:
            self._left = self._hangover
        elif self._left:
            self._left -= 1
        return not loud and self._left == 0
