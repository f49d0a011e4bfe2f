"""The result of `bench network` as a table: medians over the seeds."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from rich.table import Table

Result = dict[str, Any]

_WIDTH = 80


def table(calls: list[Result]) -> Table:
    """A row for each condition, 80 columns wide; wire: down and up at the listener's line, all headers counted."""
    shown = Table(box=None, padding=(0, 1, 0, 0), width=_WIDTH, header_style="bold")
    shown.add_column("\nnetwork")
    for column in _COLUMNS:
        shown.add_column(column, justify="right", no_wrap=True)
    for name in dict.fromkeys(call["condition"] for call in calls):
        every = [call for call in calls if call["condition"] == name]
        whole = [call for call in every if "failed" not in call]
        failed = [] if len(whole) == len(every) else [f"{len(every) - len(whole)} failed"]
        shown.add_row(" ".join([name, *failed]), *(show(whole) for show in _COLUMNS.values()))
    return shown


def median(calls: list[Result], *path: str) -> float | None:
    """The median of a figure over those calls that have it."""
    values = []
    for call in calls:
        value: Any = call
        for key in path:
            value = None if value is None else value.get(key)
        if value is not None:
            values.append(value)
    return statistics.median(values) if values else None


def _figure(path: str, digits: int = 0) -> Callable[[list[Result]], str]:
    return lambda calls: _text(median(calls, path), digits)


def _wire(calls: list[Result]) -> str:
    return "+".join(_text(median(calls, "wire_kbps", f"listener_{way}")) for way in ("down", "up"))


def _text(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


_COLUMNS: dict[str, Callable[[list[Result]], str]] = {
    "made\nup %": _figure("concealed_percent", 1),
    "delay\np50": _figure("delay_p50_ms"),
    "ms\np95": _figure("delay_p95_ms"),
    "\nmax": _figure("delay_max_ms"),
    ">400\nms %": _figure("above_400_percent"),
    "longest\ngap ms": _figure("longest_gap_ms"),
    "back\nafter s": _figure("recovered_s", 1),
    "wire\nkbps": _wire,
    "PESQ\n-WB": _figure("pesq_wb", 2),
    "stall\nms": _figure("machine_stall_ms"),
}
