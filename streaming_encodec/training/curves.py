"""The run's numbers as CSV, and the curves as a picture."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from streaming_encodec.audio.files.atomic import not_written, write_by, write_text


class CsvLog:
    """Appends rows of named numbers; the header is fixed by ``columns``, missing values stay empty.

    Rows after ``resume_step`` are dropped: an interrupted run wrote them after its last saved state, and
    writes them again.
    """

    def __init__(self, path: Path, columns: Sequence[str], resume_step: int) -> None:
        self._path = path
        self._columns = list(columns)
        rows = [row for row in read_rows(path) if _step(row) <= resume_step] if path.exists() else []
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
        write_text(path, text.getvalue())

    def write(self, row: Mapping[str, float]) -> None:
        """Append one row and close the file, so that a reader always sees whole rows.

        Raises :class:`FileFormatError` if the row cannot be written; then no part of it stays in the file.
        """
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._columns, extrasaction="ignore")
        writer.writerow({name: f"{value:.0f}" if name == "step" else f"{value:.6g}" for name, value in row.items()})
        before = self._path.stat().st_size
        try:
            with self._path.open("ab") as file:
                file.write(text.getvalue().encode())
        except OSError as error:
            os.truncate(self._path, before)
            raise not_written(self._path, error) from error


def read_rows(path: Path) -> list[dict[str, str]]:
    """All rows of a CSV file."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _step(row: Mapping[str, str]) -> int:
    return int(float(row["step"]))  # as a float: logs of earlier versions have 1e+06


def plot_curves(csv_path: Path, png_path: Path, groups: Sequence[Sequence[str]]) -> bool:
    """One panel for each group of columns; False (and nothing written) if matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        return False
    from matplotlib.figure import Figure

    rows = read_rows(csv_path)
    figure = Figure(figsize=(4.2 * len(groups), 3.4), layout="constrained")
    for axes, group in zip(figure.subplots(1, len(groups), squeeze=False)[0], groups, strict=True):
        for name in group:
            points = [(_step(row), float(row[name])) for row in rows if row.get(name)]
            if points:
                axes.plot(*zip(*points, strict=True), label=name, linewidth=1.0)
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        if axes.has_data():
            axes.legend(fontsize=7)
    write_by(png_path, lambda temporary: figure.savefig(temporary, format="png", dpi=110))
    return True
