"""Options that several commands share."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from streaming_encodec.cli.shared.loading import LoadedModel

MOST_SEED = 2**63 - 1

MOST_THREADS = 256
"""Threads, or processes, that may be asked for: as many as the largest machines have cores. A system that is asked for
thousands refuses some in the middle of the work, and torch then ends the process."""

BandwidthOption = Annotated[
    float | None,
    typer.Option(
        "--bandwidth",
        "-b",
        metavar="KBPS",
        help="One of the model's bandwidths.",
        show_default="6, or the nearest",
    ),
]

EngineOption = Annotated[
    str,
    typer.Option(
        "--engine",
        "-e",
        metavar="NAME",
        help="What computes: auto, eager (the reference), fused, kernel, kernel-fp16, onnx, onnx-int8.",
    ),
]

FramesPerPacketOption = Annotated[
    int,
    typer.Option(
        min=1, max=6, metavar="N", help="Frames in a packet: more save headers and computing, and cost delay."
    ),
]
FRAMES_PER_PACKET = 2
"""13 ms later than with one, a third less of a core, half of the bits on the wire: the frames of a packet go through
encoder and decoder at once."""

InputOption = Annotated[
    str | None,
    typer.Option("--input", "-i", help="Microphone: number or part of its name.", show_default="the system's"),
]
OutputOption = Annotated[
    str | None,
    typer.Option("--output", "-o", help="Speaker: number or part of its name.", show_default="the system's"),
]
LossOption = Annotated[float, typer.Option(min=0, max=50, help="Simulate packet loss, in percent.")]
JitterOption = Annotated[float, typer.Option(min=0, max=500, help="Simulate network jitter: mean delay in ms.")]
EchoOption = Annotated[
    str,
    typer.Option(
        "--echo",
        metavar="auto|on|off",
        callback=lambda value: _one_of(value, ("auto", "on", "off")),
        help="Cancel the echo of the speaker: auto does where it is no headset.",
    ),
]
NoiseSuppressionOption = Annotated[
    bool, typer.Option("--noise-suppression", help="Suppress steady noise at the microphone; costs 14 ms.")
]
GainOption = Annotated[bool, typer.Option("--gain", help="Bring your voice to a usual loudness; costs 8 ms.")]
RecordOption = Annotated[Path | None, typer.Option("--record", help="Also write what is heard to this sound file.")]

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]

ThreadsOption = Annotated[
    int,
    typer.Option(
        min=1, max=MOST_THREADS, metavar="N", help="CPU threads; more than one rarely makes single frames faster."
    ),
]


def _one_of(value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise typer.BadParameter(f"it is one of {', '.join(choices)}, not {value!r}")
    return value


def bandwidth_of(loaded: LoadedModel, kbps: float | None) -> float:
    """The bandwidth asked for, or without one the model's nearest to 6 kbps.

    Raises:
        BandwidthError: the model has no such bandwidth.
    """
    from streaming_encodec.corpus.transcode import choose_bandwidth

    return choose_bandwidth(loaded.config, kbps)


def use_threads(threads: int) -> None:
    """Let torch compute with so many threads, also where it is only imported later, or never."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(threads)
    os.environ["OMP_NUM_THREADS"] = str(threads)  # what torch begins with


def file_engine(engine: str, threads: int) -> str:
    """The engine for a file: `auto` is an engine of one thread only if one thread is asked for."""
    return "fused" if engine == "auto" and threads > 1 else engine
