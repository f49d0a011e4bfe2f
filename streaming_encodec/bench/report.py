"""The result of `streaming-encodec bench` as tables on the terminal and in Markdown, and as JSON."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.table import Table as RichTable

from streaming_encodec._version import __version__
from streaming_encodec.audio.files.atomic import write_text
from streaming_encodec.cli.shared.console import out
from streaming_encodec.errors import FileFormatError

BEGIN, END = "<!-- bench -->", "<!-- /bench -->"

Result = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """A titled table of text."""

    title: str
    columns: list[str]
    rows: list[list[str]]


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    packages: dict[str, str | None] = {}
    for package in ("torch", "onnxruntime", "numpy", "transformers", "encodec"):
        try:
            packages[package] = version(package)
        except PackageNotFoundError:
            packages[package] = None
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "streaming-encodec": __version__,
        "packages": packages,
    }


def print_tables(result: Result) -> None:
    """All tables on the terminal."""
    out().print(f"{_machine_line(result)}\n", soft_wrap=True)
    for table in tables(result):
        shown = RichTable(title=table.title, title_justify="left")
        for i, column in enumerate(table.columns):
            shown.add_column(column, justify="left" if i == 0 else "right")
        for row in table.rows:
            shown.add_row(*row)
        out().print(shown)


def write_json(path: Path, result: Result) -> None:
    """All figures, indented."""
    write_text(path, json.dumps(result, indent=2, ensure_ascii=False) + "\n")


def read_report(path: Path) -> tuple[str, str]:
    """What a Markdown file holds before and after its tables; without a file, nothing.

    Raises:
        FileFormatError: the file has no markers.
    """
    text = path.read_text(encoding="utf-8") if path.exists() else f"{BEGIN}\n{END}\n"
    begin, end = text.find(BEGIN), text.find(END)
    if not 0 <= begin < end:
        raise FileFormatError(f"{path} has no lines {BEGIN} and {END}: put them where the tables shall be")
    return text[:begin], text[end + len(END) :]


def write_report(path: Path, result: Result) -> None:
    """Put the tables between the markers of a Markdown file, or make the file.

    Raises:
        FileFormatError: the file has no markers.
    """
    before, after = read_report(path)
    parts = [_machine_line(result)]
    for table in tables(result):
        lines = [
            f"**{table.title}**",
            "",
            _line(table.columns),
            _line(["---", *["---:"] * (len(table.columns) - 1)]),
        ]
        parts.append("\n".join(lines + [_line(row) for row in table.rows]))
    body = "\n\n".join(parts)
    write_text(path, f"{before}{BEGIN}\n{body}\n{END}{after}")


def tables(result: Result) -> Iterator[Table]:
    """The tables of each model."""
    for name, model in result["models"].items():
        stock = next((p["p50_ms"] for p in model["peers"] if p["name"] == "transformers, one frame a call"), None)
        title = f"{name}, {model['kbps']:g} kbps, {model['frame_ms']:.1f} ms a frame"
        yield Table(
            f"{title}: one stream, encode + quantise + decode",
            ["engine", "frames", "p50 ms", "p99 ms", "max ms", "p99 / p50", "RTF", "missed", "× stock"],
            [_live(row["engine"], row, model["frame_ms"], stock) for row in model["live"]]
            + [
                _live(row["name"], row, model["frame_ms"], stock)
                for row in model["peers"]
                if "one frame" in row["name"]
            ],
        )
        yield Table(
            f"{title}: the same with cold caches, 96 MB read before each frame",
            ["engine", "p50 ms", "p99 ms", "max ms", "of warm"],
            [_cold(row, model["live"]) for row in model["cold"]],
        )
        if model["pool"]:
            single = {row["engine"]: row["p50_ms"] for row in model["live"] if row["frames"] == 1}
            yield Table(
                f"{title}: a pool of streams on one core",
                [
                    "engine",
                    "streams",
                    "tick p50 ms",
                    "p99 ms",
                    "ms a stream",
                    "of one alone",
                    "streams a core",
                    "missed",
                ],
                [_pool(row, single) for row in model["pool"]],
            )
        if model["offline"]:
            whole = [_whole(p["name"], p) for p in model["peers"] if "whole file" in p["name"]]
            yield Table(
                f"{title}: a long file, times real time",
                ["engine", "encode ×", "decode ×"],
                [[row["engine"], f"{row['encode_x']:.1f}", f"{row['decode_x']:.1f}"] for row in model["offline"]]
                + whole,
            )
        weights = "" if model["weights"] == "trained" else f", weights: {model['weights']}"
        yield Table(
            f"{title}: agreement with the layers on speech{weights}",
            [
                "engine",
                "codes equal",
                "of the first codebook",
                "decoder SNR dB",
                "log-mel dB (layers)",
                "PESQ-WB (layers)",
            ],
            [_agreement(row) for row in model["agreement"]],
        )
        if "start_up" in model:
            yield Table(
                f"{title}: from a process' start to its first frame",
                ["way", "seconds", "memory MB", "imports torch"],
                [
                    [
                        row["name"],
                        f"{row['seconds']:.2f}",
                        f"{row['memory_mb']}",
                        "yes" if row["imports_torch"] else "no",
                    ]
                    for row in model["start_up"]
                ],
            )


def _live(name: str, row: Result, frame_ms: float, stock: float | None) -> list[str]:
    frames = row.get("frames", 1)
    faster = "" if stock is None else f"{stock * frames / row['p50_ms']:.1f}"
    steps = [f"{row[key]:.2f}" for key in ("p50_ms", "p99_ms", "max_ms")]
    return [
        name,
        str(frames),
        *steps,
        f"{row['p99_ms'] / row['p50_ms']:.2f}",
        f"{row['rtf']:.3f}",
        str(row["missed_deadlines"]),
        faster,
    ]


def _cold(row: Result, live: list[Result]) -> list[str]:
    warm = next((w["p50_ms"] for w in live if w["engine"] == row["engine"] and w["frames"] == 1), None)
    times = [f"{row[key]:.2f}" for key in ("p50_ms", "p99_ms", "max_ms")]
    return [row["engine"], *times, "" if warm is None else f"{row['p50_ms'] / warm:.2f}"]


def _pool(row: Result, single: dict[str, float]) -> list[str]:
    alone = single.get(row["engine"])
    return [
        row["engine"],
        str(row["streams"]),
        f"{row['p50_ms']:.2f}",
        f"{row['p99_ms']:.2f}",
        f"{row['ms_per_stream']:.2f}",
        "" if alone is None else f"{row['ms_per_stream'] / alone:.2f}",
        str(row["streams_per_core"]),
        str(row["missed_deadlines"]),
    ]


def _whole(name: str, row: Result) -> list[str]:
    encode, decode = row["parts_p50_ms"]
    return [name, f"{row['audio_ms'] / encode:.1f}", f"{row['audio_ms'] / decode:.1f}"]


def _agreement(row: Result) -> list[str]:
    def pair(metric: str) -> str:
        own, eager = row.get(f"{metric}_own"), row.get(f"{metric}_eager")
        return "" if own is None or eager is None else f"{own:.2f} ({eager:.2f})"

    snr = row["decoder_snr_db"]
    return [
        row["engine"],
        f"{row['codes_equal']:.2%}",
        f"{row['first_codebook_equal']:.2%}",
        "same bits" if snr is None else f"{snr:.0f}",
        pair("log_mel_db"),
        pair("pesq_wb"),
    ]


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _machine_line(result: Result) -> str:
    machine = result["machine"]
    packages = ", ".join(f"{name} {number}" for name, number in machine["packages"].items() if number)
    clock = "" if result["settings"]["clock"] == "wall" else ", the thread's own time on a machine that was busy"
    return f"{machine['processor']}, {machine['cores']} cores, one thread{clock}; {packages}."


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
