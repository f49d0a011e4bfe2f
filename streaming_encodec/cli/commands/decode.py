"""`streaming-encodec decode`: `.ecdc` to a sound file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from streaming_encodec.cli.shared.console import complain, minutes, note, print_facts, print_json, progress
from streaming_encodec.cli.shared.interrupt import Interrupt
from streaming_encodec.cli.shared.loading import LoadedModel, caveat, layout_of, load_model
from streaming_encodec.cli.shared.options import EngineOption, JsonOption, ThreadsOption, file_engine, use_threads
from streaming_encodec.errors import FileFormatError
from streaming_encodec.model.checkpoints.named import DEFAULT_MODEL, PUBLISHED

if TYPE_CHECKING:
    from streaming_encodec.wire.ecdc import EcdcBlock, EcdcHeader

Pcm = NDArray[np.float32]

# As in encoding: a file is in no hurry.
FRAMES_PER_STEP = 75


def command(
    source: Annotated[Path, typer.Argument(metavar="IN.ecdc", help="The file to read; - for standard input.")],
    target: Annotated[
        Path,
        typer.Argument(
            metavar="OUT", help="The sound file to write, such as out.wav or out.flac; - for a WAV on stdout."
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME",
            help="A bundled model, a hub id, a folder, or an original .th file.",
            show_default="the one the file names",
        ),
    ] = None,
    engine: EngineOption = "auto",
    threads: ThreadsOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Make a sound file of an .ecdc file, also of one that the original `encodec` wrote without --lm."""
    from streaming_encodec.audio.files.ecdc import EcdcReader
    from streaming_encodec.audio.files.standard import is_standard
    from streaming_encodec.audio.files.targets import check_target
    from streaming_encodec.audio.files.writer import SOUND_ENDINGS, open_writer

    check_target(target, SOUND_ENDINGS, [source])  # what is wrong is told before a model is loaded
    with ExitStack() as stack:
        reader = stack.enter_context(EcdcReader(source))
        header = reader.header
        use_threads(threads)
        loaded = load_model(model or _model_of(source, header))
        if loaded.name != header.model:
            note(f"{source} says it was made with {header.model}; it is decoded with {loaded.name}")
        config = loaded.config
        blocks = reader.blocks(layout_of(config))
        writer = stack.enter_context(open_writer(target, config.sampling_rate, config.audio_channels, header.samples))
        interrupt = stack.enter_context(Interrupt())
        advance = stack.enter_context(progress("decoding", header.samples))
        for pcm in _sound(loaded, file_engine(engine, threads), blocks, interrupt):
            # The last frame is filled up beyond the sound.
            fitting = pcm[:, : header.samples - writer.samples]
            writer.write(fitting)
            advance(fitting.shape[1])
        samples = writer.samples
    seconds = samples / config.sampling_rate
    if as_json:
        print_json(
            {
                "input": str(source),
                "output": str(target),
                "model": loaded.name,
                "weights": loaded.weights,
                "sample_rate": config.sampling_rate,
                "channels": config.audio_channels,
                "samples": samples,
                "seconds": seconds,
                "num_codebooks": header.num_codebooks,
                "bandwidth_kbps": config.bandwidth_for(header.num_codebooks),
                "interrupted": interrupt.requested,
            },
            aside=is_standard(target),
        )
    else:
        print_facts(
            f"{source} → {target}",
            {
                "model": loaded.name + caveat(loaded.weights),
                "sound": f"{minutes(seconds)} at {config.sampling_rate} Hz, {config.audio_channels} channel(s)",
                "bitrate": f"{config.bandwidth_for(header.num_codebooks):g} kbps ({header.num_codebooks} codebooks)",
            },
            aside=is_standard(target),
        )
    if interrupt.requested:
        complain(f"interrupted; {target} holds the first {minutes(seconds)}")
        raise typer.Exit(1)


def _model_of(source: Path, header: EcdcHeader) -> str:
    if header.model == DEFAULT_MODEL or header.model in PUBLISHED:
        return header.model
    raise FileFormatError(f"{source}: was made with the model {header.model!r}; say where it is with --model")


def _sound(loaded: LoadedModel, engine: str, blocks: Iterator[EcdcBlock], interrupt: Interrupt) -> Iterator[Pcm]:
    from streaming_encodec.streaming import Segment, SegmentDecoder, StreamingDecoder

    if loaded.config.streams_by_sample:
        decoder = StreamingDecoder(loaded.model, start="exact", frames_per_step=FRAMES_PER_STEP, engine=engine)
        for codes in _pieces(blocks):
            yield decoder.push(codes)
            if interrupt.requested:
                break
        rest = decoder.flush()
    else:
        by_segment = SegmentDecoder(loaded.model)
        for block in blocks:
            scale = None if block.scale is None else np.array([block.scale], np.float32)
            yield by_segment.push(Segment(block.codes, scale))
            if interrupt.requested:
                break
        rest = by_segment.flush()
    if isinstance(rest, np.ndarray):  # a file without any frame leaves the decoder's default, an empty tensor
        yield rest


def _pieces(blocks: Iterator[EcdcBlock]) -> Iterator[NDArray[np.int64]]:
    """The codes [K, f] of all blocks, few at a time: a block of the file may be a minute of sound."""
    for block in blocks:
        for start in range(0, block.codes.shape[1], FRAMES_PER_STEP):
            yield block.codes[:, start : start + FRAMES_PER_STEP]
