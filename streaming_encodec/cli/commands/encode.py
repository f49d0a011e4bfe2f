"""`streaming-encodec encode`: a sound file to `.ecdc`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streaming_encodec.cli.shared.console import complain, minutes, print_facts, print_json, progress
from streaming_encodec.cli.shared.inputs import SourceHelp, input_facts, told_of_input
from streaming_encodec.cli.shared.interrupt import Interrupt
from streaming_encodec.cli.shared.loading import LoadedModel, ModelOption, caveat, layout_of, load_model
from streaming_encodec.cli.shared.options import (
    BandwidthOption,
    EngineOption,
    JsonOption,
    ThreadsOption,
    bandwidth_of,
    file_engine,
    use_threads,
)
from streaming_encodec.model.checkpoints.named import DEFAULT_MODEL

if TYPE_CHECKING:
    from streaming_encodec.audio.files.ecdc import EcdcWriter
    from streaming_encodec.audio.files.sound import AudioReader
    from streaming_encodec.stepping.engine import Engine

# A file is in no hurry: many frames through the network at once cost a fraction of one at a time.
FRAMES_PER_STEP = 75


def command(
    source: Annotated[Path, typer.Argument(metavar="IN", help=SourceHelp)],
    target: Annotated[Path, typer.Argument(metavar="OUT.ecdc", help="The file to write; - for stdout.")],
    model: ModelOption = DEFAULT_MODEL,
    bandwidth: BandwidthOption = None,
    engine: EngineOption = "auto",
    threads: ThreadsOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Compress a sound file to .ecdc, version 0 without a language model.

    With the published 24 and 48 kHz models the file is the one that the original `encodec` package reads and
    writes.
    """
    from streaming_encodec.audio.files.ecdc import EcdcWriter
    from streaming_encodec.audio.files.sound import AudioReader
    from streaming_encodec.audio.files.standard import is_standard
    from streaming_encodec.audio.files.targets import check_target
    from streaming_encodec.stepping.engine import find_engine

    check_target(target, [".ecdc"], [source])  # what is wrong is told before a model is loaded
    with ExitStack() as stack:
        reader = stack.enter_context(AudioReader(source))
        use_threads(threads)
        loaded = load_model(model)
        config = loaded.config
        reader.convert(config.sampling_rate, config.audio_channels)
        kbps = bandwidth_of(loaded, bandwidth)
        computing = find_engine(file_engine(engine, threads), loaded.model) if config.streams_by_sample else None
        arithmetic = computing.arithmetic if computing else None
        books = config.num_codebooks_for(kbps)
        writer = stack.enter_context(EcdcWriter(target, loaded.name, books, layout_of(config), arithmetic))
        interrupt = stack.enter_context(Interrupt())
        samples = _encode(loaded, kbps, computing, reader, writer, interrupt)
        size = writer.close(samples)
    seconds = samples / config.sampling_rate
    facts = {
        "input": str(source),
        "output": str(target),
        "model": loaded.name,
        "weights": loaded.weights,
        "sample_rate": config.sampling_rate,
        "samples": samples,
        "seconds": seconds,
        "num_codebooks": books,
        "bandwidth_kbps": config.bandwidth_for(books),
        "arithmetic": arithmetic or "layers",
        "bytes": size,
        **input_facts(reader),
        "interrupted": interrupt.requested,
    }
    if as_json:
        print_json(facts, aside=is_standard(target))
    else:
        print_facts(
            f"{source} → {target}",
            {
                "model": loaded.name + caveat(loaded.weights),
                "sound": f"{minutes(seconds)} at {config.sampling_rate} Hz",
                "bitrate": f"{config.bandwidth_for(books):g} kbps ({books} codebooks)",
                "size": f"{size} bytes",
                **told_of_input(facts),
            },
            aside=is_standard(target),
        )
    if interrupt.requested:
        complain(f"interrupted; {target} holds the first {minutes(seconds)}")
        raise typer.Exit(1)


def _encode(
    loaded: LoadedModel,
    kbps: float,
    engine: Engine | None,
    reader: AudioReader,
    writer: EcdcWriter,
    interrupt: Interrupt,
) -> int:
    """Encode all that the reader has, or until an interrupt; return the number of samples.

    Without an engine for a model of segments, which has none.
    """
    from streaming_encodec.corpus.codec import no_sound
    from streaming_encodec.streaming import Segment, SegmentEncoder, StreamingEncoder

    samples = 0

    def write(segments: list[Segment]) -> None:
        for segment in segments:
            writer.push_segment(segment.codes, None if segment.scale is None else float(segment.scale[0]))

    with progress("encoding", reader.samples) as advance:
        if engine is not None:
            encoder = StreamingEncoder(loaded.model, kbps, "exact", frames_per_step=FRAMES_PER_STEP, engine=engine)
            encoder.push(no_sound(loaded))  # so that even an empty file's flush gives numpy
            for block in reader:
                writer.push(encoder.push(block))
                samples += block.shape[1]
                advance(block.shape[1])
                if interrupt.requested:
                    break
            writer.push(encoder.flush())
        else:
            by_segment = SegmentEncoder(loaded.model, kbps)
            for block in reader:
                write(by_segment.push(block))
                samples += block.shape[1]
                advance(block.shape[1])
                if interrupt.requested:
                    break
            write(by_segment.flush())
    return samples
