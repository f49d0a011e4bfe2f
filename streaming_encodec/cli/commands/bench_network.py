"""`streaming-encodec bench network`: whole calls over bad networks, measured."""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from streaming_encodec.audio.files.bundled import bundled_clip
from streaming_encodec.bench.network.conditions import CONDITIONS, Condition, Where, find_conditions
from streaming_encodec.bench.tables import machine
from streaming_encodec.cli.shared.calling import Transport, TransportOption
from streaming_encodec.cli.shared.console import note
from streaming_encodec.cli.shared.figures import OutputJsonOption, ReportOption, check_outputs, show_figures
from streaming_encodec.cli.shared.interrupt import ending_signals
from streaming_encodec.cli.shared.options import JsonOption
from streaming_encodec.errors import ConfigError


def command(
    conditions: Annotated[
        str, typer.Option(metavar="NAME,NAME…", help=f"Networks: {', '.join(CONDITIONS)}; or all.")
    ] = "clean,loss10,burst10t,rate24,outage2,handover,train",
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Calls over each network; the table has medians.")] = 3,
    where: Annotated[
        Where | None, typer.Option(help="Whose line is bad.", show_default="listener; both for train")
    ] = None,
    transport: TransportOption = Transport.AUTO,
    seconds: Annotated[float, typer.Option(min=10.0, max=600.0, metavar="S", help="Speech in each call.")] = 40.0,
    clip: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What is said, repeated as needed.", show_default="bundled clip")
    ] = None,
    simulated: Annotated[
        bool, typer.Option("--simulated", help="Simulate it, and TCP, in seconds; no root is needed.")
    ] = False,
    joins: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1000,
            metavar="N",
            help="No calls: join N times by each transport where no UDP passes, and measure how long it takes.",
            show_default=False,
        ),
    ] = None,
    output_json: OutputJsonOption = None,
    report: ReportOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make calls over bad networks, and measure what is heard. Linux only, as root.

    `serve`, `send` and `listen` run as they are, in network namespaces of their own; between them a program loses,
    delays and queues packets. A call takes as long as its speech, and half a minute more. Where the machine itself
    stood still for more than 100 ms (stall), figures say little about the network. Ctrl-C ends it, and shows what was
    measured so far.
    """
    from streaming_encodec.bench.network.laboratory import Laboratory
    from streaming_encodec.bench.network.report import joins_table, network_table
    from streaming_encodec.bench.network.topology import check_possible

    try:
        networks = find_conditions(conditions, seconds)
    except ConfigError as error:
        raise typer.BadParameter(str(error), param_hint=f"--{error.setting}") from error
    check_outputs(output_json, report, clip)
    if simulated:
        calls = _simulate(networks, where, seeds, seconds)
        simulation = {"seconds": seconds, "seeds": seeds, "simulated": True}
        result = {"machine": machine(), "settings": simulation, "calls": calls}
        show_figures(result, [network_table(calls)], as_json, output_json, report)
        return
    check_possible()
    for number in ending_signals():
        signal.signal(number, _interrupt)
    settings = {"seconds": seconds, "seeds": seeds, "transport": str(transport)}
    if joins is not None:
        note(f"{joins} joins by each transport")
        with Laboratory(clip or bundled_clip(), seconds, transport) as laboratory:
            joined = laboratory.joins(joins, CONDITIONS["noudp"])
        result = {"machine": machine(), "settings": {"joins": joins}, "joins": joined}
        show_figures(result, [joins_table(joined)], as_json, output_json, report)
        return
    calls = []
    try:
        with Laboratory(clip or bundled_clip(), seconds, transport) as laboratory:
            if laboratory.without_pesq:
                note(f"no PESQ-WB: {laboratory.without_pesq}")
            for name, condition in networks.items():
                for seed in range(1, seeds + 1):
                    note(f"{name}, seed {seed}: {condition.says}")
                    calls.append(laboratory.call(name, condition, where, seed))
                    _tell_troubles(calls[-1])
    finally:
        if calls:
            result = {"machine": machine(), "settings": settings, "calls": calls}
            show_figures(result, [network_table(calls)], as_json, output_json, report)
    if any("failed" in call for call in calls):
        raise typer.Exit(1)


def _simulate(networks: dict[str, Condition], where: Where | None, seeds: int, seconds: float) -> list[dict[str, Any]]:
    from streaming_encodec.bench.network.simulated import simulated_call

    try:
        return [
            simulated_call(name, condition, where, seed, seconds)
            for name, condition in networks.items()
            for seed in range(1, seeds + 1)
        ]
    except ConfigError as error:
        raise typer.BadParameter(str(error), param_hint=f"--{error.setting}") from error


def _tell_troubles(call: dict[str, Any]) -> None:
    if "failed" in call:
        note(f"failed: {call['failed']}")
    if call.get("realtime") is False:
        note("the system allows no real-time priority (CAP_SYS_NICE): delays are those of a busy machine too")
    for program in ("send", "listen"):
        if call.get(program, {}).get("exit_code"):
            note(f"{program} ended with exit code {call[program]['exit_code']}: {call[program]['last_words']}")


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Whatever ends the program ends it in order, so that namespaces and programs are removed."""
    for other in ending_signals():
        signal.signal(other, signal.SIG_IGN)
    raise KeyboardInterrupt
