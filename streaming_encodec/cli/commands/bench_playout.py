"""`streaming-encodec bench playout`: simulated calls over bad networks."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from streaming_encodec.bench.tables import Table, machine
from streaming_encodec.cli.shared.figures import (
    OutputJsonOption,
    ReportOption,
    SecondsOption,
    SeedOption,
    check_outputs,
    show_figures,
)
from streaming_encodec.cli.shared.loading import ModelOption
from streaming_encodec.cli.shared.options import JsonOption
from streaming_encodec.model.checkpoints.named import DEFAULT_MODEL


class What(StrEnum):
    """A table."""

    networks = "networks"
    loss = "loss"
    drift = "drift"
    redundancy = "redundancy"


def command(
    what: Annotated[
        list[What] | None,
        typer.Argument(metavar="WHAT", show_default="all but redundancy", help="See above."),
    ] = None,
    seconds: SecondsOption = 600.0,
    drift_hours: Annotated[float, typer.Option(min=0.05, metavar="H", help="Length of a call with drift.")] = 8.0,
    ppm: Annotated[
        list[float] | None, typer.Option(metavar="PPM", help="A drift; may be given again.", show_default="±200")
    ] = None,
    seed: SeedOption = 1,
    folder: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Of redundancy: recordings.")] = None,
    model: ModelOption = DEFAULT_MODEL,
    clips: Annotated[int, typer.Option(min=1, metavar="N", help="Of redundancy: recordings to take.")] = 8,
    metrics: Annotated[
        str, typer.Option(metavar="NAME,NAME…", help="Of redundancy; see `evaluate`.")
    ] = "pesq_wb,stoi,log_mel_db",
    output_json: OutputJsonOption = None,
    report: ReportOption = None,
    as_json: JsonOption = False,
) -> None:
    """Simulate calls over bad networks and measure what is heard of them. Hours take minutes; no sound card is used.

    - **networks**: delay, concealment and recovery over Wi-Fi, LTE, reordering, and TCP that stalls.
    - **loss**: bursty loss at equal bitrate, with and without redundancy.
    - **drift**: clocks that differ, for hours.
    - **redundancy**: what the same sounds like: metrics over the recordings of `--folder`.
    """
    chosen = what or [What.networks, What.loss, What.drift]
    if What.redundancy in chosen and folder is None:
        raise typer.BadParameter("redundancy is measured on recordings: give a --folder", param_hint="WHAT")
    check_outputs(output_json, report)
    figures: dict[str, Any] = {}
    tables: list[Table] = []
    for one in chosen:
        if one is What.redundancy:
            from streaming_encodec.bench.redundancy import measure, redundancy_table
            from streaming_encodec.corpus.transcode import open_model
            from streaming_encodec.evaluation.clips import load_clips
            from streaming_encodec.model.find import torch_model

            codec = torch_model(open_model(model))
            heard = load_clips(folder or Path(), codec.config.sampling_rate, clips)
            figures[one.value] = rows = measure(codec, heard, metrics.split(","), seed)
            tables.append(redundancy_table(rows))
        else:
            figures[one.value] = _simulate(one, seconds, drift_hours, ppm or [200.0, -200.0], seed)
            tables.append(_table(one, figures[one.value]))
    settings = {"seconds": seconds, "drift_hours": drift_hours, "seed": seed, "model": model, "clips": clips}
    result = {"machine": machine(), "settings": settings, **figures}
    show_figures(result, tables, as_json, output_json, report)


def _simulate(what: What, seconds: float, hours: float, ppm: list[float], seed: int) -> list[dict[str, Any]]:
    from streaming_encodec.bench.playout import measure_drift, measure_loss, measure_networks

    if what is What.networks:
        return measure_networks(seconds, seed)
    return measure_loss(seconds, seed) if what is What.loss else measure_drift(hours, ppm, seed)


def _table(what: What, rows: list[dict[str, Any]]) -> Table:
    from streaming_encodec.bench.playout import playout_table

    return playout_table(what.value, rows)
