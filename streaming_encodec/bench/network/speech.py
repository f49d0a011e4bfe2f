"""What is said in the laboratory: real speech, of the length that is wanted, no piece of it twice."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path

import numpy as np
import soxr

from streaming_encodec.audio.files.sound import AudioReader
from streaming_encodec.audio.files.writer import AudioWriter

_SPEEDS = (1.0, 0.94, 1.06, 0.9, 1.1, 0.97, 1.03, 0.88, 1.12)
"""Of a clip's repetitions: where in the speech a piece of a recording belongs must have one answer."""


def write_speech(source: Path, target: Path, seconds: float) -> None:
    """Write so many seconds of a clip to `target`, repeated where it is shorter, each time at another speed."""
    with AudioReader(source, channels=1) as reader:
        rate = reader.info.sample_rate
        clip = np.concatenate([block[0] for block in reader])
    wanted = round(seconds * rate)
    parts, length = [], 0
    for speed in cycle(_SPEEDS):
        parts.append(clip if speed == 1 else soxr.resample(clip, speed * rate, rate))
        length += len(parts[-1])
        if length >= wanted:
            break
    with AudioWriter(target, rate, 1) as writer:
        writer.write(np.concatenate(parts)[None, :wanted])
