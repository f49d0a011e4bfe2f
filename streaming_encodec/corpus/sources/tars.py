"""WebDataset tars: files of one name before the first dot, one after the other, are a sample.

https://github.com/webdataset/webdataset: `KEY.flac`, `KEY.json`, `KEY.txt`, … A sample's sound is its one file with
the ending of a sound; fields come from its `.json` and `.txt`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from streaming_encodec.audio.files.source import unreadable
from streaming_encodec.corpus.recordings import Member, Recording, id_problem
from streaming_encodec.corpus.sources.base import SOUND_SUFFIXES
from streaming_encodec.corpus.sources.tar_members import Entry, tar_entries
from streaming_encodec.errors import FileFormatError
from streaming_encodec.json_text import MOST_BYTES, parse_json

_KEY = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]*)")


class Tars:
    """The samples of tars, in the order of the names. An id is the tar's name without ending, `/`, and the key.

    A sample that cannot be used, and the rest of a tar that is damaged or cut off, are recordings with a `problem`.
    """

    def __init__(self, paths: list[Path]) -> None:
        self._paths = sorted(paths)

    def __iter__(self) -> Iterator[Recording]:
        for path in self._paths:
            yield from self._samples(path)

    def skipped(self) -> list[Path]:
        return []

    def _samples(self, path: Path) -> Iterator[Recording]:
        entries = _Until(path)
        keyed = ((match[1], match[2], entry) for entry in entries if (match := _KEY.fullmatch(entry.member.name)))
        for key, sample in groupby(keyed, lambda found: found[0]):
            yield _recording(path, key, [(ending, entry) for _, ending, entry in sample])
        if entries.problem:
            yield Recording(path.stem, str(path), problem=entries.problem)


class _Until:
    """The entries of a tar up to where it is damaged; `problem` says where that is."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.problem = ""

    def __iter__(self) -> Iterator[Entry]:
        try:
            yield from tar_entries(self._path)
        except FileFormatError as error:
            self.problem = str(error)
        except OSError as error:
            self.problem = str(unreadable(self._path, error))


def _recording(path: Path, key: str, files: list[tuple[str, Entry]]) -> Recording:
    while key.startswith("./"):
        key = key[2:]
    name = f"{path.stem}/{key}"
    sounds = [entry for ending, entry in files if f".{ending.rpartition('.')[2]}".lower() in SOUND_SUFFIXES]
    siblings = [(ending, entry.member) for ending, entry in files if entry not in sounds and not entry.problem]
    problem = ""
    if unfit := id_problem(name):
        problem = f"the name {key!r:.200} cannot be used: {unfit}"
    elif len(sounds) != 1:
        problem = f"{key!r:.200} has {len(sounds) or 'no'} sound files: a sample has one"
    elif bad := [entry for _, entry in files if entry.problem]:
        problem = f"{bad[0].member.name!r:.200} is {bad[0].problem}, no file: pack the file itself"
    elif len({ending for ending, _ in files}) != len(files):
        problem = f"{key!r:.200} has two files of one name"
    if problem:
        return Recording(name, str(path), problem=f"{path}: {problem}")
    fields: dict[str, object] = {}
    for ending, member in siblings:
        if ending in ("json", "txt"):
            try:
                fields |= _fields(path, ending, member)
            except ValueError as error:
                return Recording(name, str(path), problem=f"{path}: {member.name!r:.200}: {error}")
    kept = tuple((ending, member) for ending, member in siblings if ending != "json")
    return Recording(name, str(path), fields=fields, member=sounds[0].member, siblings=kept)


def _fields(path: Path, ending: str, member: Member) -> dict[str, object]:
    """Raises ValueError: what it holds is none of that kind."""
    if member.size > MOST_BYTES:
        raise ValueError(f"is longer than {MOST_BYTES} bytes")
    with path.open("rb") as file:
        file.seek(member.start)
        text = file.read(member.size).decode("utf-8")
    if ending == "txt":
        return {"txt": text}
    values = parse_json(text)
    if not isinstance(values, dict):
        raise ValueError("is no JSON object")
    return values
