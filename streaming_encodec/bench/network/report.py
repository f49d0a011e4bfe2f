"""The result of `bench network` as a table: medians over the seeds."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from streaming_encodec.bench.tables import Result, Table

TITLE = "calls over bad networks ({}); wire: down and up at the listener"


def network_table(calls: list[Result]) -> Table:
    """A row for each condition."""
    rows = []
    for name in dict.fromkeys(call["condition"] for call in calls):
        every = [call for call in calls if call["condition"] == name]
        whole = [call for call in every if "failed" not in call]
        failed = [] if len(whole) == len(every) else [f"({len(every) - len(whole)} failed)"]
        rows.append([" ".join([name, *failed]), *(show(whole) for show in _COLUMNS.values())])
    return Table(TITLE.format(calls[0]["transport"]), ["network", *_COLUMNS], rows)


def joins_table(joins: list[Result]) -> Table:
    """A row for each transport."""
    rows = []
    for transport in dict.fromkeys(join["transport"] for join in joins):
        every = [join for join in joins if join["transport"] == transport]
        figures = [
            f"{of([join[name] for join in every]):.0f}"
            for name in ("joined_ms", "heard_ms")
            for of in (statistics.median, max)
        ]
        rows.append([transport, str(len(every)), *figures])
    heads = ["transport", "joins", "welcome ms, median", "most", "first word ms, median", "most"]
    return Table("joining where no UDP passes", heads, rows)


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


def _delays(calls: list[Result]) -> str:
    return "/".join(_text(median(calls, f"delay_{name}_ms")) for name in ("p50", "p95", "max"))


def _wire(calls: list[Result]) -> str:
    both = [median(calls, "wire_kbps", f"listener_{way}") for way in ("down", "up")]
    return "-" if both == [None, None] else "+".join(_text(one) for one in both)


def _text(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


# Short words: with these the table has 80 columns.
_COLUMNS: dict[str, Callable[[list[Result]], str]] = {
    "made up %": _figure("concealed_percent", 1),
    "p50/p95/max ms": _delays,
    ">400 ms %": _figure("above_400_percent"),
    "gap ms": _figure("longest_gap_ms"),
    "back s": _figure("recovered_s", 1),
    "wire kbps": _wire,
    "PESQ WB": _figure("pesq_wb", 2),
    "stall ms": _figure("machine_stall_ms"),
}
