"""`streaming-encodec devices`: microphones and speakers, with the rates they take."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.table import Table
from rich.text import Text

from streaming_encodec.audio.devices.devices import Backend, Device, channel_counts
from streaming_encodec.audio.devices.port import Kind
from streaming_encodec.cli.shared.console import out, print_json
from streaming_encodec.cli.shared.options import JsonOption

_RATES = (16_000, 24_000, 44_100, 48_000)


def command(as_json: JsonOption = False) -> None:
    """List the sound devices: number and name are what --input and --output of `demo` and `talk` take."""
    from streaming_encodec.audio.devices.portaudio import PortAudio

    backend = PortAudio()
    found: list[dict[str, Any]] = []
    for device in backend.devices():
        rates = [rate for rate in _RATES if _takes(backend, device, rate)]
        found.append({**asdict(device), "rates": rates})
    if as_json:
        print_json({"devices": found})
        return
    if not found:
        out().print("There are no sound devices: plug in a headset. `streaming-encodec demo` runs without, too.")
        return
    table = Table()
    for column in ("number", "name", "interface", "in", "out", "rates"):
        table.add_column(column)
    for row in found:
        default = (" (default)", "bold") if row["is_default_input"] or row["is_default_output"] else ""
        table.add_row(
            str(row["index"]),
            Text.assemble(row["name"], default),
            row["host"],
            str(row["input_channels"] or "–"),
            str(row["output_channels"] or "–"),
            ", ".join(f"{rate / 1000:g}" for rate in row["rates"]) + " kHz" if row["rates"] else "none",
        )
    out().print(table)


def _takes(backend: Backend, device: Device, rate: int) -> bool:
    kind: Kind = "input" if device.input_channels else "output"
    counts = channel_counts(device, kind)
    return any(backend.refusal(device, kind, rate, channels) is None for channels in counts)
