"""A source by its name."""

from __future__ import annotations

from pathlib import Path

from streaming_encodec.corpus.sources.base import Source
from streaming_encodec.corpus.sources.folder import SoundFolder
from streaming_encodec.corpus.sources.manifest import MANIFEST_SUFFIXES, Manifest
from streaming_encodec.corpus.sources.tars import Tars
from streaming_encodec.errors import ConfigError


def find_source(path: Path) -> Source:
    """A folder of sound files, a folder of tars, a tar, or a list of recordings.

    Raises:
        ConfigError: it is none of these, is missing, or a folder holds neither sound files nor tars.
    """
    ending = path.suffix.lower()
    if path.is_dir():
        tars = [file for file in path.glob("*.tar") if file.is_file() and not file.name.startswith("._")]
        try:
            return SoundFolder(path)
        except ConfigError:
            if not tars:
                raise
            return Tars(tars)
    if not path.is_file():
        raise ConfigError(f"{path} is no folder and no file: give a folder, a list of recordings, or a tar")
    if ending == ".tar":
        return Tars([path])
    if ending in MANIFEST_SUFFIXES:
        return Manifest(path)
    raise ConfigError(
        f"{path} is neither a folder nor a list of recordings ({', '.join(MANIFEST_SUFFIXES)}) nor a .tar"
    )
