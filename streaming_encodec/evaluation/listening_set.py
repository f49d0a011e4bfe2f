"""The listening set: real speech of speakers outside the training data, from Debian packages.

    streaming-encodec evaluate --build-set listening-set

The packages' licences (GPL, CC-BY-SA) allow listening and measuring, and anyone can build the same set. They are not
permissive, so nothing of it may be trained on or shipped.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from streaming_encodec.audio.files.atomic import write_text
from streaming_encodec.errors import FileFormatError
from streaming_encodec.evaluation.clips import MANIFEST
from streaming_encodec.training.decoding import read_audio, write_flac
from streaming_encodec.training.recipe import Source, fetch_debian
from streaming_encodec.types import Pcm

SAMPLE_RATE = 24_000
_PAUSE_SECONDS = 0.25

_STAMPS = "usr/share/tuxpaint/stamps"
_SPHINX = "usr/share/pocketsphinx/test/data"
_ASTERISK = "usr/share/asterisk/sounds"
_POTATO = "usr/share/ktuberling/sounds"


@dataclass(frozen=True)
class Item:
    """One clip: files of one speaker, joined with short pauses.

    ``text``: the transcript, if it is not in the package; ``""`` excludes the clip from the word error rate. ``None``
    reads it from the package (:func:`_package_text`).
    """

    name: str
    package: str
    speaker: str
    language: str
    licence: str
    files: tuple[str, ...]
    text: str | None = ""


def _stamp(language: str, *files: str) -> Item:
    """Tux Paint's stamp descriptions, 44.1 kHz, one volunteer a language."""
    return Item(
        f"tuxpaint-{language}",
        "tuxpaint-stamps-default",
        f"tuxpaint-{language}",
        language,
        "GPL-2.0",
        tuple(f"{_STAMPS}/{file}_desc_{language}.ogg" for file in files),
    )


def _austen(number: str) -> Item:
    """A LibriVox reading of Sense and Sensibility, 16 kHz, with transcription."""
    file = f"{_SPHINX}/librivox/sense_and_sensibility_01_austen_64kb-{number}.wav"
    return Item(f"austen-{number}", "pocketsphinx-testdata", "librivox-austen", "en", "BSD-2", (file,), None)


def _potato(language: str, *words: str) -> Item:
    """KTuberling's single words, 44.1 or 48 kHz, joined; too short for a recogniser."""
    files = tuple(f"{_POTATO}/{language}/{word}" for word in words)
    return Item(f"ktuberling-{language}", "ktuberling-data", f"ktuberling-{language}", language, "GPL-2.0", files)


_WORDS = ("egypt_pyramid", "moon_astronaut", "moon_satellite", "pizzeria_pineapple", "tv_bicycle")

ITEMS: tuple[Item, ...] = (
    _austen("0870"),
    _austen("0890"),
    _austen("0920"),
    Item(
        "cards-005", "pocketsphinx-testdata", "pocketsphinx-cards", "en", "BSD-2",
        (f"{_SPHINX}/cards/005.wav",), None,
    ),
    Item(
        "commands", "pocketsphinx-testdata", "pocketsphinx-commands", "en", "BSD-2",
        (f"{_SPHINX}/goforward.raw", f"{_SPHINX}/something.raw"),
        "go forward ten meters go somewhere and do something",
    ),
    Item(
        "allison-agent", "asterisk-core-sounds-en-g722", "Allison", "en", "CC-BY-SA-3.0",
        (f"{_ASTERISK}/en_US_f_Allison/agent-alreadyon.g722",),
        "that agent is already logged on please enter your agent number followed by the pound key",
    ),
    Item(
        "allison-privacy", "asterisk-core-sounds-en-g722", "Allison", "en", "CC-BY-SA-3.0",
        (f"{_ASTERISK}/en_US_f_Allison/privacy-unident.g722",),
        "the party you are trying to reach does not accept unidentified calls",
    ),
    Item(
        "june-queue", "asterisk-core-sounds-fr-g722", "June", "fr", "CC-BY-SA-3.0",
        (f"{_ASTERISK}/fr_CA_f_June/queue-periodic-announce.g722",),
    ),
    _stamp("fr", "space/planets/9_pluto"),
    _stamp("ru", "symbols/alphabets/asl/asl_w"),
    _stamp("ro", "military/vehicles/bradley"),
    _stamp("bg", "symbols/chess/w_5_rook"),
    _stamp("el", "town/roadsigns/stoplight_03_green"),
    _stamp("da", "space/planets/2_venus"),
    _stamp("ca", "town/roadsigns/stoplight_02_yellow"),
    _potato("en", *(f"{word}.ogg" for word in _WORDS)),
    _potato("nn", *(f"{word}.opus" for word in _WORDS)),
)  # fmt: skip
"""The clips of the set.

Allison is the speaker of the training's validation; none of these speakers is trained on.
"""


