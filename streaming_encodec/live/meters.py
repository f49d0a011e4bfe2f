"""Small meters: levels that fall slowly, percentiles of what was lately, and delay by part."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, fields

import numpy as np

from streaming_encodec.types import Pcm

_FALL_DB_PER_S = 20.0
FLOOR_DB = -90.0
_MOST_UNSEEN = 16
"""Blocks, a fifth of a second of frames."""


class LevelMeter:
    """Peak level in decibels below full scale: up at once, down 20 dB a second, as programme meters do.

    Sound is looked at when somebody looks at the meter, or when much has come: a look at each frame costs more.
    """

    def __init__(self, sample_rate: int) -> None:
        self._rate = sample_rate
        self._peak_db = FLOOR_DB
        self._unseen: list[Pcm] = []

    def add(self, pcm: Pcm) -> None:
        """Take in [C, n], which must stay as it is."""
        self._unseen.append(pcm)
        if len(self._unseen) >= _MOST_UNSEEN:
            self._look()

    @property
    def peak_db(self) -> float:
        """Now."""
        self._look()
        return self._peak_db

    def _look(self) -> None:
        unseen, self._unseen = self._unseen, []
        if not unseen:
            return
        sound = np.concatenate(unseen, axis=1)
        peak = float(max(sound.max(), -sound.min())) if sound.size else 0.0
        level = 20 * math.log10(peak) if peak > 0 else FLOOR_DB
        fallen = self._peak_db - _FALL_DB_PER_S * sound.shape[1] / self._rate
        self._peak_db = max(FLOOR_DB, level, fallen)


def percentile(values: Collection[float], percent: float) -> float:
    """The value that ``percent`` of all do not exceed; 0 of none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return float(ordered[math.ceil(percent / 100 * (len(ordered) - 1))])


@dataclass(frozen=True, slots=True)
class Delays:
    """From mouth to ear, each part in milliseconds.

    packet_ms: the wait until a packet's frames are full, for the first sample. buffer_ms: the jitter buffer, the wait
    of a full packet for the card's block to end included. speaker_ms: the wait for the card to take it, and the card
    itself. echo_ms: echo cancellation, and noise suppression and gain where they are on.
    """

    microphone_ms: float
    echo_ms: float
    packet_ms: float
    encode_ms: float
    network_ms: float
    buffer_ms: float
    decode_ms: float
    speaker_ms: float

    @property
    def total_ms(self) -> float:
        """The sum."""
        return float(sum(getattr(self, field.name) for field in fields(self)))

    def parts(self) -> dict[str, float]:
        """By name, in the order of the way."""
        return {field.name.removesuffix("_ms"): float(getattr(self, field.name)) for field in fields(self)}
