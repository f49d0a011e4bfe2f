"""An evaluation as a table, as JSON, and as marks met or missed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from rich.markup import escape
from rich.table import Table

from streaming_encodec.evaluation.clips import Clip
from streaming_encodec.evaluation.metrics import Metric, MetricSet
from streaming_encodec.evaluation.robustness import CLICK_RATIO
from streaming_encodec.evaluation.runner import MODEL, OPUS, ORIGINAL, Evaluation, Plan, Row

FORMAT = 1
"""Version of the JSON's layout."""

_PACKAGES = (
    "streaming-encodec",
    "torch",
    "pesq",
    "pystoi",
    "visqol-python",
    "faster-whisper",
    "resemblyzer",
    "av",
)

ABSENT = "–"


@dataclass(frozen=True)
class Mark:
    """A requirement and whether it was met; ``met`` is None where it could not be measured."""

    what: str
    met: bool | None
    detail: str


def as_json(
    name: str, clips: Sequence[Clip], metrics: MetricSet, plan: Plan, result: Evaluation
) -> dict[str, Any]:
    """Everything, ready for ``json.dumps``."""
    return {
        "format": FORMAT,
        "model": name,
        "plan": asdict(plan),
        "metrics": {m.name: {"title": m.title, "better": m.better} for m in metrics.metrics},
        "unavailable": metrics.missing,
        "clips": [
            {
                "name": c.name,
                "seconds": round(c.seconds, 3),
                "speaker": c.speaker,
                "language": c.language,
                "source": c.source,
                "licence": c.licence,
            }
            for c in clips
        ],
        "rows": [asdict(row) for row in result.rows],
        "signals": [asdict(signal) for signal in result.signals],
        "borders": [asdict(border) for border in result.borders],
        "marks": [asdict(mark) for mark in marks(metrics, result)],
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def marks(metrics: MetricSet, result: Evaluation) -> list[Mark]:
    """The voice model's requirements, as far as this run can tell."""
    found = [
        _better_than_opus(metric, result)
        for metric in metrics.metrics
        if metric.name in ("pesq_wb", "stoi", "visqol_speech")
    ]
    found.append(_intelligible(metrics, result))
    if result.signals:
        broken = [f"{s.signal} at {s.kbps:g} kbps" for s in result.signals if not s.finite]
        found.append(Mark("no NaN on hostile signals", not broken, ", ".join(broken) or "all samples finite"))
    if result.borders:
        worst = max(result.borders, key=lambda border: border.model)
        detail = (
            f"border roughness {worst.model:.2f} at {worst.kbps:g} kbps (original {worst.original:.2f}, "
            f"without state {worst.forgetful:.2f}, limit {CLICK_RATIO:g})"
        )
        found.append(Mark("no clicks at frame borders", worst.model <= CLICK_RATIO, detail))
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


def _score(row: Row | None, name: str) -> float | None:
    return None if row is None else row.scores.get(name)


def rows_table(metrics: MetricSet, result: Evaluation, name: str) -> Table:
    """Conditions down, metrics across; a metric that can't be had here is a column of dashes."""
    table = Table(title=f"{name} through the streaming path", title_justify="left", title_style="bold")
    table.add_column("codec")
    for head in ("kbps", "real kbps", "lost"):
        table.add_column(head, justify="right")
    for metric in metrics.metrics:
        arrow = "↑" if metric.better == "higher" else "↓"
        table.add_column(f"{metric.title} {arrow}", justify="right")
    for missing in metrics.missing:
        table.add_column(missing, justify="right", style="dim")
    last = ""
    for row in sorted(result.rows, key=_order):
        if last and row.codec != last:
            table.add_section()
        last = row.codec
        sound = row.codec == ORIGINAL
        table.add_row(
            row.codec,
            ABSENT if sound else f"{row.kbps:g}",
            ABSENT if sound else f"{row.measured_kbps:.2f}",
            f"{row.measured_loss:.1%}" if row.loss else ABSENT,
            *(_spelled(metric, row.scores.get(metric.name)) for metric in metrics.metrics),
            *(ABSENT for _ in metrics.missing),
        )
    return table


def _order(row: Row) -> tuple[int, float, float]:
    return ((ORIGINAL, MODEL, OPUS).index(row.codec), row.kbps, row.loss)


def _spelled(metric: Metric, value: float | None) -> str:
    if value is None:
        return ABSENT
    if metric.name == "wer":
        return f"{value:.1%}"
    return f"{value:.3f}" if metric.name in ("stoi", "speaker") else f"{value:.2f}"


def signals_table(result: Evaluation) -> Table:
    """Hostile signals: level and peak of what came out."""
    table = Table(title="hostile signals", title_justify="left", title_style="bold")
    for head in ("signal", "kbps", "finite", "peak", "level dB"):
        table.add_column(head, justify="left" if head == "signal" else "right")
    for s in result.signals:
        finite = "yes" if s.finite else "[bold red]no[/]"
        table.add_row(s.signal, f"{s.kbps:g}", finite, f"{s.peak:.3f}", f"{s.level_db:.1f}")
    return table


def marks_table(found: Sequence[Mark]) -> Table:
    """Requirements, met or not."""
    table = Table(title="marks", title_justify="left", title_style="bold")
    for head in ("requirement", "met", "measured"):
        table.add_column(head)
    words = {True: "[green]yes[/]", False: "[bold red]no[/]", None: "[yellow]not measured[/]"}
    for mark in found:
        table.add_row(escape(mark.what), words[mark.met], escape(mark.detail))
    return table
