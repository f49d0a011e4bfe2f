"""Which model a voice end uses."""

from __future__ import annotations

from pathlib import Path

from streaming_encodec.errors import ConfigError
from streaming_encodec.model.encodec import EncodecModel

DEFAULT_MODEL = "voice-24khz"


def find_model(model: EncodecModel | str | Path | None) -> EncodecModel:
    """A model as it is, or by name (see ``EncodecModel.from_pretrained``); None is the bundled voice model.

    Raises:
        CheckpointError: there is no such model.
        ConfigError: it cannot stream by samples.
    """
    found = model if isinstance(model, EncodecModel) else EncodecModel.from_pretrained(model or DEFAULT_MODEL)
    if not found.config.streams_by_sample:
        raise ConfigError(
            "this model works on whole segments of a second and cannot carry a conversation: "
            f"use {DEFAULT_MODEL} or facebook/encodec_24khz"
        )
    return found
