"""A recording: the sound that gets one entry in a corpus, and where it lies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import Any

MOST_ID_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Member:
    """A file within a tar: its name, and the bytes of the tar that are its content."""

    name: str
    start: int
    size: int


@dataclass(frozen=True, slots=True)
class Recording:
    """One entry of a list of recordings.

    Attributes:
        id: unique in the corpus; a relative path without `..`, as files and members of tars are named after it.
        audio: the sound file, or the tar that holds it.
        start_s, duration_s: the part of the sound; a duration of None is up to its end.
        fields: what the list says besides, as JSON values; carried through.
        member: the sound within the tar `audio`; None where that is a sound file.
        siblings: the other files of its sample in the tar, by ending; carried through to tars.
        problem: why there is nothing to encode; empty where there is.
    """

    id: str
    audio: str
    start_s: float = 0.0
    duration_s: float | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    member: Member | None = None
    siblings: tuple[tuple[str, Member], ...] = ()
    problem: str = ""

    @property
    def name(self) -> str:
        """What errors call it: its file."""
        return f"{self.audio}: {self.member.name}" if self.member else self.audio

    def to_json(self) -> str:
        """One line, ASCII; equal for equal recordings."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Recording:
        """The recording of `to_json`."""
        values = json.loads(text)
        if values["member"]:
            values["member"] = Member(**values["member"])
        values["siblings"] = tuple((ending, Member(**member)) for ending, member in values["siblings"])
        return cls(**values)


def id_problem(name: str) -> str:
    """Why this cannot be a recording's id; empty where it can."""
    if not name or len(name.encode("utf-8", "surrogateescape")) > MOST_ID_BYTES:
        return f"an id has 1 to {MOST_ID_BYTES} bytes"
    if any(ord(character) < 32 or character == "\x7f" for character in name):
        return "an id holds no control characters"
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\\" in name or PurePosixPath(name).is_absolute():
        return "an id is a relative path: no '..', no '/' at its begin or end, no backslash"
    if len(parts[0]) > 1 and parts[0][1] == ":":
        return "an id is a relative path, without a drive"
    return ""
