"""The sound that comes with the package."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path


def bundled_clip() -> Path:
    """A piece of speech, mono at 24 kHz."""
    return Path(str(files("streaming_encodec"))) / "assets" / "speech.flac"
