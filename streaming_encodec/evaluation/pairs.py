"""A blind listening test by pairs: one HTML page with the sounds inside, and a key file that identifies them.

    streaming-encodec evaluate FOLDER --listen pairs.html
    streaming-encodec answers pairs.key.json answers-….json …

The second line counts the answers that listeners saved.
"""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from streaming_encodec.errors import FileFormatError
from streaming_encodec.evaluation.clips import Clip
from streaming_encodec.text_files import decode_text
from streaming_encodec.types import Pcm

FORMAT = 1
"""Version of the key's layout and of the answers'."""


@dataclass(frozen=True)
class Comparison:
    """Two codecs by name, with the decoded clips of each."""

    first: str
    first_sounds: Sequence[Pcm]
    second: str
    second_sounds: Sequence[Pcm]


@dataclass(frozen=True)
class PairTest:
    """``page`` is the HTML; ``key`` says for each pair which clip it is and what A and B are."""

    page: str
    key: dict[str, Any]


def make_pairs(clips: Sequence[Clip], comparisons: Sequence[Comparison], seed: int = 0) -> PairTest:
    """A pair for each clip and comparison, in random order, the two in random order too.

    A pair's sounds have the level (RMS) of its original, so that loudness does not decide. The page names neither
    clips nor codecs; equal seeds and sounds give the same page.
    """
    rng = np.random.default_rng(seed)
    places = [(clip, one) for one in range(len(comparisons)) for clip in range(len(clips))]
    sounds: dict[str, str] = {}
    shown, kept = [], []
    for pair, place in enumerate(rng.permutation(len(places)), start=1):
        number, which = places[place]
        clip, comparison = clips[number], comparisons[which]
        sides = [
            (comparison.first, comparison.first_sounds[number]),
            (comparison.second, comparison.second_sounds[number]),
        ]
        if rng.integers(2):
            sides.reverse()
        level = [clip.samples, *(_like(clip.samples, sound) for _, sound in sides)]
        loudest = max(1.0, *(float(np.abs(sound).max()) for sound in level))
        ids = [_embed(sound / np.float32(loudest), clip.sample_rate, sounds) for sound in level]
        shown.append(dict(zip(("original", "a", "b"), ids, strict=True)))
        kept.append({"pair": pair, "clip": clip.name, "a": sides[0][0], "b": sides[1][0]})
    page = sha256(json.dumps([seed, shown, kept]).encode()).hexdigest()[:16]
    # By id, which does not identify the sound.
    data = {"page": page, "pairs": shown, "sounds": dict(sorted(sounds.items()))}
    template = files("streaming_encodec.evaluation").joinpath("pairs.html").read_text(encoding="utf-8")
    return PairTest(
        template.replace("/*DATA*/null", json.dumps(data)),
        {"format": FORMAT, "page": page, "seed": seed, "pairs": kept},
    )


def _like(original: Pcm, sound: Pcm) -> Pcm:
    """``sound`` at the level of ``original``; silence is unchanged."""
    wanted, found = (float(np.sqrt(np.mean(np.square(s, dtype=np.float64)))) for s in (original, sound))
    return sound * np.float32(wanted / found) if found > 0 else sound


def _embed(sound: Pcm, sample_rate: int, sounds: dict[str, str]) -> str:
    """Add a sound to ``sounds`` as a data URI of FLAC, which every browser plays; returns its id."""
    buffer = io.BytesIO()
    soundfile.write(buffer, sound, sample_rate, format="FLAC", subtype="PCM_16")
    name = sha256(buffer.getvalue()).hexdigest()[:12]
    sounds[name] = "data:audio/flac;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    return name


@dataclass
class Count:
    """How often the first of two was preferred, the second, and neither."""

    first: int = 0
    second: int = 0
    same: int = 0

    @property
    def chance(self) -> float:
        """Two-sided sign test: the probability of such a split if both are alike; 1 if all are undecided."""
        decided, fewer = self.first + self.second, min(self.first, self.second)
        tail = sum(math.comb(decided, k) for k in range(fewer + 1)) / 2**decided
        return float(min(1.0, 2 * tail))


def count_answers(key: dict[str, Any], answers: Sequence[dict[str, Any]]) -> dict[tuple[str, str], Count]:
    """The answers of any number of listeners to one page, for each comparison.

    Raises:
        FileFormatError: answers to another page, or files of another layout.
    """
    counts: dict[tuple[str, str], Count] = {}
    try:
        pairs = {pair["pair"]: pair for pair in key["pairs"]}
        for result in answers:
            if result["page"] != key["page"]:
                raise FileFormatError("these answers belong to another page than the key; give the key of their page")
            for answer in result["answers"]:
                _count(counts, pairs[answer["pair"]], answer["choice"])
    except (KeyError, TypeError) as error:
        raise FileFormatError(
            f"not a key and answers of this listening test ({error!r}); give KEY.key.json, then the answers"
        ) from error
    return counts


def _count(counts: dict[tuple[str, str], Count], pair: dict[str, Any], choice: str | None) -> None:
    first, second = sorted((pair["a"], pair["b"]))
    count = counts.setdefault((first, second), Count())
    if choice == "same":
        count.same += 1
    elif choice is not None:
        count.first += pair[choice] == first
        count.second += pair[choice] == second


def read_answers(path: Path) -> dict[str, Any]:
    """A key, or a file of answers. Raises FileFormatError where it is neither."""
    try:
        found = json.loads(decode_text(path.read_bytes()))
    except OSError as error:
        raise FileFormatError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise FileFormatError(f"{path}: is not JSON ({error}); give a key, then files of answers") from error
    if not isinstance(found, dict):
        raise FileFormatError(f"{path}: is not a key or a file of answers")
    return found
