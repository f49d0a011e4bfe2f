"""Comparisons for a listening test: a model with Opus, or with another model."""

from __future__ import annotations

from collections.abc import Sequence

from streaming_encodec.errors import StreamError
from streaming_encodec.evaluation.clips import Clip
from streaming_encodec.evaluation.opus import OPUS_RATES, Opus
from streaming_encodec.evaluation.pairs import Comparison
from streaming_encodec.evaluation.streamed import encode_set
from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.stepping.half import check_streams

OPUS_KBPS = (6.0, 9.0)


def against_opus(model: EncodecModel, name: str, clips: Sequence[Clip], rates: Sequence[float]) -> list[Comparison]:
    """The model at each of ``rates`` (kbps) with Opus at 6 and 9 kbps.

    Raises:
        MissingExtraError: no libopus.
        StreamError: Opus doesn't support the model's sample rate, or the model cannot stream.
        ConfigError: the model has no such rate.
    """
    _check(model, rates)
    if model.config.sampling_rate not in OPUS_RATES:
        raise StreamError(f"Opus has no {model.config.sampling_rate} Hz: compare with a model (--against)")
    opus = Opus()
    rivals = [
        (f"opus {kbps:g} kbps", [opus.decode(opus.encode(c.samples, c.sample_rate, kbps)) for c in clips])
        for kbps in OPUS_KBPS
    ]
    found = []
    for kbps in rates:
        ours = encode_set(model, clips, kbps).decode(model)
        found += [Comparison(f"{name} {kbps:g} kbps", ours, rival, theirs) for rival, theirs in rivals]
    return found


def against_model(
    model: EncodecModel, name: str, other: EncodecModel, other_name: str, clips: Sequence[Clip], rates: Sequence[float]
) -> list[Comparison]:
    """Two models at each of ``rates`` (kbps).

    Raises:
        StreamError: their sample rates differ, or one cannot stream.
        ConfigError: one has no such rate.
    """
    for one in (model, other):
        _check(one, rates)
    if model.config.sampling_rate != other.config.sampling_rate:
        raise StreamError(
            f"{name} has {model.config.sampling_rate} Hz and {other_name} {other.config.sampling_rate}: "
            "compare models of one sample rate"
        )
    found = []
    for kbps in rates:
        ours, theirs = (encode_set(one, clips, kbps).decode(one) for one in (model, other))
        found.append(Comparison(f"{name} {kbps:g} kbps", ours, f"{other_name} {kbps:g} kbps", theirs))
    return found


def _check(model: EncodecModel, rates: Sequence[float]) -> None:
    check_streams(model.config)
    for kbps in rates:
        model.config.num_codebooks_for(kbps)
