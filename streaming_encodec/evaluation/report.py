"""An evaluation as a table, as JSON, and as marks met or missed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import JustifyMethod
from rich.table import Table
from rich.text import Text

from streaming_encodec.evaluation.clips import Clip
from streaming_encodec.evaluation.equal_quality import equal_qualities
from streaming_encodec.evaluation.marks import Mark, marks
from streaming_encodec.evaluation.metric import Metric
from streaming_encodec.evaluation.metrics import MetricSet
from streaming_encodec.evaluation.runner import MODEL, OPUS, ORIGINAL, Evaluation, Plan, Row
from streaming_encodec.evaluation.spectra import Modulation

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
    "speechmos",
    "distillmos",
    "av",
)

ABSENT = "–"

_ARROWS = {"higher": "↑", "lower": "↓"}
_FURTHER = ("dnsmos", "distill_mos", "lsd")
_TITLES = ("through the streaming path", "further measures; no loss of the training resembles the opinion scores")


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
        "equal_quality": [asdict(equal) for equal in equal_qualities(metrics.metrics, result)],
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


@dataclass(frozen=True)
class TextTable:
    """A table of conditions before it is drawn."""

    title: str
    heads: list[str]
    lines: list[list[str]]


def rows_tables(metrics: MetricSet, result: Evaluation, name: str) -> list[Table]:
    """Conditions as rows, metrics as columns; the first table's note lists what could not be measured."""
    tables: list[Table] = []
    for text in tables_of_text(metrics, result, name):
        # Narrow enough for 80 columns.
        table = Table(
            title=text.title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=0, pad_edge=False
        )
        for head in text.heads:
            justify: JustifyMethod = "left" if head in ("codec", "metric") else "right"
            table.add_column("\n".join(head.split()), justify=justify, no_wrap=True)
        last = text.lines[0][0] if text.lines else ""
        for line in text.lines:
            if text.heads[0] == "codec" and line[0] != last:
                table.add_section()
            last = line[0]
            table.add_row(*line)
        tables.append(table)
    if metrics.missing:
        tables[0].caption = f"not measured: {', '.join(metrics.missing)}"
    return tables


def tables_of_text(metrics: MetricSet, result: Evaluation, name: str) -> list[TextTable]:
    """Up to four tables: likeness to the original; opinion scores and spectral distance; modulation; Opus's rates."""
    first = [m for m in metrics.metrics if m.family not in _FURTHER and not isinstance(m, Modulation)]
    further = [m for m in metrics.metrics if m.family in _FURTHER]
    tables: list[TextTable] = []
    for chosen, title in ((first, f"{name} {_TITLES[0]}"), (further, _TITLES[1])):
        if chosen or not tables:
            columns = [[_spelled(m, row.scores.get(m.name)) for row in _sorted(result)] for m in chosen]
            heads = [f"{m.title} {_ARROWS[m.better]}" for m in chosen]
            tables.append(_with_conditions(title, heads, columns, result, rate=True))
    modulation = [m for m in metrics.metrics if isinstance(m, Modulation)]
    if modulation:
        tables.append(_modulation_table(modulation, result))
    if equal := _equal_table(metrics.metrics, result):
        tables.append(equal)
    return tables


def _equal_table(metrics: Sequence[Metric], result: Evaluation) -> TextTable | None:
    """Metrics as rows, the model's bandwidths as columns."""
    found = {(equal.metric, equal.kbps): str(equal) for equal in equal_qualities(metrics, result)}
    rates = sorted({kbps for _, kbps in found})
    lines = [
        [metric.title, *(found.get((metric.name, kbps), ABSENT) for kbps in rates)]
        for metric in metrics
        if any(name == metric.name for name, _ in found)
    ]
    if not lines:
        return None
    return TextTable("kbps that Opus needs for equal quality", ["metric", *(f"{kbps:g} kbps" for kbps in rates)], lines)


def _modulation_table(metrics: Sequence[Modulation], result: Evaluation) -> TextTable:
    """A column for each band holds the decibels at all multiples of the frame rate."""
    bands = dict.fromkeys(m.band for m in metrics)
    columns = [
        [" ".join(_spelled(m, row.scores.get(m.name), 1) for m in metrics if m.band == band) for row in _sorted(result)]
        for band in bands
    ]
    rates = ", ".join(dict.fromkeys(f"{m.rate_hz:g}" for m in metrics))
    title = f"modulation of the envelope at {rates} Hz, dB above neighbouring rates; speech has -3 to 1"
    return _with_conditions(title, [f"{band.title} ↓" for band in bands], columns, result, rate=False)


def _with_conditions(
    title: str, heads: list[str], columns: list[list[str]], result: Evaluation, rate: bool
) -> TextTable:
    """Columns of scores behind those that name the conditions; the payload's real rate only if ``rate``."""
    lines = []
    for place, row in enumerate(_sorted(result)):
        sound = row.codec == ORIGINAL
        line = [row.codec, ABSENT if sound else f"{row.kbps:g}"]
        if rate:
            line.append(ABSENT if sound else f"{row.measured_kbps:.2f}")
        line.append(f"{row.measured_loss:.1%}" if row.loss else ABSENT)
        lines.append(line + [column[place] for column in columns])
    return TextTable(title, ["codec", "kbps", *(["real kbps"] if rate else []), "lost", *heads], lines)


def _sorted(result: Evaluation) -> list[Row]:
    return sorted(result.rows, key=_order)


def as_markdown(name: str, clips: Sequence[Clip], metrics: MetricSet, result: Evaluation) -> str:
    """The tables of conditions and marks in Markdown, for a model card."""
    seconds = sum(clip.seconds for clip in clips)
    speakers = len({clip.speaker or clip.name for clip in clips})
    text = [
        f"{name}: {len(clips)} clips, {speakers} speakers, {seconds:.0f} s, through the streaming path.",
        "",
    ]
    for table in tables_of_text(metrics, result, name):
        text += [f"{table.title}:", "", *_markdown_table(table.heads, table.lines), ""]
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


def _spelled(metric: Metric, value: float | None, digits: int = 2) -> str:
    if value is None:
        return ABSENT
    if metric.name == "wer":
        return f"{value:.1%}"
    return f"{value:.{3 if metric.name in ('stoi', 'speaker') else digits}f}"


def signals_table(result: Evaluation) -> Table:
    """Hostile signals: level and peak of the output."""
    table = Table(title="hostile signals", title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for head in ("signal", "kbps", "finite", "peak", "level dB"):
        table.add_column(head, justify="left" if head == "signal" else "right")
    for s in result.signals:
        finite = Text("yes") if s.finite else Text("no", "bold red")
        table.add_row(s.signal, f"{s.kbps:g}", finite, f"{s.peak:.3f}", f"{s.level_db:.1f}")
    return table


def marks_table(found: Sequence[Mark]) -> Table:
    """Requirements, met or not."""
    table = Table(title="marks", title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for head in ("requirement", "met", "measured"):
        table.add_column(head)
    words = {True: Text("yes", "green"), False: Text("no", "bold red"), None: Text("not measured", "yellow")}
    for mark in found:
        table.add_row(mark.what, words[mark.met], mark.detail)
    return table
