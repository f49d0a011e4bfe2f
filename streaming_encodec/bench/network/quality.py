"""How a recording sounds beside the codec's own output on a clean line: PESQ-WB, piece by piece."""

from __future__ import annotations

import numpy as np

from streaming_encodec.bench.network.figures import Playback
from streaming_encodec.evaluation.clips import Clip
from streaming_encodec.evaluation.metrics import PesqWideband
from streaming_encodec.types import Pcm

_PIECE_S = 8.0
_LEAST_BLOCKS = 50
"""With less of a piece heard than that there is nothing to compare."""


def pesq_wideband(metric: PesqWideband, playback: Playback, clean: Pcm, first_frame: int) -> float:
    """The mean over pieces of `clean` [T] of 8 s, each against what was heard from its first frame to its last.

    4.64 is no damage at all, 1.0 nothing left. What waited for the network, and what was made up, is in it.
    """
    length = round(_PIECE_S * playback.rate)
    frame = (playback.frame - first_frame) * playback.block_samples  # where in `clean` each block's frame begins
    scores = []
    for begin in range(0, len(clean) - length + 1, length):
        inside = np.flatnonzero((frame >= begin) & (frame < begin + length) & ~playback.made_up)
        if len(inside) < _LEAST_BLOCKS:
            scores.append(metric.worst)
            continue
        first, last = inside[0], inside[-1]
        start = round(playback.position[first] - (frame[first] - begin))
        end = round(playback.position[last] + (begin + length - frame[last]))
        heard = playback.sound[max(0, start) : max(0, end)]
        score = metric(Clip("speech", clean[begin : begin + length], playback.rate), heard)
        if score is not None:  # silence in the speech itself
            scores.append(score.value)
    return float(np.mean(scores)) if scores else float("nan")
