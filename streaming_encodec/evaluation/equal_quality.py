"""Opus at equal quality: the rate at which Opus has the model's score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from streaming_encodec.evaluation.metric import Metric
from streaming_encodec.evaluation.runner import MODEL, OPUS, Evaluation
from streaming_encodec.evaluation.spectra import Modulation

Beyond = Literal["below", "above"]


@dataclass(frozen=True)
class EqualQuality:
    """``opus_kbps`` is where Opus's score equals the model's at ``kbps``.

    ``beyond``: this is outside the measured range; then ``opus_kbps`` is the lowest or highest measured rate.
    """

    metric: str
    kbps: float
    opus_kbps: float
    beyond: Beyond | None = None

    def __str__(self) -> str:
        sign = {"below": "< ", "above": "> ", None: ""}[self.beyond]
        return f"{sign}{self.opus_kbps:.1f}"


def equal_qualities(metrics: Sequence[Metric], result: Evaluation) -> list[EqualQuality]:
    """For each metric and bandwidth of the model without loss, if Opus was measured at two rates or more.

    Without modulation, a fault that Opus doesn't have.
    """
    found = []
    for metric in metrics:
        if isinstance(metric, Modulation):
            continue
        sign = 1.0 if metric.better == "higher" else -1.0
        clean = [row for row in result.rows if not row.loss and row.scores.get(metric.name) is not None]
        scores = {id(row): sign * float(row.scores[metric.name] or 0.0) for row in clean}
        points = sorted((row.measured_kbps, scores[id(row)]) for row in clean if row.codec == OPUS)
        if len(points) < 2:
            continue
        for row in clean:
            if row.codec == MODEL:
                found.append(EqualQuality(metric.name, row.kbps, *equal_rate(points, scores[id(row)])))
    return found


def equal_rate(points: Sequence[tuple[float, float]], score: float) -> tuple[float, Beyond | None]:
    """The rate from which on a codec is at least as good as ``score`` (higher is better) at every measured rate.

    ``points``: (rate, score) by rising rate; straight lines join them.
    """
    if points[-1][1] < score:
        return points[-1][0], "above"
    for (low, worse), (high, better) in zip(points[-2::-1], points[:0:-1], strict=True):
        if worse < score:
            return low + (high - low) * (score - worse) / (better - worse), None
    return points[0][0], "below"
