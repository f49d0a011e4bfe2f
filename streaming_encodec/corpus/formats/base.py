"""What a format is: which files a job writes, and how they are read again."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from streaming_encodec.corpus.catalog import carried
from streaming_encodec.corpus.dataset import Dataset
from streaming_encodec.corpus.encoding import Encoding
from streaming_encodec.corpus.recordings import Recording

Line: TypeAlias = dict[str, Any]
"""An entry of `done.jsonl`, a JSON object. It says what is there, never when or how fast: so it is always the same."""

Failed: TypeAlias = Callable[[Recording, str], None]
"""Takes a recording that could not be written, and why."""


class Format(Protocol):
    """A way to write. Objects go to other processes, so they are small and can be pickled.

    A format of shards writes one file for many recordings, whole or not at all. Any other writes each recording for
    itself; then a job's number is no part of any name.
    """

    name: str
    by_shard: bool

    def write(
        self,
        folder: Path,
        number: int,
        encoded: Iterable[tuple[Recording, Encoding]],
        dataset: Dataset,
        failed: Failed,
    ) -> list[Line]:
        """Write the recordings of a job; `encoded` computes them as it is asked for the next.

        Raises:
            FileFormatError: the disk is full, or a shard cannot be written. Nothing of the shard is left behind.
        """
        ...

    def found(self, folder: Path, key: str, dataset: Dataset, line: Line | None) -> Line | None:
        """The line of what lies there complete, for a shard's number or a recording's id; None where it does not.

        Args:
            line: what `done.jsonl` says of it.
        """
        ...

    def files_of(self, key: str) -> tuple[str, ...]:
        """The names of the files that belong to a shard's number or a recording's id."""
        ...

    def read(self, folder: Path, number: int, wanted: set[str], dataset: Dataset) -> dict[str, Encoding]:
        """The codes of recordings by id, from the shard of this number.

        Raises:
            FileFormatError: a file is missing or damaged.
        """
        ...


def stops_all(error: BaseException) -> bool:
    """Whether a file could not be written for a reason that holds for all others too."""
    cause = error if isinstance(error, OSError) else error.__cause__
    return isinstance(cause, OSError) and cause.errno in (
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.EIO,
        errno.EMFILE,
        errno.ENFILE,
    )


def one_line(error: BaseException) -> str:
    """An error's words on one line."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split())


def with_fields(line: Line, recording: Recording) -> Line:
    """The line of a recording, with what its list says of it besides."""
    fields = carried(recording)
    return line | {"fields": fields} if fields else line


def json_bytes(value: Any) -> bytes:
    """JSON in UTF-8; where a text is none, such as a strange file name, with escapes."""
    try:
        return json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(value).encode("ascii")


def shard_name(number: int, ending: str) -> str:
    """The name of a shard's file."""
    return f"codes-{number:06d}{ending}"


def shard_line(number: int, name: str, written: Path, recordings: int, samples: int) -> Line:
    """What `done.jsonl` says of a shard. name: of its file; written: where that lies at present."""
    with written.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    size = written.stat().st_size
    return {
        "shard": number,
        "file": name,
        "recordings": recordings,
        "samples": samples,
        "bytes": size,
        "sha256": digest,
    }


def shard_is_there(path: Path, line: Line | None) -> bool:
    """Whether a shard's file has the size that its line says: it got its name only when it was complete."""
    try:
        return line is not None and path.stat().st_size == line.get("bytes")
    except OSError:
        return False


def facts_of(recording: Recording, encoding: Encoding, dataset: Dataset) -> Line:
    """What each format says of a recording."""
    return {
        "id": recording.id,
        "num_frames": int(encoding.codes.shape[1]),
        "samples": encoding.samples,
        "sample_rate": dataset.sample_rate,
        "model": dataset.model,
    }
