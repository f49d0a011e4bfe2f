"""`streaming-encodec bench web`: the codec in JavaScript beside ONNX Runtime and the kernel in Python."""

from __future__ import annotations

from typing import Annotated

import typer

from streaming_encodec.bench.tables import machine
from streaming_encodec.cli.shared.figures import OutputJsonOption, ReportOption, check_outputs, show_figures
from streaming_encodec.cli.shared.options import JsonOption


def command(
    rounds: Annotated[
        int, typer.Option(min=1, max=10_000, metavar="N", help="Turns of each engine, of 25 frames.")
    ] = 60,
    seconds: Annotated[
        float, typer.Option(min=1, max=3600, metavar="S", help="Length of the call whose cost is measured.")
    ] = 12.0,
    output_json: OutputJsonOption = None,
    report: ReportOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the codec of the web page in Node.js: a frame of the voice model encoded and decoded, at 6 kbps.

    ONNX Runtime (float32) and the kernel in Python take turns with it; ratios of one run count, not milliseconds.
    A call with four other speakers is measured too. Needs Node.js.
    """
    from streaming_encodec.bench.web import measure, web_tables

    check_outputs(output_json, report)
    figures = measure(rounds, seconds)
    result = {"machine": machine(), "settings": {"rounds": rounds, "seconds": seconds}, **figures}
    show_figures(result, web_tables(figures), as_json, output_json, report)
