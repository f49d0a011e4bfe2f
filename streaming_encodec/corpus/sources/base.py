"""What a source of recordings is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from streaming_encodec.corpus.recordings import Recording

SOUND_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".aiff", ".aif", ".w64", ".caf")


class Source(Protocol):
    """Recordings in an order that is always the same. It may be gone through any number of times."""

    def __iter__(self) -> Iterator[Recording]:
        """The recordings.

        Raises:
            ConfigError: the list cannot be understood, or names nothing.
            FileFormatError: it cannot be read.
        """
        ...

    def skipped(self) -> list[Path]:
        """Files left out since they hold no sound: AppleDouble files. Known once the source was gone through."""
        ...


def is_apple_double(path: Path) -> bool:
    """Whether this is one of the files (`._a.wav`) that macOS puts beside others on disks of other systems."""
    if not path.name.startswith("._"):
        return False
    try:
        with path.open("rb") as file:
            return file.read(4) == b"\x00\x05\x16\x07"
    except OSError:
        return False  # reported when it is read
