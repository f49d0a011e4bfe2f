"""Runs an evaluation: conditions × clips × metrics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from streaming_encodec.errors import StreamError
from streaming_encodec.evaluation.clips import Clip
from streaming_encodec.evaluation.judging import Judge, SerialJudge
from streaming_encodec.evaluation.metric import Score
from streaming_encodec.evaluation.metrics import MetricSet
from streaming_encodec.evaluation.opus import OPUS_RATES, Opus, packet_ms
from streaming_encodec.evaluation.packet_loss import BURST_MS, Lost, bursty_loss
from streaming_encodec.evaluation.received import receive_set
from streaming_encodec.evaluation.robustness import (
    SignalResult,
    border_ratio,
    check_signals,
    decode_forgetful,
    decode_offline,
)
from streaming_encodec.evaluation.streamed import BLOCK_SAMPLES, encode_clips, encode_set
from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.stepping.half import check_streams
from streaming_encodec.types import Pcm

ORIGINAL, MODEL, OPUS = "original", "model", "opus"

OPUS_KBPS = (6.0, 9.0, 12.0, 16.0)
"""Rates at which Opus is always measured; its rate at equal quality is interpolated between them."""

_BORDER_CLIPS = 4  # some 2,000 frames: enough for a ratio
_BORDER_S = 30.0  # they are decoded whole, offline


@dataclass(frozen=True)
class Plan:
    """What to measure. ``losses`` are shares of packets, at each of ``loss_bandwidths``; 0 is always measured.

    Opus is measured at the model's rates, and without loss at ``opus_bandwidths`` too.
    """

    bandwidths: tuple[float, ...]
    losses: tuple[float, ...] = (0.01, 0.05, 0.10, 0.20)
    loss_bandwidths: tuple[float, ...] = ()
    burst_ms: float = BURST_MS
    opus: bool = True
    opus_bandwidths: tuple[float, ...] = OPUS_KBPS
    robustness: bool = True
    block_samples: int = BLOCK_SAMPLES
    seed: int = 0


@dataclass(frozen=True)
class Row:
    """One condition: a codec at a bandwidth and a loss rate.

    ``measured_kbps`` is the payload's real rate, ``measured_loss`` the real share of lost packets; ``scores`` are
    means over clips, None if not measured; ``per_clip`` the values of the clips, in their order.
    """

    codec: str
    kbps: float
    loss: float
    measured_kbps: float
    measured_loss: float
    scores: dict[str, float | None]
    per_clip: dict[str, list[float | None]]


@dataclass(frozen=True)
class Borders:
    """Roughness at frame borders against elsewhere, see ``border_ratio``, of the same clips in four ways.

    ``offline`` is the whole clip decoded at once: streaming caused what ``model`` has beyond it.
    ``forgetful`` decodes every frame alone, for comparison.
    """

    kbps: float
    original: float
    offline: float
    model: float
    forgetful: float


@dataclass(frozen=True)
class Evaluation:
    """All results."""

    rows: list[Row]
    signals: list[SignalResult] = field(default_factory=list)
    borders: list[Borders] = field(default_factory=list)

    def row(self, codec: str, kbps: float, loss: float = 0.0) -> Row | None:
        """The row of a condition, if it was measured."""
        found = (r for r in self.rows if (r.codec, r.kbps, r.loss) == (codec, kbps, loss))
        return next(found, None)


@dataclass(frozen=True)
class Condition:
    """A condition's decoded sounds, before they are scored."""

    codec: str
    kbps: float
    loss: float

    @property
    def label(self) -> str:
        loss = f", {self.loss:.0%} lost" if self.loss else ""
        return self.codec if self.codec == ORIGINAL else f"{self.codec} {self.kbps:g} kbps{loss}"


