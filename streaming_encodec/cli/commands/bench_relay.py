"""`streaming-encodec bench relay`: how much one relay carries."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from streaming_encodec.bench.tables import machine
from streaming_encodec.cli.shared.figures import (
    OutputJsonOption,
    RealTimeOption,
    ReportOption,
    SecondsOption,
    check_outputs,
    show_figures,
    take_real_time,
)
from streaming_encodec.cli.shared.options import FramesPerPacketOption, JsonOption


class Run(StrEnum):
    """What happens to the relay."""

    one_to_many = "one-to-many"
    many_rooms = "many-rooms"
    one_room = "one-room"
    stalled = "stalled"
    churn = "churn"
    datagrams = "datagrams"
    resume = "resume"
    flood = "flood"
    udp_flood = "udp-flood"


def command(
    run: Annotated[
        Run | None, typer.Argument(metavar="RUN", help="See above; not with --cluster.", show_default=False)
    ] = None,
    speakers: Annotated[
        int | None, typer.Option(min=1, metavar="N", show_default="1, or 10", help="They all speak.")
    ] = None,
    listeners: Annotated[
        int | None, typer.Option(min=1, metavar="N", show_default="200, 60 or 20", help="In each speaker's room.")
    ] = None,
    frames_per_packet: FramesPerPacketOption = 1,
    seconds: SecondsOption = 10.0,
    connections: Annotated[int, typer.Option(min=1, metavar="N", help="Of a round of churn.")] = 500,
    attackers: Annotated[int, typer.Option(min=1, metavar="N", help="Of flood: connections at a time.")] = 8,
    rounds: Annotated[int, typer.Option(min=1, metavar="N", help="Of resume.")] = 10,
    cluster: Annotated[
        bool, typer.Option("--cluster", help="Several relays over NATS, beside one; needs nats-server.")
    ] = False,
    real_time: RealTimeOption = False,
    output_json: OutputJsonOption = None,
    report: ReportOption = None,
    as_json: JsonOption = False,
) -> None:
    """Start a relay in a process of its own on this machine, and measure how long it takes to pass packets on.

    - **one-to-many**: one speaker, many listeners.
    - **many-rooms**: a speaker and listeners in each room.
    - **one-room**: several speakers, all hear all.
    - **stalled**: one-to-many, without and with a listener that reads nothing.
    - **datagrams**: one-to-many over the WebSocket, then over datagram sessions.
    - **churn**: rounds of connections that join, speak and leave; the relay's memory after each.
    - **resume**: the relay is killed and started again; seconds until its clients are back.
    - **flood**: calls while others send as much as they can.
    - **udp-flood**: calls by both ways while others do so to the UDP port.
    """
    from dataclasses import asdict

    from streaming_encodec.bench.relay import RelayPlan, measure_relay, relay_table

    if (run is None) is not cluster:
        raise typer.BadParameter("what shall be measured? name a RUN, or give --cluster", param_hint="RUN")
    check_outputs(output_json, report)
    if real_time:
        take_real_time()
    plan = RelayPlan(speakers, listeners, frames_per_packet, seconds, connections, attackers, rounds)
    if run is None:
        from streaming_encodec.bench.relay_cluster import cluster_table, measure_cluster

        name, rows = "cluster", measure_cluster(plan)
        table = cluster_table(rows)
    else:
        name, rows = run.value, measure_relay(run.value, plan)
        table = relay_table(name, rows)
    result = {"machine": machine(), "settings": {"run": name, **asdict(plan)}, "runs": rows}
    show_figures(result, [table], as_json, output_json, report)
