"""The sound files of a folder and of those below it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from streaming_encodec.corpus.recordings import Recording
from streaming_encodec.corpus.sources.base import SOUND_SUFFIXES, is_apple_double
from streaming_encodec.errors import ConfigError


class SoundFolder:
    """Each sound file is a recording; its id is its path in the folder, without the ending."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files, self._skipped = find_sounds(folder)

    def __iter__(self) -> Iterator[Recording]:
        for path in self._files:
            yield Recording(path.relative_to(self._folder).with_suffix("").as_posix(), str(path))

    def skipped(self) -> list[Path]:
        return self._skipped


def find_sounds(folder: Path) -> tuple[list[Path], list[Path]]:
    """The sound files of a folder and of those below it, sorted; and those left out: AppleDouble files (`._a.wav`).

    Raises:
        ConfigError: no such folder, or no sound file in it.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder: give one that holds sound files")
    named = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SOUND_SUFFIXES and path.is_file())
    files: list[Path] = []
    skipped: list[Path] = []
    for path in named:
        (skipped if is_apple_double(path) else files).append(path)
    if not files:
        raise ConfigError(f"{folder} holds no sound files ({', '.join(SOUND_SUFFIXES)})")
    return files, skipped