class Listener(Protocol):
    """Receives the progress of a run."""

    def begin(self, condition: Condition, done: int, total: int) -> None:
        """A condition starts; ``done`` of ``total`` are finished."""

    def scored(self, condition: Condition) -> None:
        """All metrics of one more clip are computed."""

    def sound(self, condition: Condition, clip: Clip, samples: Pcm) -> None:
        """A decoded clip."""


class Silent:
    """Ignores the progress."""

    def begin(self, condition: Condition, done: int, total: int) -> None: ...

    def scored(self, condition: Condition) -> None: ...

    def sound(self, condition: Condition, clip: Clip, samples: Pcm) -> None: ...


Outcome = tuple[Condition, float, float, list[Pcm]]


def evaluate(
    model: EncodecModel,
    clips: Sequence[Clip],
    metrics: MetricSet,
    plan: Plan,
    listener: Listener | None = None,
    judge: Judge | None = None,
) -> Evaluation:
    """Run ``plan`` on ``model``; ``judge`` applies the metrics, by default in this process.

    Raises:
        StreamError: the model cannot stream by samples, Opus doesn't support its rate, or a loss is out of range.
        ConfigError: a bandwidth is not one of the model's.
        MissingExtraError: Opus is wanted and there is no libopus.
    """
    opus = _check(model, plan)
    listener = listener or Silent()
    judge = judge or SerialJudge(clips, metrics)
    total = len(_conditions(plan))
    rows, borders = [], []
    outcomes = _outcomes(model, clips, plan, opus)
    for done, (condition, kbps, lost, sounds) in enumerate(outcomes):
        listener.begin(condition, done, total)
        for clip, sound in zip(clips, sounds, strict=True):
            listener.sound(condition, clip, sound)
        scores, per_clip = _judge(metrics, condition, sounds, judge, listener)
        rows.append(Row(condition.codec, condition.kbps, condition.loss, kbps, lost, scores, per_clip))
        if plan.robustness and condition.codec == MODEL and not condition.loss:
            borders.append(_borders(model, clips, sounds, condition.kbps))
    signals = check_signals(model, plan.bandwidths) if plan.robustness else []
    return Evaluation(rows, signals, borders)


def _conditions(plan: Plan) -> list[Condition]:
    clean = [Condition(MODEL, kbps, 0.0) for kbps in plan.bandwidths]
    codecs = [MODEL]
    if plan.opus:
        codecs.append(OPUS)
        clean += [Condition(OPUS, kbps, 0.0) for kbps in _opus_rates(plan)]
    lossy = [Condition(codec, kbps, loss) for codec in codecs for kbps in plan.loss_bandwidths for loss in plan.losses]
    return [Condition(ORIGINAL, 0.0, 0.0), *clean, *lossy]


def _opus_rates(plan: Plan) -> list[float]:
    return sorted({*plan.bandwidths, *plan.opus_bandwidths})


def _check(model: EncodecModel, plan: Plan) -> Opus | None:
    """Raise for a plan that can't be run before any work is done; returns the baseline, if one is wanted."""
    check_streams(model.config)
    for kbps in (*plan.bandwidths, *plan.loss_bandwidths):
        model.config.num_codebooks_for(kbps)
    packets_ms = [model.config.frame_ms, *([packet_ms(kbps) for kbps in plan.loss_bandwidths] if plan.opus else [])]
    for loss in plan.losses if plan.loss_bandwidths else ():
        bursty_loss(1, max(packets_ms), loss, plan.seed, plan.burst_ms)
    if not plan.opus:
        return None
    if model.config.sampling_rate not in OPUS_RATES:
        raise StreamError(
            f"Opus takes {', '.join(map(str, OPUS_RATES))} Hz, the model has {model.config.sampling_rate}: "
            "evaluate without it (--no-opus)"
        )
    return Opus()


