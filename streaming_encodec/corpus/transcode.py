"""Files through the codec: sound to `.ecdc`, `.ecdc` to sound, and sound to sound as it would go live.

Each function reads its input in blocks, in constant memory, and writes a whole file or none: the file gets its name
only when it is complete and on the disk. The name `-` is standard input or output. An input that cannot be read and an
output that cannot be written are found before a model is loaded.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, TypeAlias

from streaming_encodec.audio.files.ecdc import EcdcReader, EcdcWriter
from streaming_encodec.audio.files.sound import AudioReader
from streaming_encodec.audio.files.targets import check_target
from streaming_encodec.audio.files.writer import SOUND_ENDINGS, open_writer
from streaming_encodec.corpus.codec import FRAMES_PER_STEP, make_decoder, make_encoder
from streaming_encodec.corpus.results import DecodedFile, EncodedFile, SourceFile, StreamedFile
from streaming_encodec.corpus.times import TimeHistogram
from streaming_encodec.errors import BandwidthError, ConfigError, FileFormatError
from streaming_encodec.model.checkpoints.named import DEFAULT_MODEL, PUBLISHED, short_name
from streaming_encodec.wire.ecdc import EcdcBlock, EcdcLayout

if TYPE_CHECKING:
    from streaming_encodec.audio.files.writer import SoundWriter
    from streaming_encodec.model.config import EncodecConfig
    from streaming_encodec.model.find import AnyModel, CodecModel
    from streaming_encodec.stepping.engine import Engine
    from streaming_encodec.types import Pcm


FileName: TypeAlias = str | os.PathLike[str]

Progress: TypeAlias = Callable[[int, int | None], None]
"""Called with the samples done so far and about how many there will be (None: the input does not say): once with 0 when
the work begins, then after each block."""

Stop: TypeAlias = Callable[[], bool]
"""Asked after each block. True ends the work there; the file holds what was done, and is valid."""


def encode_file(
    source: FileName,
    target: FileName,
    model: AnyModel = DEFAULT_MODEL,
    *,
    bandwidth: float | None = None,
    engine: str | Engine = "auto",
    model_name: str | None = None,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> EncodedFile:
    """Encode a sound file to `.ecdc`, the format of the original `encodec` package without its language model.

    Args:
        source: any sound file that libsndfile reads, at any rate within a factor of 100 of the model's.
        target: the `.ecdc` file, replaced if it is there.
        model: of any kind, also one that needs whole segments (48 kHz).
        bandwidth: kbps, one of the model's; None is the one nearest to 6.
        engine: what computes (see `engines`), or an engine of this model; of no effect on a model of segments.
        model_name: what the file calls the model; needed where `model` is none of the names.

    Raises:
        FileFormatError: the source is missing, damaged or no sound; the target cannot be written or is the source.
        CheckpointError: there is no such model, or its files are damaged.
        BandwidthError: the model has no such bandwidth.
        StreamError: there is no such engine, or the sound has values that are no samples.
        ConfigError: `model_name` is missing.
    """
    check_target(target, [".ecdc"], [source])
    with ExitStack() as stack:
        reader = stack.enter_context(AudioReader(source))
        name = model_name or _short_name(model)
        if not name:
            raise ConfigError("an .ecdc file names its model: give a model_name along with the model")
        opened = open_model(model)
        config, layout = opened.config, layout_of(opened.config)
        reader.convert(config.sampling_rate, config.audio_channels)
        kbps = choose_bandwidth(config, bandwidth)
        shared = engine_of(opened, engine)
        arithmetic = shared.arithmetic if shared else None
        encoder = make_encoder(opened, kbps, "exact", shared)
        writer = stack.enter_context(EcdcWriter(target, name, encoder.num_codebooks, layout, arithmetic))
        samples = 0
        for block in _watched(iter(reader), reader.samples, progress, stop):
            _write_codes(writer, encoder.push(block), layout)
            samples += block.shape[1]
        _write_codes(writer, encoder.flush(), layout)
        size_bytes = writer.close(samples)
    return EncodedFile(
        **_common(name, config, samples, encoder.num_codebooks),
        source=source_file(reader),
        arithmetic=arithmetic,
        size_bytes=size_bytes,
    )


def decode_file(
    source: FileName,
    target: FileName,
    model: AnyModel | None = None,
    *,
    engine: str | Engine = "auto",
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> DecodedFile:
    """Decode an `.ecdc` file to a sound file; also one of the original `encodec` package without a language model.

    Args:
        source: the `.ecdc` file.
        target: the sound file, replaced if it is there; its ending chooses the format.
        model: None is the one that the file names, which must be the bundled or a published one.
        engine: as in `encode_file`.

    Raises:
        FileFormatError: the source is missing, damaged, of another layout than the model, or names an unknown model;
            the target cannot be written or is the source.
        CheckpointError, StreamError: as in `encode_file`.
    """
    check_target(target, SOUND_ENDINGS, [source])
    with ExitStack() as stack:
        reader = stack.enter_context(EcdcReader(source))
        header = reader.header
        chosen = _named_model(source, header.model) if model is None else model
        opened = open_model(chosen)
        config, layout = opened.config, layout_of(opened.config)
        decoder = make_decoder(opened, "exact", engine_of(opened, engine))
        rate, channels = config.sampling_rate, config.audio_channels
        writer = stack.enter_context(open_writer(target, rate, channels, header.samples))
        progress = progress or _nobody
        progress(0, header.samples)
        for piece in _short_pieces(reader.blocks(layout), layout):
            _write_sound(writer, decoder.push(piece), header.samples)
            progress(writer.samples, header.samples)
            if stop is not None and stop():
                break
        _write_sound(writer, decoder.flush(), header.samples)
        progress(writer.samples, header.samples)
    name = _short_name(chosen) or header.model
    return DecodedFile(
        **_common(name, config, writer.samples, header.num_codebooks),
        named_model=header.model,
    )


def stream_file(
    source: FileName,
    target: FileName,
    model: AnyModel = DEFAULT_MODEL,
    *,
    bandwidth: float | None = None,
    start: str = "silence",
    engine: str | Engine = "auto",
    block_samples: int = 480,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> StreamedFile:
    """Send a sound file through encoder and decoder as live sound would go, block by block, and time each frame.

    The output is as long as the input.

    Args:
        source, target: sound files, as in `encode_file` and `decode_file`.
        model, bandwidth, engine: as in `encode_file`.
        start: `silence`, as if silence went before, or `exact`, as the offline model starts, which looks ahead once.
        block_samples: samples handed over at a time; the output does not depend on it.

    Raises:
        FileFormatError, CheckpointError, BandwidthError, StreamError: as in `encode_file`.
    """
    check_target(target, SOUND_ENDINGS, [source])
    with ExitStack() as stack:
        reader = stack.enter_context(AudioReader(source))
        opened = open_model(model)
        config = opened.config
        rate, channels = config.sampling_rate, config.audio_channels
        reader.convert(rate, channels)
        shared = engine_of(opened, engine)
        encoder = make_encoder(opened, choose_bandwidth(config, bandwidth), start, shared, frames_per_step=1)
        decoder = make_decoder(opened, start, shared, frames_per_step=1)
        writer = stack.enter_context(open_writer(target, rate, channels, samples=reader.samples))
        times, frames, samples, spent_s = TimeHistogram(), 0, 0, 0.0
        for block in _watched(reader.blocks(block_samples), reader.samples, progress, stop):
            begin_s = time.perf_counter()
            pieces = encoder.push(block)
            sounds = [decoder.push(piece) for piece in pieces]
            spent_s += time.perf_counter() - begin_s
            new = sum(piece.codes.shape[1] for piece in pieces)
            if new:
                times.add(1000 * spent_s / new, new)
                spent_s = 0.0
            frames += new
            samples += block.shape[1]
            for pcm in sounds:
                writer.write(pcm)
        for piece in encoder.flush():
            frames += piece.codes.shape[1]
            _write_sound(writer, decoder.push(piece), samples)
        _write_sound(writer, decoder.flush(), samples)
    return StreamedFile(
        **_common(_short_name(model), config, samples, encoder.num_codebooks),
        source=source_file(reader),
        start=start if shared else "segments",
        engine=shared.name if shared else "offline",
        frames=frames,
        frame_ms=config.frame_ms,
        delay_samples=encoder.delay_samples + decoder.delay_samples,
        times=times,
    )


def open_model(model: AnyModel) -> CodecModel:
    """The model of this name; a model is returned as it is.

    Raises:
        CheckpointError: there is no such model, or its files are damaged, or there is no network to fetch it.
    """
    from streaming_encodec.model.find import find_model

    return find_model(PUBLISHED.get(model, model) if isinstance(model, str) else model)


def choose_bandwidth(config: EncodecConfig, kbps: float | None) -> float:
    """The bandwidth asked for; without one, the model's nearest to 6 kbps.

    Raises:
        BandwidthError: the model has no such bandwidth.
    """
    known = config.target_bandwidths
    if kbps is None:
        return config.usual_bandwidth
    if kbps not in known:
        raise BandwidthError(f"the model has {', '.join(f'{value:g}' for value in known)} kbps, not {kbps:g}")
    return kbps


def engine_of(model: CodecModel, engine: str | Engine) -> Engine | None:
    """What computes this model; None for one of segments, which the offline layers compute."""
    from streaming_encodec.engines.registry import find_engine

    return find_engine(engine, model) if model.config.streams_by_sample else None


def layout_of(config: EncodecConfig) -> EcdcLayout:
    """How an `.ecdc` file of this model is laid out."""
    return EcdcLayout(
        hop_length=config.hop_length,
        codebook_size=config.codebook_size,
        max_codebooks=config.num_quantizers,
        segment_samples=config.chunk_length,
        stride_samples=config.chunk_stride,
        normalize=config.normalize,
    )


def source_file(reader: AudioReader) -> SourceFile:
    """What a reader has read so far."""
    return SourceFile(samples=reader.samples_read, samples_promised=reader.info.samples, notes=reader.notes)


def _short_name(model: AnyModel) -> str:
    """Empty for a model that was given itself."""
    return short_name(os.fspath(model)) if isinstance(model, str | os.PathLike) else ""


def _common(name: str, config: EncodecConfig, samples: int, num_codebooks: int) -> dict[str, Any]:
    """The fields of `TranscodedFile`."""
    return {
        "model": name,
        "sample_rate": config.sampling_rate,
        "channels": config.audio_channels,
        "samples": samples,
        "num_codebooks": num_codebooks,
        "bandwidth_kbps": config.bandwidth_for(num_codebooks),
    }


def _named_model(source: FileName, name: str) -> str:
    if name == DEFAULT_MODEL or name in PUBLISHED:
        return name
    raise FileFormatError(
        f"{source}: was made with the model {name!r}, which is none of the published ones: say where it is"
    )


def _watched(
    blocks: Iterator[Pcm], total_samples: int | None, progress: Progress | None, stop: Stop | None
) -> Iterator[Pcm]:
    """The blocks [C, n], until `stop`."""
    done, progress = 0, progress or _nobody
    progress(0, total_samples)
    for block in blocks:
        yield block
        done += block.shape[1]
        progress(done, total_samples)
        if stop is not None and stop():
            return


def _nobody(samples: int, total_samples: int | None) -> None:
    """Ignores the progress."""


def _write_codes(writer: EcdcWriter, pieces: list[EcdcBlock], layout: EcdcLayout) -> None:
    for piece in pieces:
        if layout.segment_samples is None:
            writer.push(piece.codes)
        else:
            writer.push_segment(piece.codes, piece.scale)


def _write_sound(writer: SoundWriter, pcm: Pcm, most_samples: int) -> None:
    """Write what belongs to the sound: the last frame is filled up beyond it."""
    writer.write(pcm[:, : most_samples - writer.samples])


def _short_pieces(blocks: Iterator[EcdcBlock], layout: EcdcLayout) -> Iterator[EcdcBlock]:
    """Codes of a stream, a step at a time: a block of the file may be a minute of sound. Segments stay whole."""
    for block in blocks:
        if layout.segment_samples is not None:
            yield block
            continue
        for begin in range(0, block.codes.shape[1], FRAMES_PER_STEP):
            yield EcdcBlock(block.codes[:, begin : begin + FRAMES_PER_STEP], None)
