"""`streaming-encodec bench codec`: what each engine costs on this machine, beside other packages."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from streaming_encodec.audio.files.atomic import check_writable
from streaming_encodec.bench.codec_tables import ARCHITECTURE, codec_tables
from streaming_encodec.bench.tables import machine
from streaming_encodec.cli.shared.console import note
from streaming_encodec.cli.shared.figures import OutputJsonOption, ReportOption, check_outputs, show_figures
from streaming_encodec.cli.shared.options import JsonOption
from streaming_encodec.model.checkpoints.named import DEFAULT_MODEL

_CLOCKS = {"wall": time.perf_counter, "cpu": time.thread_time}


def command(
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME",
            help=f"Model to measure; may be given again. {ARCHITECTURE}: the published 24 kHz architecture"
            " with random weights, which cost the same.",
            show_default=f"{ARCHITECTURE} and {DEFAULT_MODEL}",
        ),
    ] = None,
    engine: Annotated[
        list[str] | None,
        typer.Option(
            "--engine", "-e", metavar="NAME", help="Engine to measure; may be given again.", show_default="all"
        ),
    ] = None,
    frames_per_step: Annotated[
        str, typer.Option(metavar="N,N…", help="Frames that go through the network at once.")
    ] = "1,3,6",
    streams: Annotated[str, typer.Option(metavar="N,N…", help="Streams in a pool; 0 for none.")] = "4,16",
    bandwidth: Annotated[float, typer.Option("--bandwidth", "-b", metavar="KBPS")] = 6.0,
    rounds: Annotated[int, typer.Option(min=1, metavar="N", help="Turns of all cases; the median is over all.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.01, metavar="S", help="Of each case in a turn.")] = 0.4,
    offline_seconds: Annotated[
        float, typer.Option(min=0.0, metavar="S", help="Length of the long file; 0 for none.")
    ] = 10.0,
    no_start_up: Annotated[
        bool, typer.Option("--no-start-up", help="Leave out fresh processes to their first frame.")
    ] = False,
    peers: Annotated[
        bool, typer.Option("--peers", help="Measure transformers, and encodec where installed, too.")
    ] = False,
    clock: Annotated[
        str,
        typer.Option(
            metavar="wall|cpu",
            help="cpu counts the thread's own time: for ratios on a machine that is busy with other things.",
        ),
    ] = "wall",
    output_json: OutputJsonOption = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the result, .png or .svg.")] = None,
    report: ReportOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure engines, steps of several frames, streams in a pool, long files, start-up and memory.

    One thread pinned to one core, warmed up, all cases in turns so that ratios hold. What a step costs:
    encoding, quantising and decoding. Leave the machine alone while it runs: another busy process doubles
    the figures.
    """
    from streaming_encodec.bench.codec import Plan, bench_model

    if clock not in _CLOCKS:
        raise typer.BadParameter(f"{clock!r} is neither wall nor cpu", param_hint="--clock")
    check_outputs(output_json, report, plot)
    if plot is not None:
        from streaming_encodec.bench.plot import check_plot

        check_plot(plot)
        check_writable(plot)
    plan = Plan(
        engines=engine or [],
        frames=_numbers(frames_per_step, "--frames-per-step"),
        streams=[n for n in _numbers(streams, "--streams") if n],
        kbps=bandwidth,
        rounds=rounds,
        seconds=seconds,
        offline_seconds=offline_seconds,
        start_up=not no_start_up,
        peers=peers,
    )
    result: dict[str, Any] = {
        "machine": machine(),
        "settings": {"clock": clock, **plan.as_dict()},
        "models": {},
    }
    for name in model or [ARCHITECTURE, DEFAULT_MODEL]:
        if not as_json:
            note(f"measuring {name}")
        result["models"][name] = bench_model(name, plan, _CLOCKS[clock])
        for left_out in [] if as_json else result["models"][name]["not_installed"]:
            note(left_out)
    show_figures(result, codec_tables(result), as_json, output_json, report)
    if plot is not None:
        from streaming_encodec.bench.plot import draw

        draw(result, plot)


def _numbers(text: str, option: str) -> list[int]:
    try:
        numbers = [int(word) for word in text.split(",")]
    except ValueError:
        numbers = [-1]
    if min(numbers) < 0:
        raise typer.BadParameter(f"{text!r} is no list of whole numbers such as 1,3,6", param_hint=option)
    return numbers