def _outcomes(model: EncodecModel, clips: Sequence[Clip], plan: Plan, opus: Opus | None) -> Iterator[Outcome]:
    config = model.config
    yield Condition(ORIGINAL, 0.0, 0.0), 0.0, 0.0, [clip.samples for clip in clips]
    rates = sorted({*plan.bandwidths, *plan.loss_bandwidths})
    for kbps in rates:
        coded = encode_set(model, clips, kbps, plan.block_samples)
        frame_ms = 1000 * config.hop_length / config.sampling_rate
        for loss in _losses(plan, kbps, plan.bandwidths):
            masks = _masks(coded.frames, frame_ms, loss, plan)
            sounds = receive_set(model, coded, masks) if loss else coded.decode(model)
            yield Condition(MODEL, kbps, loss), coded.kbps, _share(masks), sounds
    if opus is None:
        return
    clean = _opus_rates(plan)
    for kbps in sorted({*clean, *plan.loss_bandwidths}):
        streams = [opus.encode(clip.samples, clip.sample_rate, kbps) for clip in clips]
        measured = float(np.average([s.kbps for s in streams], weights=[s.length for s in streams]))
        packet_ms = 1000 * streams[0].packet_samples / streams[0].sample_rate
        for loss in _losses(plan, kbps, clean):
            masks = _masks([len(s.packets) for s in streams], packet_ms, loss, plan)
            sounds = [opus.decode(s, mask) for s, mask in zip(streams, masks, strict=True)]
            yield Condition(OPUS, kbps, loss), measured, _share(masks), sounds


def _losses(plan: Plan, kbps: float, clean: Sequence[float]) -> list[float]:
    return ([0.0] if kbps in clean else []) + (list(plan.losses) if kbps in plan.loss_bandwidths else [])


def _masks(packets: Sequence[int], packet_ms: float, loss: float, plan: Plan) -> list[Lost]:
    # A seed for each clip and loss rate: a condition's losses do not depend on the others.
    seeds = np.random.SeedSequence([plan.seed, round(loss * 1000)]).generate_state(len(packets))
    return [
        bursty_loss(count, packet_ms, loss, int(seed), plan.burst_ms)
        for count, seed in zip(packets, seeds, strict=True)
    ]


def _share(masks: Sequence[Lost]) -> float:
    return float(np.concatenate(masks).mean())


def _judge(
    metrics: MetricSet, condition: Condition, sounds: Sequence[Pcm], judge: Judge, listener: Listener
) -> tuple[dict[str, float | None], dict[str, list[float | None]]]:
    # Of the original only absolute metrics make sense, not its distance to itself.
    names = [m.name for m in metrics.metrics if m.absolute or condition.codec != ORIGINAL]
    found: dict[str, list[Score | None]] = {name: [] for name in names}
    for scores in judge(sounds, names):
        for name in names:
            found[name].append(scores[name])
        listener.scored(condition)
    means = {name: _mean(found.get(name, [])) for name in metrics.names}
    per_clip = {name: [None if s is None else s.value for s in scores] for name, scores in found.items()}
    return means, per_clip


def _mean(scores: Sequence[Score | None]) -> float | None:
    known = [score for score in scores if score is not None and score.weight > 0]
    if not known:
        return None
    return sum(score.value * score.weight for score in known) / sum(score.weight for score in known)


def _borders(model: EncodecModel, clips: Sequence[Clip], sounds: Sequence[Pcm], kbps: float) -> Borders:
    hop = model.config.hop_length
    most = round(_BORDER_S * model.config.sampling_rate)
    clips = [replace(clip, samples=clip.samples[:most]) for clip in clips[:_BORDER_CLIPS]]
    sounds = [sound[:most] for sound in sounds[:_BORDER_CLIPS]]
    coded = encode_clips(model, clips, kbps)
    return Borders(
        kbps,
        original=border_ratio([clip.samples for clip in clips], hop),
        offline=border_ratio(decode_offline(model, coded), hop),
        model=border_ratio(sounds, hop),
        forgetful=border_ratio(decode_forgetful(model, coded), hop),
    )
