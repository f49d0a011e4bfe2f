"""`streaming-encodec stream`: a file through the live codec, as live sound would go."""

from __future__ import annotations

import time
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streaming_encodec.cli.shared.console import complain, minutes, print_facts, print_json, progress
from streaming_encodec.cli.shared.inputs import SourceHelp, input_facts, told_of_input
from streaming_encodec.cli.shared.interrupt import Interrupt
from streaming_encodec.cli.shared.loading import LoadedModel, ModelOption, caveat, load_model
from streaming_encodec.cli.shared.options import (
    BandwidthOption,
    EngineOption,
    JsonOption,
    ThreadsOption,
    bandwidth_of,
    use_threads,
)
from streaming_encodec.cli.shared.timing import TimeHistogram
from streaming_encodec.model.checkpoints.named import DEFAULT_MODEL

if TYPE_CHECKING:
    from streaming_encodec.corpus.codec import Codec


class Start(StrEnum):
    """What the stream takes to have been before it."""

    silence = "silence"
    exact = "exact"


def command(
    source: Annotated[Path, typer.Argument(metavar="IN", help=SourceHelp)],
    target: Annotated[
        Path,
        typer.Argument(
            metavar="OUT", help="The sound file to write, such as out.wav or out.flac; - for a WAV on stdout."
        ),
    ],
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
    from streaming_encodec.audio.files.sound import AudioReader, rechunk
    from streaming_encodec.audio.files.standard import is_standard
    from streaming_encodec.audio.files.targets import check_target
    from streaming_encodec.audio.files.writer import SOUND_ENDINGS, open_writer
    from streaming_encodec.corpus.codec import make_codec

    check_target(target, SOUND_ENDINGS, [source])  # what is wrong is told before a model is loaded
    with ExitStack() as stack:
        reader = stack.enter_context(AudioReader(source))
        use_threads(threads)
        loaded = load_model(model)
        config = loaded.config
        rate, channels = config.sampling_rate, config.audio_channels
        reader.convert(rate, channels)
        codec = make_codec(loaded, bandwidth_of(loaded, bandwidth), start.value, engine)
        times = TimeHistogram()
        writer = stack.enter_context(open_writer(target, rate, channels, samples=reader.samples))
        interrupt = stack.enter_context(Interrupt())
        advance = stack.enter_context(progress("streaming", reader.samples))
        samples, frames, spent = 0, 0, 0.0
        for block in rechunk(iter(reader), block_samples):
            begin = time.perf_counter()
            pcm, new = codec.push(block)
            spent += time.perf_counter() - begin
            if new:
                times.add(1000 * spent / new, new)
                spent = 0.0
            frames += new
            samples += block.shape[1]
            writer.write(pcm)
            advance(block.shape[1])
            if interrupt.requested:
                break
        pcm, new = codec.flush()
        frames += new
        writer.write(pcm[:, : samples - writer.samples])  # the last frame is filled up beyond the sound
    facts = _facts(loaded, codec, samples, frames, times)
    report(
        {
            "input": str(source),
            "output": str(target),
            **facts,
            **input_facts(reader),
            "block_samples": block_samples,
            "interrupted": interrupt.requested,
        },
        as_json,
        aside=is_standard(target),
    )
    if interrupt.requested:
        complain(f"interrupted; {target} holds the first {minutes(samples / rate)}")
        raise typer.Exit(1)


def _facts(loaded: LoadedModel, codec: Codec, samples: int, frames: int, times: TimeHistogram) -> dict[str, Any]:
    config = loaded.config
    seconds = samples / config.sampling_rate
    return {
        "model": loaded.name,
        "weights": loaded.weights,
        "sample_rate": config.sampling_rate,
        "samples": samples,
        "seconds": seconds,
        "start": codec.start,
        "engine": codec.engine,
        "frames": frames,
        "num_codebooks": codec.num_codebooks,
        "bandwidth_kbps": config.bandwidth_for(codec.num_codebooks),
        "delay_samples": codec.delay_samples,
        "delay_ms": 1000 * codec.delay_samples / config.sampling_rate,
        "frame_ms": config.frame_ms,
        "compute_ms_p50": times.percentile_ms(50),
        "compute_ms_p99": times.percentile_ms(99),
        "compute_ms_max": times.max_ms,
        "real_time_factor": times.total_ms / (config.frame_ms * times.count) if times.count else None,
    }


def report(facts: dict[str, Any], as_json: bool, aside: bool) -> None:
    """Print what `_facts` collected; `aside` where stdout has the sound."""
    if as_json:
        print_json(facts, aside=aside)
        return
    factor = facts["real_time_factor"]
    print_facts(
        f"{facts['input']} → {facts['output']}",
        {
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
        },
        aside=aside,
    )
