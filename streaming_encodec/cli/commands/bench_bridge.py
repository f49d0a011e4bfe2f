"""`streaming-encodec bench bridge`: many telephone calls at once."""

from __future__ import annotations

from typing import Annotated

import typer

from streaming_encodec.bench.tables import Table, machine
from streaming_encodec.cli.shared.figures import OutputJsonOption, ReportOption, check_outputs, show_figures
from streaming_encodec.cli.shared.options import JsonOption


def command(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="twilio, audiosocket or asterisk-ws.")] = "twilio",
    calls: Annotated[int, typer.Option(min=1, max=200, help="At once, each in a room with an echo.")] = 20,
    seconds: Annotated[float, typer.Option(min=12.0, max=7200.0, help="Of each call.")] = 30.0,
    frames_per_packet: Annotated[int, typer.Option(min=1, max=6, metavar="N", help="Frames in a packet.")] = 2,
    threads: Annotated[int, typer.Option(min=1, max=16, metavar="N", help="That encode and decode.")] = 1,
    clock_ppm: Annotated[
        float, typer.Option(min=-1000, max=1000, metavar="PPM", help="By how much the telephones' clocks run fast.")
    ] = 0.0,
    conversation: Annotated[
        bool,
        typer.Option(
            "--conversation",
            help="The ends take turns: each alone for 45 % of the time, both for 10 %. Silence is not sent.",
        ),
    ] = False,
    each_way: Annotated[
        bool,
        typer.Option("--each-way", help="One call, with a client of this package in its room: each way's delay."),
    ] = False,
    output_json: OutputJsonOption = None,
    report: ReportOption = None,
    as_json: JsonOption = False,
) -> None:
    """Call through a bridge on this machine, and measure delay, and its share of a core.

    Everybody speaks all the time, unless it is a conversation. The delay is that of the whole loop: from the telephone
    to the room and back. Lacked: for how long nothing was there to be played, in the middle one of the calls.
    """
    if kind not in ("twilio", "audiosocket", "asterisk-ws"):
        raise typer.BadParameter("twilio, audiosocket or asterisk-ws", param_hint="KIND")
    check_outputs(output_json, report)
    from streaming_encodec.bench.bridge_calls import measure, measure_ways

    options = ("--frames-per-packet", str(frames_per_packet), "--threads", str(threads))
    if each_way:
        facts = measure_ways(kind, seconds, options)
        ways = Table(
            f"a call of {seconds:g} s through the bridge {kind}, mouth to ear, by pieces of 2 s; "
            f"{facts['stock_ms']:.0f} ms of it wait at the telephone",
            ["way", "p50 ms", "p95 ms", "load"],
            [
                [way, f"{delay['p50']:.0f}", f"{delay['p95']:.0f}", f"{facts['load_average']:.1f}"]
                for way, delay in facts["delay_ms"].items()
            ],
        )
        result = {"machine": machine(), "settings": {"kind": kind, "seconds": seconds}, "runs": [facts]}
        show_figures(result, [ways], as_json, output_json, report)
        return
    silence = ("--dtx",) if conversation else ()
    facts = measure(kind, calls, seconds, (*options, *silence), clock_ppm=clock_ppm, conversation=conversation)
    delay = facts["loop_delay_ms"]
    table = Table(
        f"{calls} calls of {seconds:g} s through the bridge {kind}",
        ["bridge", "p50 ms there and back", "max ms", "heard", "lacked s", "of a core", "memory MB", "load"],
        [
            [
                kind,
                f"{delay['median']:.0f}",
                f"{delay['max']:.0f}",
                f"{100 * facts['heard_share']:.1f} %",
                f"{facts['missing_s'][len(facts['missing_s']) // 2]:.2f}, most {facts['missing_s'][-1]:.2f}",
                f"{100 * facts['cpu_share']:.0f} %",
                str(facts["memory_mb"]),
                f"{facts['load_average']:.1f}",
            ]
        ],
    )
    tables = [table]
    if (long := facts["long"]) is not None:
        delays, stocks = long["loop_delay_ms"], long["stock_ms"]
        tables.append(
            Table(
                f"the second minute and the last; the telephones' clocks are {clock_ppm:+g} ppm off; nothing was there "
                f"to be played for {long['missing_s']:.1f} s",
                ["minute", "ms there and back", "sound that waits at the telephone, ms", "STOI"],
                [
                    [
                        name,
                        f"{delays[name]:.0f}",
                        f"{stocks[name][0]:.0f} to {stocks[name][1]:.0f}",
                        f"{long['stoi'][name]:.3f}",
                    ]
                    for name in ("begin", "end")
                ],
            )
        )
    result = {"machine": machine(), "settings": {"kind": kind, "calls": calls, "seconds": seconds}, "runs": [facts]}
    show_figures(result, tables, as_json, output_json, report)
