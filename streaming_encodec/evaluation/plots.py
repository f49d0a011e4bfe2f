"""Pictures of an evaluation: quality over rate, quality over loss, and spectrograms before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from streaming_encodec.audio.files.atomic import write_by
from streaming_encodec.evaluation.clips import Clip
from streaming_encodec.evaluation.extras import need
from streaming_encodec.evaluation.metric import Metric, power_spectrum
from streaming_encodec.evaluation.runner import MODEL, OPUS, ORIGINAL, Evaluation, Row
from streaming_encodec.types import Pcm

_COLOURS = {MODEL: "#1f6fb4", OPUS: "#d9822b", ORIGINAL: "#777777"}
_SHADES = ("#9ecae1", "#4292c6", "#08519c", "#08306b")
_RANGE_DB = 80.0


def rate_plot(path: Path, metrics: Sequence[Metric], result: Evaluation, name: str) -> None:
    """One panel for each metric.

    Value over the payload's real rate. Raises MissingExtraError without matplotlib.
    """
    figure, panels = _panels(metrics)
    for axes, metric in zip(panels, metrics, strict=True):
        for codec, label in ((MODEL, name), (OPUS, "Opus (voip)")):
            rows = [row for row in result.rows if row.codec == codec and not row.loss]
            _line(axes, rows, metric, lambda row: row.measured_kbps, label, _COLOURS[codec])
        original = result.row(ORIGINAL, 0.0)
        if original is not None and (value := original.scores.get(metric.name)) is not None:
            axes.axhline(value, color=_COLOURS[ORIGINAL], linestyle=":", label="original")
        axes.set_xscale("log", base=2)
        ticks = sorted({row.kbps for row in result.rows if row.kbps})
        axes.set_xticks(ticks, [f"{kbps:g}" for kbps in ticks])
        _finish(axes, metric, "kbps (payload)")
    figure.suptitle("Quality and rate, no loss")
    write_by(path, lambda temporary: figure.savefig(temporary, format="png", dpi=110))


def loss_plot(path: Path, metrics: Sequence[Metric], result: Evaluation, name: str) -> bool:
    """One panel for each metric: value over the share of lost packets. False if no loss was measured."""
    rates = sorted({row.kbps for row in result.rows if row.loss})
    if not rates:
        return False
    figure, panels = _panels(metrics)
    for axes, metric in zip(panels, metrics, strict=True):
        for codec, style in ((MODEL, "-"), (OPUS, "--")):
            for number, kbps in enumerate(rates):
                rows = [row for row in result.rows if row.codec == codec and row.kbps == kbps]
                shade = _COLOURS[codec] if len(rates) == 1 else _SHADES[number * len(_SHADES) // len(rates)]
                label = f"{name if codec == MODEL else 'Opus'} {kbps:g} kbps"
                _line(axes, rows, metric, lambda row: 100 * row.measured_loss, label, shade, style)
        _finish(axes, metric, "packets lost, % (bursts)")
    figure.suptitle("Quality and bursty loss")
    write_by(path, lambda temporary: figure.savefig(temporary, format="png", dpi=110))
    return True


def spectrogram_plot(path: Path, clip: Clip, sounds: Mapping[str, Pcm]) -> None:
    """The clip and its decoded versions, one strip for each of ``sounds``, on one scale of decibels."""
    figure_of = need("matplotlib.figure", "the plots").Figure
    strips = {f"original: {clip.name}": clip.samples, **sounds}
    figure = figure_of(figsize=(9.0, 1.9 * len(strips)), layout="constrained")
    all_axes = figure.subplots(len(strips), 1, sharex=True, squeeze=False)[:, 0]
    top = 10 * np.log10(power_spectrum(clip.samples, 512, 128).max())
    image = None
    for axes, (title, samples) in zip(all_axes, strips.items(), strict=True):
        power = 10 * np.log10(power_spectrum(samples, 512, 128).T + 1e-12)  # [257, frames]
        image = axes.imshow(
            power,
            origin="lower",
            aspect="auto",
            cmap="magma",
            vmin=top - _RANGE_DB,
            vmax=top,
            extent=(0.0, clip.seconds, 0.0, clip.sample_rate / 2000),
        )
        axes.set_title(title, fontsize=9, loc="left")
        axes.set_ylabel("kHz", fontsize=8)
    all_axes[-1].set_xlabel("seconds")
    figure.colorbar(image, ax=list(all_axes), label="dB", shrink=0.6)
    write_by(path, lambda temporary: figure.savefig(temporary, format="png", dpi=110))


def _panels(metrics: Sequence[Metric]) -> tuple[Any, list[Any]]:
    figure_of = need("matplotlib.figure", "the plots").Figure
    columns = min(3, len(metrics))
    lines = -(-len(metrics) // columns)
    figure = figure_of(figsize=(4.0 * columns, 3.2 * lines), layout="constrained")
    panels = list(figure.subplots(lines, columns, squeeze=False).reshape(-1))
    for unused in panels[len(metrics) :]:
        unused.set_visible(False)
    return figure, panels[: len(metrics)]


def _line(
    axes: Any, rows: Sequence[Row], metric: Metric, place: Any, label: str, colour: str, style: str = "-"
) -> None:
    points = [(place(row), value) for row in rows if (value := row.scores.get(metric.name)) is not None]
    if points:
        axes.plot(*zip(*sorted(points), strict=True), style, marker="o", markersize=4, color=colour, label=label)


def _finish(axes: Any, metric: Metric, label: str) -> None:
    axes.set_title(f"{metric.title} ({metric.better} is better)", fontsize=10)
    axes.set_xlabel(label, fontsize=8)
    axes.grid(alpha=0.3)
    if axes.has_data():
        axes.legend(fontsize=7)
