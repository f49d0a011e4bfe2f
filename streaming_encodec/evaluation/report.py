"""An evaluation as a table, as JSON, and as marks met or missed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from rich.box import SIMPLE_HEAD
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

STREAMED_LIMIT = 1.05
"""How much rougher at its frame borders the streamed sound may be than the offline model's: rounding only."""

ABSENT = "–"


@dataclass(frozen=True)
class Mark:
    """A requirement and whether it was met; ``met`` is None where it could not be measured."""

    what: str
    met: bool | None
    detail: str


def as_json(name: str, clips: Sequence[Clip], metrics: MetricSet, plan: Plan, result: Evaluation) -> dict[str, Any]:
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


def _score(row: Row | None, name: str) -> float | None:
    return None if row is None else row.scores.get(name)


def rows_table(metrics: MetricSet, result: Evaluation, name: str) -> Table:
    """Conditions down, metrics across; what could not be measured is named below."""
    title = f"{name} through the streaming path"
    # Narrow enough for 80 columns with all six metrics.
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=0, pad_edge=False)
    if metrics.missing:
        table.caption = f"not measured: {', '.join(metrics.missing)}"
    heads, lines = rows_of_text(metrics, result)
    for head in heads:
        table.add_column("\n".join(head.split()), justify="left" if head == "codec" else "right", no_wrap=True)
    last = lines[0][0] if lines else ""
    for line in lines:
        if line[0] != last:
            table.add_section()
        last = line[0]
        table.add_row(*line)
    return table


def rows_of_text(metrics: MetricSet, result: Evaluation) -> tuple[list[str], list[list[str]]]:
    """Heads and lines of the table of conditions."""
    arrows = {"higher": "↑", "lower": "↓"}
    heads = [
        "codec",
        "kbps",
        "real kbps",
        "lost",
        *(f"{m.title} {arrows[m.better]}" for m in metrics.metrics),
    ]
    lines = []
    for row in sorted(result.rows, key=_order):
        sound = row.codec == ORIGINAL
        line = [
            row.codec,
            ABSENT if sound else f"{row.kbps:g}",
            ABSENT if sound else f"{row.measured_kbps:.2f}",
            f"{row.measured_loss:.1%}" if row.loss else ABSENT,
        ]
        lines.append(line + [_spelled(metric, row.scores.get(metric.name)) for metric in metrics.metrics])
    return heads, lines


def as_markdown(name: str, clips: Sequence[Clip], metrics: MetricSet, result: Evaluation) -> str:
    """The tables of conditions and marks in Markdown, for a model card."""
    heads, lines = rows_of_text(metrics, result)
    seconds = sum(clip.seconds for clip in clips)
    speakers = len({clip.speaker or clip.name for clip in clips})
    text = [
        f"{name}: {len(clips)} clips, {speakers} speakers, {seconds:.0f} s, through the streaming path.",
        "",
        *_markdown_table(heads, lines),
        "",
    ]
    for missing, reason in metrics.missing.items():
        text += [f"Not measured: {missing} ({reason})", ""]
    words = {True: "yes", False: "no", None: "not measured"}
    found = [[mark.what, words[mark.met], mark.detail] for mark in marks(metrics, result)]
    return "\n".join([*text, *_markdown_table(["requirement", "met", "measured"], found), ""])


def _markdown_table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    rows = [heads, ["---"] * len(heads), *lines]
    return [f"| {' | '.join(row)} |" for row in rows]


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
    table = Table(title="hostile signals", title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for head in ("signal", "kbps", "finite", "peak", "level dB"):
        table.add_column(head, justify="left" if head == "signal" else "right")
    for s in result.signals:
        finite = "yes" if s.finite else "[bold red]no[/]"
        table.add_row(s.signal, f"{s.kbps:g}", finite, f"{s.peak:.3f}", f"{s.level_db:.1f}")
    return table


def marks_table(found: Sequence[Mark]) -> Table:
    """Requirements, met or not."""
    table = Table(title="marks", title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for head in ("requirement", "met", "measured"):
        table.add_column(head)
    words = {True: "[green]yes[/]", False: "[bold red]no[/]", None: "[yellow]not measured[/]"}
    for mark in found:
        table.add_row(escape(mark.what), words[mark.met], escape(mark.detail))
    return table
