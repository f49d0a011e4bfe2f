"""Which model a voice end uses, and what its codes are, as the two ends of a call tell each other."""

from __future__ import annotations

import numpy as np

from streaming_encodec.errors import ConfigError, StreamError
from streaming_encodec.model.checkpoints.named import DEFAULT_MODEL
from streaming_encodec.model.find import AnyModel, CodecModel, find_model, fingerprint
from streaming_encodec.wire.packet import StreamFormat

_LONGEST_FRAME_MS = 10_000.0


def find_voice_model(model: AnyModel | None) -> CodecModel:
    """The model itself, or the one with that name (see ``EncodecModel.from_pretrained``); None: the voice model.

    Raises:
        CheckpointError: there is no such model.
        StreamError: the argument is no model.
        ConfigError: the model cannot stream by samples.
        MissingExtraError: it needs torch, which is not installed.
    """
    found = find_model(DEFAULT_MODEL if model is None else model)
    if not found.config.streams_by_sample:
        raise ConfigError(
            "this model works on whole segments of a second and cannot carry a conversation: "
            f"use {DEFAULT_MODEL} or facebook/encodec_24khz"
        )
    return found


def stream_format(model: AnyModel) -> StreamFormat:
    """The format of a model's stream, its fingerprint included (0.1 s for the 24 kHz model: keep it)."""
    found = find_model(model)
    config = found.config
    return StreamFormat(
        model=fingerprint(found),
        sample_rate=config.sampling_rate,
        channels=config.audio_channels,
        frame_samples=config.hop_length,
        max_codebooks=config.num_quantizers,
        codebook_size=config.codebook_size,
    )


def check_frame_ms(frame_ms: object) -> float:
    """``frame_ms`` as a number. Raises ``StreamError`` unless it is a length that sound is handed over in."""
    number = isinstance(frame_ms, int | float | np.integer | np.floating) and not isinstance(frame_ms, bool)
    if number and 0 < frame_ms <= _LONGEST_FRAME_MS:  # type: ignore[operator]
        return float(frame_ms)  # type: ignore[arg-type]
    raise StreamError(f"frame_ms must be positive, {_LONGEST_FRAME_MS:g} at most, not {frame_ms!r}")
