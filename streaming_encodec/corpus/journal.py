"""`done.jsonl` and `failed.jsonl`: what of a corpus is there, and what could not be read.

While a run lasts, lines are appended; a run that is killed leaves at most one line cut off, which counts as not there.
At its end a run writes both files anew in the order of the list, so that they do not depend on how often it was
interrupted. A run with `--shard I/N` has files of its own, `done-I-of-N.jsonl`, since many machines cannot append to
one file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from streaming_encodec.audio.files.atomic import not_written, write_by
from streaming_encodec.audio.files.source import unreadable
from streaming_encodec.corpus.formats.base import Line, json_bytes
from streaming_encodec.errors import ConfigError


def parse_part(text: str) -> tuple[int, int]:
    """`I/N`, with I from 0 to N - 1.

    Raises:
        ConfigError: it is none.
    """
    number, slash, count = text.partition("/")
    if slash and number.isascii() and count.isascii() and number.isdecimal() and count.isdecimal():
        part = int(number), int(count)
        if part[0] < part[1] <= 1_000_000:
            return part
    raise ConfigError(f"a part of the work is I/N with I from 0 to N - 1, such as 0/16 and 15/16, not {text!r:.50}")


def part_suffix(part: tuple[int, int]) -> str:
    """What distinguishes the names of a part's files from those of other parts; empty for the whole."""
    number, count = part
    return "" if count == 1 else f"-{number:0{len(str(count - 1))}d}-of-{count}"


class Journal:
    """The two files of one run. A context manager.

    Attributes:
        done: lines by shard number (as text) or id, of this and all other parts.
        failed: lines of this part by shard number or id.
    """

    def __init__(self, folder: Path, part: tuple[int, int], by_shard: bool) -> None:
        """
        Raises:
            FileFormatError: a file cannot be read.
        """
        self._key = "shard" if by_shard else "id"
        self._by_shard = by_shard
        suffix = part_suffix(part)
        self._done_path, self._failed_path = folder / f"done{suffix}.jsonl", folder / f"failed{suffix}.jsonl"
        self.done: dict[str, Line] = {}
        for path in sorted(folder.glob("done*.jsonl")):
            self.done |= {str(line[self._key]): line for line in _read(path) if self._key in line}
        self.failed: dict[str, list[Line]] = {}
        for line in _read(self._failed_path):
            if self._key in line and isinstance(line.get("id"), str):
                self.failed.setdefault(str(line[self._key]), []).append(line)
        self._files: list[BinaryIO] = []

    def begin(self, keep: Iterable[str]) -> None:
        """Start to append, with the lines of these keys and without all others.

        Raises:
            FileFormatError: the folder cannot be written.
        """
        kept = set(keep)
        self.failed = {key: lines for key, lines in self.failed.items() if key in kept}
        self._rewrite([self.done[key] for key in kept if key in self.done])
        try:
            self._files = [path.open("ab") for path in (self._done_path, self._failed_path)]
        except OSError as error:
            raise not_written(self._done_path, error) from error

    def add(self, lines: list[Line], failed: list[Line]) -> None:
        """Append what a job has done. A shard's failures are on the disk before the line that says it is done.

        Raises:
            FileFormatError: the disk is full.
        """
        for line in failed:
            self.failed.setdefault(str(line[self._key]), []).append(line)
        for line in lines:
            self.done[str(line[self._key])] = line
        for file, path, new in zip(
            self._files[::-1], (self._failed_path, self._done_path), (failed, lines), strict=True
        ):
            if not new:
                continue
            try:
                file.write(b"".join(json_bytes(line) + b"\n" for line in new))
                file.flush()
                if self._by_shard:
                    os.fsync(file.fileno())
            except OSError as error:
                raise not_written(path, error) from error

    def finish(self, order: Iterable[str]) -> None:
        """Write both files again, with the lines of these keys, in this order.

        Raises:
            FileFormatError: the disk is full; the lines are there in another order.
        """
        self.__exit__(None, None, None)
        self._rewrite_in(list(order))

    def _rewrite_in(self, order: list[str]) -> None:
        self._rewrite([self.done[key] for key in order if key in self.done], order)

    def _rewrite(self, done: list[Line], order: Iterable[str] | None = None) -> None:
        keys = self.failed if order is None else [key for key in order if key in self.failed]
        failed = [line for key in keys for line in self.failed[key]]
        for path, lines in ((self._failed_path, failed), (self._done_path, done)):
            text = b"".join(json_bytes(line) + b"\n" for line in lines)
            write_by(path, lambda temporary, text=text: temporary.write_bytes(text))  # type: ignore[misc]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files:
            file.close()
        self._files = []


def _read(path: Path) -> Iterator[Line]:
    """The whole lines of a file; none where it is missing."""
    try:
        with path.open("rb") as file:
            for text in file:
                try:
                    line = json.loads(text)
                except ValueError:
                    continue  # cut off by a machine that died, and continued by the next run
                if isinstance(line, dict):
                    yield line
    except FileNotFoundError:
        return
    except OSError as error:
        raise unreadable(path, error) from error
