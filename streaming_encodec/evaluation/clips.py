"""The folder of audio that a codec is evaluated on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from streaming_encodec.audio.files.sound import AudioReader
from streaming_encodec.errors import FileFormatError
from streaming_encodec.text_files import decode_text
from streaming_encodec.types import Pcm

MANIFEST = "manifest.jsonl"
SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif"})

SHORTEST_SECONDS = 1.0
"""PESQ and STOI need more than a word: shorter clips are refused."""


@dataclass(frozen=True, eq=False)
class Clip:
    """One recording; ``samples`` [T] at ``sample_rate``. Compared by identity, so that it can be a cache's key.

    ``text`` is the transcript; ``""`` excludes the clip from the word error rate (a language that the recogniser
    does not know well), ``None`` means that there is none.
    """

    name: str
    samples: Pcm
    sample_rate: int
    speaker: str = ""
    language: str = ""
    text: str | None = None
    source: str = ""
    licence: str = ""

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.sample_rate


def load_clips(folder: Path, sample_rate: int, limit: int | None = None) -> list[Clip]:
    """The clips of a folder, mono, at ``sample_rate``.

    If it has a ``manifest.jsonl``, its lines name the files, in order, and may give ``speaker``, ``language``,
    ``text``, ``source`` and ``licence``; otherwise every audio file under the folder is used. ``limit`` keeps clips of
    as many speakers as possible.

    Raises:
        FileFormatError: no such folder, an empty one, a clip that is too short, or a manifest that can't be read.
    """
    if not folder.is_dir():
        raise FileFormatError(f"{folder} is not a folder; give one that holds audio files")
    rows = _rows(folder)
    if not rows:
        raise FileFormatError(f"{folder}: no audio files ({' '.join(sorted(SUFFIXES))}); give a folder that holds some")
    return [_load(folder, row, sample_rate) for row in _spread(rows, limit)]


def shifted(clips: Sequence[Clip], places: int, frame_samples: int) -> list[Clip]:
    """The clips, then each again ``places - 1`` times, delayed by fractions of a frame.

    With few bits, the position of a sound within its frame decides which words are lost: one coding is one random
    sample.
    """
    again = [
        replace(
            clip,
            name=Path(clip.name).with_stem(f"{Path(clip.name).stem}+{place}").as_posix(),
            samples=np.pad(clip.samples, (place * frame_samples // places, 0)),
            speaker=clip.speaker or clip.name,
        )
        for place in range(1, places)
        for clip in clips
    ]
    return [*clips, *again]


def _rows(folder: Path) -> list[dict[str, str]]:
    manifest = folder / MANIFEST
    if not manifest.exists():
        found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
        return [{"file": path.relative_to(folder).as_posix()} for path in found]
    try:
        rows = [json.loads(line) for line in decode_text(manifest.read_bytes()).splitlines() if line.strip()]
        return [
            {key: str(value) for key, value in row.items() if value is not None} | {"file": str(row["file"])}
            for row in rows
        ]
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise FileFormatError(
            f"{manifest}: each line must be a JSON object with a 'file' ({error!r}); "
            "correct the line or remove the manifest"
        ) from error


def _spread(rows: list[dict[str, str]], limit: int | None) -> list[dict[str, str]]:
    if limit is None or limit >= len(rows):
        return rows
    heard: dict[str, int] = {}
    turns = []
    for place, row in enumerate(rows):
        speaker = row.get("speaker", row["file"])
        heard[speaker] = heard.get(speaker, 0) + 1
        turns.append((heard[speaker], place))
    return [rows[place] for _, place in sorted(sorted(turns)[:limit], key=lambda turn: turn[1])]


def _load(folder: Path, row: dict[str, str], sample_rate: int) -> Clip:
    path = folder / row["file"]
    with AudioReader(path, sample_rate, channels=1) as reader:
        samples = np.concatenate([block[0] for block in reader])
    if len(samples) < SHORTEST_SECONDS * sample_rate:
        raise FileFormatError(
            f"{path}: {len(samples) / sample_rate:.2f} s is too short to be judged; "
            f"join it with others of its speaker to {SHORTEST_SECONDS:g} s or more, or leave it out"
        )
    if float(np.abs(samples).max()) < 1e-4:
        raise FileFormatError(f"{path}: is silent; leave it out (silence is part of the robustness checks)")
    kept = {key: row.get(key, "") for key in ("speaker", "language", "source", "licence")}
    return Clip(row["file"], samples, sample_rate, text=row.get("text"), **kept)
