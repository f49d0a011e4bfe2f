"""`streaming-encodec stream`: a file through the live codec, as live sound would go."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streaming_encodec.cli.shared.console import minutes, print_facts, print_json
from streaming_encodec.cli.shared.inputs import FileWork, SoundArgument, SourceArgument, input_facts, told_of_input
from streaming_encodec.cli.shared.loading import ModelOption, caveat, note_preview
from streaming_encodec.cli.shared.options import (
    BandwidthOption,
    EngineOption,
    JsonOption,
    ThreadsOption,
    use_threads,
)
from streaming_encodec.model.checkpoints.named import DEFAULT_MODEL, weights_of

if TYPE_CHECKING:
    from streaming_encodec.corpus.transcode import StreamedFile


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
    from streaming_encodec.audio.files.standard import is_standard
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
    facts = {
        "input": str(source),
        "output": str(target),
        "model": done.model,
        "weights": weights_of(model),
        **_facts(done),
        **input_facts(source, done.source),
        "block_samples": block_samples,
        "interrupted": work.stop(),
    }
    if as_json:
        print_json(facts, aside=is_standard(target))
    else:
        print_facts(f"{source} → {target}", _rows(facts), aside=is_standard(target))
    work.end(target, done)


def _facts(done: StreamedFile) -> dict[str, Any]:
    times = done.times
    return {
        "sample_rate": done.sample_rate,
        "samples": done.samples,
        "seconds": done.seconds,
        "start": done.start,
        "engine": done.engine,
        "frames": done.frames,
        "num_codebooks": done.num_codebooks,
        "bandwidth_kbps": done.bandwidth_kbps,
        "delay_samples": done.delay_samples,
        "delay_ms": 1000 * done.delay_samples / done.sample_rate,
        "frame_ms": done.frame_ms,
        "compute_ms_p50": times.percentile_ms(50),
        "compute_ms_p99": times.percentile_ms(99),
        "compute_ms_max": times.max_ms,
        "real_time_factor": times.total_ms / (done.frame_ms * times.count) if times.count else None,
    }


def _rows(facts: dict[str, Any]) -> dict[str, str]:
    factor = facts["real_time_factor"]
    return {
        "model": facts["model"] + caveat(facts["weights"]),
        "sound": f"{minutes(facts['seconds'])} at {facts['sample_rate']} Hz, "
        f"in blocks of {facts['block_samples']} samples",
        "frames": f"{facts['frames']} of {facts['frame_ms']:.2f} ms",
        "bitrate": f"{facts['bandwidth_kbps']:g} kbps ({facts['num_codebooks']} codebooks)",
        "start": facts["start"],
        "engine": facts["engine"],
        "delay": f"{facts['delay_ms']:.1f} ms ({facts['delay_samples']} samples) in the codec",
        "time per frame": f"p50 {facts['compute_ms_p50']:.2f}, p99 {facts['compute_ms_p99']:.2f}, "
        f"max {facts['compute_ms_max']:.2f} ms",
        "real-time factor": "–" if factor is None else f"{factor:.3f} (below 1 keeps up)",
        **told_of_input(facts),
    }
