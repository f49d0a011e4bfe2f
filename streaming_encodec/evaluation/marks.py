"""Requirements of the voice model, and whether an evaluation shows them met."""

from __future__ import annotations

from dataclasses import dataclass

from streaming_encodec.evaluation.metric import Metric
from streaming_encodec.evaluation.metrics import MetricSet
from streaming_encodec.evaluation.robustness import CLICK_RATIO
from streaming_encodec.evaluation.runner import MODEL, OPUS, ORIGINAL, Evaluation, Row
from streaming_encodec.evaluation.spectra import Modulation

STREAMED_LIMIT = 1.05
"""Tolerated extra roughness of streamed sound at frame borders, against the offline model's: rounding only."""

BUZZ_DB = 2.0
"""Highest modulation of the envelope at the frame rate, in dB above its neighbours; speech has up to 1."""

_BUZZ_FROM_HZ = 4000.0

LSD_GAIN_DB = 0.6
"""How much closer to the original's spectrum 12 kbps must be than 6 kbps; Opus gains more."""


@dataclass(frozen=True)
class Mark:
    """A requirement and whether it was met; ``met`` is None if it was not measured."""

    what: str
    met: bool | None
    detail: str


def marks(metrics: MetricSet, result: Evaluation) -> list[Mark]:
    """The voice model's requirements, from the results of this run."""
    found = [
        _better_than_opus(metric, result)
        for metric in metrics.metrics
        if metric.name in ("pesq_wb", "stoi", "visqol_speech")
    ]
    found.append(_intelligible(metrics, result))
    more = (_near_opus_9(metrics, result), _bits_buy_detail(metrics, result), _modulation_mark(metrics, result))
    found += [mark for mark in more if mark is not None]
    if result.signals:
        broken = [f"{s.signal} at {s.kbps:g} kbps" for s in result.signals if not s.finite]
        found.append(Mark("no NaN on hostile signals", not broken, ", ".join(broken) or "all samples finite"))
    if result.borders:
        worst = max(result.borders, key=lambda border: border.model / border.offline)
        detail = f"{worst.model:.2f} against {worst.offline:.2f} offline, {worst.forgetful:.2f} without state"
        smooth = worst.model <= STREAMED_LIMIT * worst.offline
        found.append(Mark("streaming adds no clicks at frame borders", smooth, detail))
        worst = max(result.borders, key=lambda border: border.model)
        detail = f"{worst.model:.2f} at {worst.kbps:g} kbps, limit {CLICK_RATIO:g}, original {worst.original:.2f}"
        found.append(Mark("no roughness at frame borders", worst.model <= CLICK_RATIO, detail))
    return found


def _better_than_opus(metric: Metric, result: Evaluation) -> Mark:
    what = f"{metric.title} above Opus at 6 kbps"
    ours, theirs = (_score(result.row(codec, 6.0), metric.name) for codec in (MODEL, OPUS))
    if ours is None or theirs is None:
        return Mark(what, None, "not measured at 6 kbps for both")
    return Mark(what, ours > theirs, f"{ours:.3f} against {theirs:.3f}")


def _intelligible(metrics: MetricSet, result: Evaluation) -> Mark:
    what = "WER at 1.5 kbps at most twice the original's plus 5 points"
    clean, coded = _score(result.row(ORIGINAL, 0.0), "wer"), _score(result.row(MODEL, 1.5), "wer")
    if clean is None or coded is None:
        return Mark(what, None, metrics.missing.get("wer", "not measured at 1.5 kbps"))
    limit = 2 * clean + 0.05
    return Mark(what, coded <= limit, f"{coded:.1%}, limit {limit:.1%} (original {clean:.1%})")


def _near_opus_9(metrics: MetricSet, result: Evaluation) -> Mark | None:
    """By the opinion score that no loss resembles; None if it was left out."""
    ours, theirs = (_score(result.row(*at), "dnsmos_overall") for at in ((MODEL, 6.0), (OPUS, 9.0)))
    if ours is None or theirs is None:
        return None
    return Mark("DNSMOS overall at 6 kbps at least Opus's at 9", ours >= theirs, f"{ours:.3f} against {theirs:.3f}")


def _bits_buy_detail(metrics: MetricSet, result: Evaluation) -> Mark | None:
    """The spectrum must improve with twice the bits, in each band; None if it was left out."""
    names = [metric.name for metric in metrics.metrics if metric.family == "lsd"]
    scores = [[_score(result.row(MODEL, kbps), name) for name in names] for kbps in (6.0, 12.0)]
    gains = [a - b for a, b in zip(*scores, strict=True) if a is not None and b is not None]
    if not gains:
        return None
    detail = " and ".join(f"{gain:.2f}" for gain in gains) + " dB"
    return Mark(f"LSD at 12 kbps {LSD_GAIN_DB:g} dB better than at 6", min(gains) >= LSD_GAIN_DB, detail)


def _modulation_mark(metrics: MetricSet, result: Evaluation) -> Mark | None:
    """Above 4 kHz, at every bandwidth without loss; None if it was left out."""
    judges = [m for m in metrics.metrics if isinstance(m, Modulation) and m.band.low_hz >= _BUZZ_FROM_HZ]
    rows = [row for row in result.rows if row.codec == MODEL and not row.loss]
    found = [(value, m, row) for m in judges for row in rows if (value := _score(row, m.name)) is not None]
    if not found:
        return None
    value, metric, row = max(found, key=lambda one: one[0])
    detail = f"{value:.1f} dB, {metric.band.title} at {metric.rate_hz:g} Hz, {row.kbps:g} kbps"
    return Mark(f"modulation above 4 kHz at most {BUZZ_DB:g} dB", value <= BUZZ_DB, detail)


def _score(row: Row | None, name: str) -> float | None:
    return None if row is None else row.scores.get(name)
