"""`--trace`: a time line of a call, one JSON object a line, to be read while it is written."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Self, TextIO

import typer

from streaming_encodec.audio.files.atomic import not_written
from streaming_encodec.audio.files.targets import check_target

TraceOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Write a time line of the call, .jsonl: when each block of sound was said or heard."
    ),
]


def check_trace(path: Path | None, others: Iterable[Path | None]) -> None:
    """Raise FileFormatError where a trace cannot be written, or would destroy one of the command's other files."""
    if path is not None:
        check_target(path, [".jsonl"], others)


class Trace:
    """The time line's file; without a path nothing is written.

    Times, `at_s`, are of this machine's monotonic clock, which all its programs share.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file: TextIO | None = None

    def __enter__(self) -> Self:
        if self._path is not None:
            try:
                self._file = self._path.open("w", buffering=1, encoding="ascii")
            except OSError as error:
                raise not_written(self._path, error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def dials(self) -> None:
        """This program is about to call the relay."""
        self._write("dials", {})

    def joined(self) -> None:
        """The relay has let this program in."""
        self._write("joined", {})

    def block(self, first_sample: int, samples: int, **facts: Any) -> None:
        """A block of sound, counted from the first of the call: it is due to be heard now, or was said just now."""
        self._write("block", {"first_sample": first_sample, "samples": samples, **facts})

    def _write(self, event: str, facts: dict[str, Any]) -> None:
        if self._path is None or self._file is None:
            return
        try:
            self._file.write(json.dumps({"event": event, "at_s": time.monotonic(), **facts}) + "\n")
        except OSError as error:
            raise not_written(self._path, error) from error
