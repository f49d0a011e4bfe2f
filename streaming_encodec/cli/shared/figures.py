"""What the `bench` commands share: where their figures go."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table as RichTable

from streaming_encodec.audio.files.atomic import write_text
from streaming_encodec.audio.files.targets import check_target
from streaming_encodec.bench.tables import Result, Table, machine_line, read_report, write_report
from streaming_encodec.cli.shared.console import out, print_json
from streaming_encodec.cli.shared.options import MOST_SEED

OutputJsonOption = Annotated[
    Path | None, typer.Option("--output-json", metavar="FILE", help="Write all figures to a file.")
]

ReportOption = Annotated[
    Path | None,
    typer.Option("--report", metavar="FILE.md", help="Put the tables into a Markdown file, between its bench markers."),
]

RealTimeOption = Annotated[
    bool,
    typer.Option("--real-time", help="Run with real-time priority, for figures from a busy machine; needs root."),
]

SecondsOption = Annotated[float, typer.Option(min=0.01, metavar="S", help="Length of a call, or of a run.")]

SeedOption = Annotated[
    int, typer.Option(min=0, max=MOST_SEED, metavar="N", help="The same seed gives the same figures.")
]

_NAME_WIDTH = 12
_PRIORITY = 10


def check_outputs(output_json: Path | None, report: Path | None, other: Path | None = None) -> None:
    """Raise now what would be raised after minutes of measuring: FileFormatError."""
    if output_json is not None:
        check_target(output_json, [".json"], [report, other])
    if report is not None:
        check_target(report, [".md"], [other])
        read_report(report)


def show_figures(
    result: Result, tables: Iterable[Table], as_json: bool, output_json: Path | None, report: Path | None
) -> None:
    """Print the figures, then write them to the files that were asked for."""
    tables = list(tables)
    # First: whatever becomes of the files, the figures have been seen.
    if as_json:
        print_json(result)
    else:
        print_tables(result, tables)
    if output_json is not None:
        write_text(output_json, json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    if report is not None:
        write_report(report, result, tables)


def print_tables(result: Result, tables: Iterable[Table]) -> None:
    """All tables on the terminal."""
    out().print(f"{machine_line(result)}\n", soft_wrap=True)
    for table in tables:
        shown = RichTable(title=table.title, title_justify="left")
        for i, (column, width) in enumerate(zip(table.columns, _widths(table, out().width), strict=True)):
            # The names keep room where a table is too wide for the terminal all the same.
            least = 0 if i else min(_NAME_WIDTH, max((len(row[0]) for row in table.rows), default=0))
            justify: Literal["left", "right"] = "right" if i else "left"
            shown.add_column(column, justify=justify, overflow="fold", width=width, min_width=width or least)
        for row in table.rows:
            shown.add_row(*row)
        out().print(shown)


def _widths(table: Table, width: int) -> list[int] | list[None]:
    """Columns as narrow as their longest words, where that makes a table fit that would not otherwise; else any."""
    columns = [[heading, *(row[i] for row in table.rows)] for i, heading in enumerate(table.columns)]
    borders = 3 * len(columns) + 1
    natural = [max(len(text) for text in column) for column in columns]
    narrow = [max(len(word) for text in column for word in text.split()) for column in columns]
    return narrow if sum(narrow) + borders <= width < sum(natural) + borders else [None] * len(columns)


def take_real_time() -> None:
    """Give this process, and those that it starts, real-time priority.

    Raises:
        typer.BadParameter: the system does not allow it.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_PRIORITY))
    except (AttributeError, PermissionError) as error:
        raise typer.BadParameter("this needs root, on Linux", param_hint="--real-time") from error
