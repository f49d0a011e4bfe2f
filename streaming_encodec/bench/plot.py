"""The picture of `streaming-encodec bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from streaming_encodec.audio.files.atomic import write_by
from streaming_encodec.errors import FileFormatError
from streaming_encodec.extras import needs_extra

_OURS, _PEER = "#2a6fb0", "#b0b0b0"


def check_plot(path: Path) -> None:
    """Make sure that a picture can be drawn into a file of this name.

    Raises:
        MissingExtraError: matplotlib is not installed.
        FileFormatError: an ending that it does not know.
    """
    if path.suffix[1:].lower() not in _figure().canvas.get_supported_filetypes():
        raise FileFormatError(f"{path}: cannot tell what to draw from its ending; use .png or .svg")


def draw(result: dict[str, Any], path: Path) -> None:
    """A bar for each engine and peer: milliseconds of computing for a frame, p50, with a line up to p99.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    models = result["models"]
    figure = _figure(figsize=(9, 0.9 + 2.9 * len(models)), layout="constrained")
    figure.suptitle(f"One frame through the live codec, {result['machine']['processor']}, one thread", fontsize=11)
    panels = figure.subplots(len(models), 1, squeeze=False)[:, 0]
    for axes, (name, model) in zip(panels, models.items(), strict=True):
        bars = [
            (f"{row['engine']}, {row['frames']} a step" if row["frames"] > 1 else row["engine"], row, _OURS)
            for row in model["live"]
        ]
        bars += [(row["name"], row, _PEER) for row in model["peers"] if "one frame" in row["name"]]
        bars.reverse()  # the first on top
        for y, (_, row, colour) in enumerate(bars):
            frames = row.get("frames", 1)
            p50, p99 = row["p50_ms"] / frames, row["p99_ms"] / frames
            axes.barh(y, p50, color=colour)
            axes.plot([p50, p99], [y, y], color="black", linewidth=1)
            axes.text(max(p50, p99), y, f"  {p50:.2f} ms, RTF {row['rtf']:.2f}", va="center", fontsize=8)
        axes.set_yticks(range(len(bars)), [label for label, _, _ in bars], fontsize=8)
        axes.axvline(model["frame_ms"], color="#c03030", linestyle="--", linewidth=1)
        axes.text(model["frame_ms"], len(bars) - 0.4, " a frame lasts", color="#c03030", fontsize=8)
        axes.set_title(f"{name}, {model['kbps']:g} kbps", fontsize=10, loc="left")
        axes.set_xlabel(
            "milliseconds a frame: encode + quantise + decode; the line goes to the 99th percentile",
            fontsize=8,
        )
        axes.margins(x=0.2)
        axes.spines[["top", "right"]].set_visible(False)
    kind = path.suffix[1:].lower()
    write_by(path, lambda temporary: figure.savefig(temporary, format=kind, dpi=130))


def _figure(**settings: Any) -> Any:
    with needs_extra("--plot", "matplotlib", "plot"):
        from matplotlib.figure import Figure
    return Figure(**settings)
