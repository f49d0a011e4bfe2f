"""What every measurement has: the machine, figures for a program, tables for people."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from streaming_encodec._version import __version__
from streaming_encodec.audio.files.atomic import write_text
from streaming_encodec.errors import FileFormatError

BEGIN, END = "<!-- bench -->", "<!-- /bench -->"

Result = dict[str, Any]
"""Figures as JSON has them; `machine` and `settings` are in each."""


@dataclass(frozen=True)
class Table:
    """A titled table of text; the first column is a name."""

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


def machine_line(result: Result) -> str:
    """The machine in words."""
    machine, clock = result["machine"], result["settings"].get("clock")
    packages = ", ".join(f"{name} {number}" for name, number in machine["packages"].items() if number)
    thread = {None: "", "wall": ", one thread", "cpu": ", one thread, its own time on a machine that was busy"}[clock]
    return f"{machine['processor']}, {machine['cores']} cores{thread}; {packages}."


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


def write_report(path: Path, result: Result, tables: Iterable[Table]) -> None:
    """Put the tables between the markers of a Markdown file, or make the file.

    Raises:
        FileFormatError: the file has no markers.
    """
    before, after = read_report(path)
    parts = [machine_line(result)]
    for table in tables:
        lines = [
            f"**{table.title}**",
            "",
            _line(table.columns),
            _line(["---", *["---:"] * (len(table.columns) - 1)]),
        ]
        parts.append("\n".join(lines + [_line(row) for row in table.rows]))
    body = "\n\n".join(parts)
    write_text(path, f"{before}{BEGIN}\n{body}\n{END}{after}")


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