def build_listening_set(
    out: Path,
    items: Sequence[Item] = ITEMS,
    fetch: Callable[[Source, Path], Path] = fetch_debian,
    on_clip: Callable[[str], None] | None = None,
) -> Path:
    """Write ``out/<name>.flac`` at 24 kHz and ``out/manifest.jsonl``; each package is fetched once. Returns ``out``.

    Raises:
        ConfigError: ``apt-get`` or ``dpkg-deb`` is missing.
        FileFormatError: a package can't be fetched, or has other files than expected.
    """
    out.mkdir(parents=True, exist_ok=True)
    rows: dict[str, dict[str, object]] = {}
    for package in dict.fromkeys(item.package for item in items):
        with tempfile.TemporaryDirectory() as work:
            root = fetch(Source(package, "debian", package, "listening only", "eval"), Path(work))
            for item in (item for item in items if item.package == package):
                rows[item.name] = _make(item, root, out)
                if on_clip is not None:
                    on_clip(item.name)
    lines = [json.dumps(rows[item.name], ensure_ascii=False) for item in items]
    write_text(out / MANIFEST, "\n".join(lines) + "\n")
    return out


def _make(item: Item, root: Path, out: Path) -> dict[str, object]:
    pause = np.zeros(round(_PAUSE_SECONDS * SAMPLE_RATE), np.float32)
    parts: list[Pcm] = []
    for file in item.files:
        path = root / file
        if not path.exists():
            raise FileFormatError(
                f"{item.package} has no {file}: another version of the package? Leave {item.name!r} out"
            )
        parts += [_read(path), pause]
    samples = np.concatenate(parts[:-1])
    write_flac(out / f"{item.name}.flac", samples, SAMPLE_RATE)
    text = item.text if item.text is not None else " ".join(_package_text(root / file) for file in item.files)
    return {
        "file": f"{item.name}.flac",
        "seconds": round(len(samples) / SAMPLE_RATE, 3),
        "speaker": item.speaker,
        "language": item.language,
        "text": text,
        "source": f"Debian {item.package}: {', '.join(item.files)}",
        "licence": item.licence,
    }


def _read(path: Path) -> Pcm:
    if path.suffix != ".raw":
        return read_audio(path, SAMPLE_RATE)
    samples, rate = soundfile.read(
        path, format="RAW", samplerate=16_000, channels=1, subtype="PCM_16", endian="LITTLE", dtype="float32"
    )
    resampled: Pcm = soxr.resample(samples, rate, SAMPLE_RATE)
    return resampled


def _package_text(path: Path) -> str:
    """The transcript from the ``words (file name)`` lines of the file beside a recording."""
    for transcription in [*path.parent.glob("*transcription")]:
        for line in transcription.read_text(encoding="utf-8").splitlines():
            match = re.fullmatch(r"(.*)\((.+)\)\s*", line)
            if match and match[2] == path.stem:
                return " ".join(re.sub(r"</?s>", " ", match[1]).split())
    raise FileFormatError(f"no transcription of {path.name} beside it: another version of the package?")
