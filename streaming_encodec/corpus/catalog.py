"""What a list of recordings holds: found in one pass, in little memory, before any work."""

from __future__ import annotations

import hashlib
import json
import math
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from streaming_encodec.corpus.recordings import Recording
from streaming_encodec.corpus.sources.base import Source
from streaming_encodec.errors import ConfigError

_OURS = "id codes scales num_frames samples sample_rate model __key__ __url__ source audio start duration"
RESERVED = frozenset(_OURS.split())
"""Names that the output uses itself: a field of such a name is carried as `source_NAME`."""

_MOST_COLUMNS = 1000


@dataclass(frozen=True, slots=True)
class Catalog:
    """What a pass over a source found.

    Attributes:
        recordings: how many.
        seconds: of sound, if the list says it for each; else None.
        sha256: of the list: which recordings, in which order, with which fields.
        columns: the fields that are carried through, and each one's kind: `bool`, `int`, `float`, `text` or `json`.
        skipped: files that are no recordings.
    """

    recordings: int
    seconds: float | None
    sha256: str
    columns: dict[str, str]
    skipped: list[Path]


def take_stock(source: Source) -> Catalog:
    """Go through a source once.

    Raises:
        ConfigError: an id is there twice, or the list is empty or not to be understood.
        FileFormatError: the list cannot be read.
    """
    # Eight bytes a recording: a set of the names themselves would take hundreds.
    hashes, digest, columns = array("Q"), hashlib.sha256(), dict[str, str]()
    count, seconds = 0, 0.0
    for recording in source:
        count += 1
        seconds += math.nan if recording.duration_s is None else recording.duration_s
        digest.update(_identity(recording))
        if not recording.problem:
            hashes.append(_hash(recording.id))
        for name, value in carried(recording).items():
            kind = _kind(value)
            columns[name] = kind if name not in columns else _common(columns[name], kind)
        if len(columns) > _MOST_COLUMNS:
            raise ConfigError(f"the recordings have more than {_MOST_COLUMNS} different fields: put them into one")
    if not count:
        raise ConfigError("there is no recording in the list")
    values, times = np.unique(np.frombuffer(hashes, np.uint64), return_counts=True)
    if len(doubtful := values[times > 1]):
        _refuse_twins(source, set(doubtful.tolist()))
    kinds = {name: kind or "text" for name, kind in sorted(columns.items())}
    return Catalog(count, None if math.isnan(seconds) else seconds, digest.hexdigest(), kinds, source.skipped())


def carried(recording: Recording) -> dict[str, Any]:
    """A recording's fields under the names that they get in the output."""
    renamed: dict[str, Any] = {}
    for name, value in recording.fields.items():
        new = name
        while new in RESERVED or new in renamed or (new != name and new in recording.fields):
            new = f"source_{new}"
        renamed[new] = value
    return renamed


def as_kind(value: Any, kind: str) -> Any:
    """A field's value as the kind of its column."""
    if value is None:
        return None
    if kind == "json":
        return json.dumps(value)
    return float(value) if kind == "float" else value


def _identity(recording: Recording) -> bytes:
    """What makes a recording that one and no other: not where it lies, since a disk may be mounted elsewhere."""
    member = recording.member and (recording.member.name, recording.member.size)
    facts = (recording.id, recording.start_s, recording.duration_s, recording.fields, member, bool(recording.problem))
    return json.dumps(facts).encode("ascii") + b"\n"


def _kind(value: Any) -> str:
    """Empty for a value that may be of any kind."""
    match value:
        case None:
            return ""
        case bool():
            return "bool"
        case int() if -(2**63) <= value < 2**63:
            return "int"
        case float():
            return "float"
        case str() if value.isascii() or _is_text(value):
            return "text"
    return "json"


def _is_text(value: str) -> bool:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _common(one: str, other: str) -> str:
    if one == other or not other:
        return one
    if not one:
        return other
    return "float" if {one, other} == {"int", "float"} else "json"


def _hash(name: str) -> int:
    data = name.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def _refuse_twins(recordings: Iterable[Recording], doubtful: set[int]) -> None:
    """Raise ConfigError for the first id that is there twice: different ids may have one hash."""
    seen: dict[str, str] = {}
    for recording in recordings:
        if recording.problem or _hash(recording.id) not in doubtful:
            continue
        if recording.id in seen:
            raise ConfigError(
                f"{seen[recording.id]} and {recording.name} both have the id {recording.id!r}, and would be written "
                "to one place: rename one"
            )
        seen[recording.id] = recording.name
