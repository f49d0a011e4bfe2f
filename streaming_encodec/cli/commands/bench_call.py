"""`streaming-encodec bench call`: the delay of a call, from mouth to ear, and its echo."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from streaming_encodec.bench.tables import Table, machine
from streaming_encodec.cli.shared.figures import (
    OutputJsonOption,
    RealTimeOption,
    ReportOption,
    SecondsOption,
    check_outputs,
    show_figures,
    take_real_time,
)
from streaming_encodec.cli.shared.loading import ModelOption
from streaming_encodec.cli.shared.options import (
    FRAMES_PER_PACKET,
    BandwidthOption,
    EchoOption,
    EngineOption,
    FramesPerPacketOption,
    JsonOption,
    use_threads,
)
from streaming_encodec.model.checkpoints.named import DEFAULT_MODEL


class Way(StrEnum):
    """What is measured."""

    clients = "clients"
    demo = "demo"
    talk = "talk"
    echo = "echo"


def command(
    way: Annotated[Way, typer.Argument(metavar="[WAY]", help="See above.")] = Way.clients,
    model: ModelOption = DEFAULT_MODEL,
    bandwidth: BandwidthOption = None,
    engine: EngineOption = "auto",
    frames_per_packet: FramesPerPacketOption = FRAMES_PER_PACKET,
    loss: Annotated[
        float, typer.Option(min=0, max=100, metavar="PERCENT", help="Simulated loss; not for clients.")
    ] = 0.0,
    jitter: Annotated[float, typer.Option(min=0, metavar="MS", help="Simulated jitter; not for clients.")] = 0.0,
    echo: EchoOption = "auto",
    seconds: SecondsOption = 30.0,
    far: Annotated[Path | None, typer.Option(metavar="FILE", help="Speech of the far end; echo only.")] = None,
    near: Annotated[Path | None, typer.Option(metavar="FILE", help="Speech in the room; echo only.")] = None,
    save: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Keep what was heard and sent as WAV files; echo only.")
    ] = None,
    real_time: RealTimeOption = False,
    output_json: OutputJsonOption = None,
    report: ReportOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a call on this machine and measure how long a frame takes from mouth to ear, or what is left of an echo.

    - **clients**: a relay and two clients in this process, without sound cards.
    - **demo**: the program `demo` on a sound card that JACK's dummy driver makes; its speaker is heard and compared.
    - **talk**: two programs `talk` and a relay on such a card. Both need jackd2 and JACK-Client.
    - **echo**: echo cancellation in three simulated rooms, with cards whose clocks differ.
    """
    check_outputs(output_json, report)
    if way is Way.echo:
        _echo(far, near, save, as_json, output_json, report)
        return
    if far or near or save:
        raise typer.BadParameter("--far, --near and --save are for `bench call echo`")
    settings: dict[str, Any] = {
        "way": way.value,
        "model": model,
        "bandwidth": bandwidth,
        "engine": engine,
        "frames_per_packet": frames_per_packet,
        "loss": loss,
        "jitter": jitter,
        "echo": echo,
        "seconds": seconds,
    }
    if way is Way.clients:
        if loss or jitter:
            raise typer.BadParameter("clients have a network without loss and jitter: say demo or talk")
        if real_time:
            take_real_time()
        calls, table = _clients(model, bandwidth, engine, frames_per_packet, seconds)
    else:
        calls, table = _programs(settings, real_time)
    result = {"machine": machine(), "settings": settings, "calls": calls}
    show_figures(result, [table], as_json, output_json, report)


def _echo(
    far: Path | None, near: Path | None, save: Path | None, as_json: bool, output_json: Path | None, report: Path | None
) -> None:
    from streaming_encodec.bench.echo import echo_tables, measure

    use_threads(1)
    figures = measure(far, near, save)
    files = {name: None if file is None else str(file) for name, file in (("far", far), ("near", near))}
    result = {"machine": machine(), "settings": {"way": Way.echo.value, **files}, **figures}
    show_figures(result, echo_tables(figures), as_json, output_json, report)


def _clients(
    name: str, kbps: float | None, engine: str, frames: int, seconds: float
) -> tuple[list[dict[str, Any]], Table]:
    from streaming_encodec.bench.call_delay import clients_table, measure_clients
    from streaming_encodec.corpus.transcode import choose_bandwidth, open_model

    use_threads(1)
    model = open_model(name)
    figures = measure_clients(
        model,
        bandwidth=choose_bandwidth(model.config, kbps),
        engine=engine,
        frames_per_packet=frames,
        seconds=seconds,
    )
    return [figures], clients_table(figures)


def _programs(settings: dict[str, Any], real_time: bool) -> tuple[list[dict[str, Any]], Table]:
    from streaming_encodec.bench.sound_card import LEAST_SECONDS, measure_programs, programs_table

    if settings["seconds"] < LEAST_SECONDS:
        raise typer.BadParameter(f"what is heard is compared for at least {LEAST_SECONDS:g} s", param_hint="--seconds")
    options = {name: settings[name] for name in ("model", "bandwidth", "engine", "frames_per_packet", "echo")}
    options |= {name: settings[name] for name in ("loss", "jitter") if settings[name]}
    arguments: list[object] = []
    for name, value in options.items():
        if value is not None:
            arguments += [f"--{name.replace('_', '-')}", value]
    talk = settings["way"] == Way.talk
    calls = measure_programs(talk, settings["seconds"], tuple(arguments), real_time)
    return calls, programs_table(calls)
