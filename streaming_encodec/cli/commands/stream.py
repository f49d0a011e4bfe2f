"""`streaming-encodec stream`: a file through the live codec, as live sound would go."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from streaming_encodec.cli.shared.inputs import (
    FileWork,
    SoundArgument,
    SourceArgument,
    file_facts,
    input_facts,
    print_file,
    told_of_input,
)
from streaming_encodec.cli.shared.loading import ModelOption, note_preview
from streaming_encodec.cli.shared.options import BandwidthOption, EngineOption, JsonOption, ThreadsOption, use_threads
from streaming_encodec.model.checkpoints.named import DEFAULT_MODEL, weights_of


class Start(StrEnum):
    """What the stream takes to have been before it."""

    silence = "silence"
    exact = "exact"


def command(
    source: SourceArgument,
    target: SoundArgument,
    model: ModelOption = DEFAULT_MODEL,
    bandwidth: BandwidthOption = None,
    block_samples: Annotated[
        int, typer.Option(min=1, help="Samples handed over at a time; the result does not depend on it.")
    ] = 480,
    start: Annotated[
        Start,
        typer.Option(
            help="silence: as if silence went before, the first code after one frame. "
            "exact: as the offline model starts, which looks ahead once."
        ),
    ] = Start.silence,
    engine: EngineOption = "auto",
    threads: ThreadsOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Send a file through encoder and decoder block by block, as live sound would go, and time each frame.

    The output has the length of the input. Models that work on whole segments, such as
    facebook/encodec_48khz, go through segment by segment.
    """
    from streaming_encodec.corpus.transcode import stream_file

    use_threads(threads)
    with FileWork("streaming") as work:
        done = stream_file(
            source,
            target,
            model,
            bandwidth=bandwidth,
            start=start.value,
            engine=engine,
            block_samples=block_samples,
            progress=work.progress,
            stop=work.stop,
        )
    note_preview(model)
    times = done.times
    facts = {
        **file_facts(source, target, done, weights_of(model)),
        "start": done.start,
        "engine": done.engine,
        "frames": done.frames,
        "delay_samples": done.delay_samples,
        "delay_ms": 1000 * done.delay_samples / done.sample_rate,
        "frame_ms": done.frame_ms,
        "compute_ms_p50": times.percentile_ms(50),
        "compute_ms_p99": times.percentile_ms(99),
        "compute_ms_max": times.max_ms,
        "real_time_factor": times.total_ms / (done.frame_ms * times.count) if times.count else None,
        **input_facts(source, done.source),
        "block_samples": block_samples,
        "interrupted": work.stop(),
    }
    print_file(facts, _rows(facts), as_json)
    work.end(target, done)


def _rows(facts: dict[str, Any]) -> dict[str, str]:
    factor = facts["real_time_factor"]
    return {
        "frames": f"{facts['frames']} of {facts['frame_ms']:.2f} ms, from blocks of {facts['block_samples']} samples",
        "start": facts["start"],
        "engine": facts["engine"],
        "delay": f"{facts['delay_ms']:.1f} ms ({facts['delay_samples']} samples) in the codec",
        "time per frame": f"p50 {facts['compute_ms_p50']:.2f}, p99 {facts['compute_ms_p99']:.2f}, "
        f"max {facts['compute_ms_max']:.2f} ms",
        "real-time factor": "–" if factor is None else f"{factor:.3f} (below 1 keeps up)",
        **told_of_input(facts),
    }
