"""Which model a voice end uses."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from streaming_encodec.errors import ConfigError, StreamError
from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.model.plain import plain_model

DEFAULT_MODEL = "voice-24khz"

_LONGEST_FRAME_MS = 10_000.0


def find_model(model: EncodecModel | str | Path | None) -> EncodecModel:
    """A model as it is, or by name (see ``EncodecModel.from_pretrained``); None is the bundled voice model.

    Raises:
        CheckpointError: there is no such model.
        StreamError: what was given is no model.
        ConfigError: it cannot stream by samples.
    """
    name = model or DEFAULT_MODEL if isinstance(model, str | Path | None) else None
    found = plain_model(model) if name is None else EncodecModel.from_pretrained(name)
    if not found.config.streams_by_sample:
        raise ConfigError(
            "this model works on whole segments of a second and cannot carry a conversation: "
            f"use {DEFAULT_MODEL} or facebook/encodec_24khz"
        )
    return found


def check_frame_ms(frame_ms: object) -> float:
    """``frame_ms`` if it is a time that somebody hands sound over by; else ``StreamError``."""
    number = isinstance(frame_ms, int | float | np.integer | np.floating) and not isinstance(frame_ms, bool)
    if number and 0 < frame_ms <= _LONGEST_FRAME_MS:  # type: ignore[operator]
        return float(frame_ms)  # type: ignore[arg-type]
    raise StreamError(f"frame_ms must be positive, {_LONGEST_FRAME_MS:g} at most, not {frame_ms!r}")
