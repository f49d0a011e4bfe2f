"""How the codes of many files lie on disk: which files are written, and how one is.

To add a format, write a class with the methods of `Format`. Objects go to other processes, so they are small and can be
pickled.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from streaming_encodec.audio.files.ecdc import is_whole_ecdc
from streaming_encodec.corpus.transcode import encode_file, layout_of
from streaming_encodec.errors import ConfigError

if TYPE_CHECKING:
    from streaming_encodec.model.config import EncodecConfig
    from streaming_encodec.model.find import CodecModel
    from streaming_encodec.stepping.engine import Engine


@dataclass(frozen=True, slots=True)
class Job:
    """One file to write, whole or not at all, and what goes into it."""

    source: Path
    target: Path


@dataclass(frozen=True, slots=True)
class Codec:
    """What encodes."""

    model: CodecModel
    name: str
    """Of the model, as files have it."""
    bandwidth: float
    engine: str | Engine


class Format(Protocol):
    """A way to write."""

    def plan(self, sources: Sequence[Path], root: Path, folder: Path) -> Iterator[Job]:
        """Which files of `folder` the sound files below `root` become: a function of the names alone.

        Raises:
            ConfigError: two would be written to one place.
        """
        ...

    def is_whole(self, target: Path, config: EncodecConfig) -> bool:
        """Whether the file of a job is there, complete."""
        ...

    def write(self, job: Job, codec: Codec) -> tuple[float, int]:
        """Do a job; give the seconds of sound and the bytes written.

        Raises:
            StreamingEncodecError: the source cannot be read, or the target not written.
        """
        ...


class EcdcFiles:
    """Each sound file becomes an `.ecdc` file at the same place of another tree, as `encode_file` writes it."""

    def plan(self, sources: Sequence[Path], root: Path, folder: Path) -> Iterator[Job]:
        taken: dict[Path, Path] = {}
        for path in sources:
            place = (folder / path.relative_to(root)).with_suffix(".ecdc")
            if place in taken:
                raise ConfigError(f"{taken[place]} and {path} would both be written to {place}: rename one")
            taken[place] = path
            yield Job(path, place)

    def is_whole(self, target: Path, config: EncodecConfig) -> bool:
        return is_whole_ecdc(target, layout_of(config))

    def write(self, job: Job, codec: Codec) -> tuple[float, int]:
        job.target.parent.mkdir(parents=True, exist_ok=True)
        done = encode_file(
            job.source,
            job.target,
            codec.model,
            bandwidth=codec.bandwidth,
            engine=codec.engine,
            model_name=codec.name,
        )
        return done.seconds, done.size_bytes
