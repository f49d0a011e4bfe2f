"""Lists of recordings: `.txt` (a path a line), `.csv` and `.tsv` (with a header), `.jsonl` (an object a line).

The columns, or keys, `audio`, `start`, `duration` (seconds) and `id` say what to encode; all others are carried
through. Paths are relative to the list's folder.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from streaming_encodec.audio.files.source import unreadable
from streaming_encodec.corpus.recordings import Recording, id_problem
from streaming_encodec.corpus.sources.base import is_apple_double
from streaming_encodec.errors import ConfigError
from streaming_encodec.json_text import parse_json

MANIFEST_SUFFIXES = (".txt", ".csv", ".tsv", ".jsonl")

_MOST_LINE = 1 << 20
_LONGEST_S = 1e9


class Manifest:
    """A list of recordings."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._skipped: list[Path] = []

    def __iter__(self) -> Iterator[Recording]:
        self._skipped = []
        try:
            for line, entry in self._entries():
                try:
                    recording = self._recording(entry)
                except ValueError as error:
                    raise ConfigError(f"{self._path}, line {line}: {error}") from None
                if is_apple_double(Path(recording.audio)):
                    self._skipped.append(Path(recording.audio))
                else:
                    yield recording
        except OSError as error:
            raise unreadable(self._path, error) from error

    def skipped(self) -> list[Path]:
        return self._skipped

    def _entries(self) -> Iterator[tuple[int, Mapping[str, Any]]]:
        ending = self._path.suffix.lower()
        lines = self._lines("surrogateescape" if ending == ".txt" else "strict")
        if ending == ".txt":
            for number, line in lines:
                if line.strip():
                    yield number, {"audio": line.rstrip("\r\n")}
        elif ending == ".jsonl":
            for number, line in lines:
                if not line.strip():
                    continue
                try:
                    entry = parse_json(line)
                except ValueError as error:
                    raise ConfigError(f"{self._path}, line {number}: no JSON: {error}") from None
                if not isinstance(entry, dict):
                    raise ConfigError(f'{self._path}, line {number}: give an object, such as {{"audio": "a.wav"}}')
                yield number, entry
        else:
            yield from self._rows(lines, "\t" if ending == ".tsv" else ",")

    def _rows(self, lines: Iterator[tuple[int, str]], delimiter: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
        reader = csv.reader((line for _, line in lines), delimiter=delimiter, strict=True)
        try:
            names = next(reader, [])
            if len(set(names)) != len(names) or "audio" not in names:
                raise ConfigError(f"{self._path}: its first line must name the columns, each once, `audio` among them")
            for row in reader:
                if not row:
                    continue
                if len(row) != len(names):
                    raise ConfigError(
                        f"{self._path}, line {reader.line_num}: has {len(row)} columns, the first line {len(names)}"
                    )
                yield reader.line_num, dict(zip(names, row, strict=True))
        except csv.Error as error:
            raise ConfigError(f"{self._path}, line {reader.line_num}: no table: {error}") from None

    def _lines(self, errors: str) -> Iterator[tuple[int, str]]:
        number = 0
        try:
            with self._path.open(encoding="utf-8-sig", errors=errors, newline="") as file:
                while line := file.readline(_MOST_LINE + 1):
                    number += 1
                    if len(line) > _MOST_LINE:
                        raise ConfigError(f"{self._path}, line {number}: is longer than {_MOST_LINE} characters")
                    yield number, line
        except UnicodeDecodeError as error:
            raise ConfigError(f"{self._path}: is no UTF-8 after line {number} ({error.reason}): convert it") from None

    def _recording(self, entry: Mapping[str, Any]) -> Recording:
        """Raises ValueError with words that follow the line's number."""
        audio = entry.get("audio")
        if not isinstance(audio, str) or not audio or "\0" in audio:
            raise ValueError("names no `audio`")
        start, duration = _seconds(entry, "start"), _seconds(entry, "duration")
        if duration == 0:
            raise ValueError("`duration` is 0: give seconds, or leave it out for the rest of the file")
        name = entry.get("id")
        if name is None or name == "":
            name = _id_of(audio, start, duration)
        elif isinstance(name, int) and not isinstance(name, bool):
            name = str(name)
        if not isinstance(name, str):
            raise ValueError(f"`id` must be a text, not {name!r:.50}")
        if problem := id_problem(name):
            raise ValueError(f"the id {name!r:.100} cannot be used: {problem}")
        fields = {key: value for key, value in entry.items() if key not in ("audio", "start", "duration", "id")}
        return Recording(name, str(self._path.parent / audio), start or 0.0, duration, fields)


def _seconds(entry: Mapping[str, Any], name: str) -> float | None:
    value = entry.get(name)
    if value is None or value == "":
        return None
    try:
        seconds = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        seconds = math.nan
    if not 0 <= seconds <= _LONGEST_S:
        raise ValueError(f"`{name}` must be seconds, 0 or more, not {value!r:.50}")
    return seconds


def _id_of(audio: str, start: float | None, duration: float | None) -> str:
    """The path without its ending, and without what leads out of the corpus; a part of a file says which."""
    path = PurePosixPath(audio)
    stem = "/".join(part for part in path.with_suffix("").parts if part not in ("/", "..")) if path.name else audio
    if start is None and duration is None:
        return stem
    end = "" if duration is None else f"-{round(1000 * ((start or 0) + duration)):09d}"
    return f"{stem}-{round(1000 * (start or 0)):09d}{end}"
