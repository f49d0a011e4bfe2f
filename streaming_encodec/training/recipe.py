"""The data recipe: from public packages and folders to one folder of 24 kHz FLAC with a manifest.

The manifest states source, licence, speaker and split of every clip. Splits are by speaker: ``train`` for
learning, ``valid`` for the loop's own measurements, ``eval`` for the final report. ``train`` must be permissive, and
:func:`build_dataset` refuses a source that is not.
"""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from streaming_encodec.audio.files.atomic import write_text
from streaming_encodec.errors import ConfigError, FileFormatError
from streaming_encodec.training.decoding import SUFFIXES, bandwidth_hz, read_audio, write_flac
from streaming_encodec.training.listing import HeldOut, Listed, Split, read_listing

Kind = Literal["debian", "npm", "folder"]

PERMISSIVE = frozenset(
    {"Apache-2.0", "MIT", "BSD-like", "CC0-1.0", "CC-BY", "CC-BY-3.0", "CC-BY-4.0", "public domain", "user-supplied"}
)
"""Licences that allow training: they require attribution at most."""

RESERVED_VOICES = frozenset(
    {"af_nova", "am_fenrir", "bf_lily", "bm_lewis", "em_alex", "ff_siwis", "hm_psi", "pm_santa"}
)
"""Kokoro voices kept for evaluation: a clip that uses one, alone or in a blend, goes to ``eval``."""

VALIDATION_VOICES = frozenset({"bm_daniel", "if_sara"})
"""Kokoro voices held out of training for the loop's own validation."""


_LONGEST_S = 30.0
"""Clips are at most this long: each segment that is drawn decodes the whole clip."""


@dataclass(frozen=True)
class Source:
    """One package or folder of audio.

    ``under`` is the folder inside the unpacked package that holds the audio; ``speaker`` is the name, for sources of
    one speaker (``""``: from a manifest of the folder, else the name of the file's folder).
    """

    name: str
    kind: Kind
    location: str
    licence: str
    split: Split
    speaker: str = ""
    under: str = ""
    content: Literal["speech", "music", "noise"] = "speech"
    credit: str = ""
    skip: tuple[str, ...] = ()


@dataclass(frozen=True)
class Clip:
    """One line of ``manifest.jsonl``: ``seconds`` at the rate of the data set; at ``bandwidth_hz`` its sound ends."""

    file: str
    seconds: float
    source: str
    licence: str
    speaker: str
    split: Split
    content: str
    bandwidth_hz: int | None = None


SOURCES: tuple[Source, ...] = (
    Source(
        "festvox-ru", "debian", "festvox-ru", "BSD-like", "train", "msu_ru_nsh",
        "usr/share/festival/voices/russian/msu_ru_nsh_clunits/wav", credit="Nickolay V. Shmyrev",
    ),
    Source(
        "asterisk-ru", "debian", "asterisk-core-sounds-ru-g722", "CC-BY-3.0", "train", "IvrvoiceRU",
        "usr/share/asterisk/sounds", credit="Maxim Topal, ivrvoice.ru", skip=("silence",),
    ),
    Source(
        "asterisk-it", "debian", "asterisk-core-sounds-it-g722", "CC-BY-3.0", "train", "Carlo",
        "usr/share/asterisk/sounds", credit="Carlo Flora, carloflora.com", skip=("silence",),
    ),
    Source(
        "asterisk-en", "debian", "asterisk-core-sounds-en-g722", "CC-BY-SA-3.0", "valid", "Allison",
        "usr/share/asterisk/sounds", credit="Allison Smith, theivrvoice.com", skip=("silence",),
    ),
    Source(
        "supersonic-samples", "npm", "supersonic-scsynth-samples", "CC0-1.0", "train", "music",
        "package/samples", content="music", credit="Sonic Pi sample authors",
    ),
)  # fmt: skip
"""Permissive packages for the shipped weights, and one real speaker for validation only."""


def fetch_debian(source: Source, into: Path) -> Path:
    """Download a Debian package with ``apt-get`` and unpack it; no installation, no root."""
    _need_tool("apt-get", source)
    _need_tool("dpkg-deb", source)
    _call(["apt-get", "download", source.location], into, source)
    package = next(iter(sorted(into.glob(f"{source.location}_*.deb"))))
    _call(["dpkg-deb", "-x", str(package), str(into / "unpacked")], into, source)
    package.unlink()
    return into / "unpacked" / source.under


def fetch_npm(source: Source, into: Path) -> Path:
    """Download an npm package with ``npm pack`` and unpack it; its scripts never run."""
    _need_tool("npm", source)
    _call(["npm", "pack", "--ignore-scripts", source.location], into, source)
    package = next(iter(sorted(into.glob("*.tgz"))))
    _unpack(package, into / "unpacked")
    package.unlink()
    return into / "unpacked" / source.under


def _unpack(package: Path, into: Path) -> None:
    """The plain files of a tar archive; ``extractall`` is safe only in Python 3.11.4 and later."""
    with tarfile.open(package) as archive:
        for member in archive:
            inside = PurePosixPath(member.name)
            if inside.is_absolute() or ".." in inside.parts:
                raise FileFormatError(f"{package.name} holds {member.name!r}, which lies outside of it: don't use it")
            content = archive.extractfile(member) if member.isfile() else None
            if content is None:  # a folder, or a link or device that no audio needs
                continue
            path = into / inside
            path.parent.mkdir(parents=True, exist_ok=True)
            with content, path.open("wb") as file:
                shutil.copyfileobj(content, file)


def fetch_folder(source: Source, into: Path) -> Path:
    """A folder needs no download."""
    folder = Path(source.location)
    if not folder.is_dir():
        raise FileFormatError(f"source {source.name!r}: {folder} is not a folder; give one that holds audio files")
    return folder


FETCHERS: dict[Kind, Callable[[Source, Path], Path]] = {
    "debian": fetch_debian,
    "npm": fetch_npm,
    "folder": fetch_folder,
}


def folder_sources(folders: Sequence[Path], noise: Sequence[Path] = ()) -> tuple[Source, ...]:
    """The user's folders as sources, each with a unique name.

    Sounds of the ``noise`` folders are mixed into speech, never coded alone.
    """
    taken = {source.name for source in SOURCES}
    both = [*folders, *noise]
    made = []
    for number_of, folder in enumerate(both):
        parts = [part for part in folder.resolve().parts if part != folder.anchor] or ["folder"]
        names = ["-".join(parts[-count:]) for count in range(1, len(parts) + 1)]
        names += [f"{names[-1]}-{number}" for number in range(2, len(both) + 2)]
        name = next(name for name in names if name not in taken)
        taken.add(name)
        content: Literal["speech", "noise"] = "noise" if number_of >= len(folders) else "speech"
        made.append(Source(name, "folder", str(folder), "user-supplied", "train", content=content))
    return tuple(made)


def build_dataset(
    out: Path, sources: Sequence[Source], sample_rate: int = 24000, min_seconds: float = 0.4,
    held_out: HeldOut | None = None,
    on_clip: Callable[[Clip], None] | None = None, on_skip: Callable[[str], None] | None = None,
) -> list[Clip]:  # fmt: skip
    """Write ``out/<source>/<n>.flac``, ``out/manifest.jsonl`` and ``out/SOURCES.json``; return the clips.

    A package whose folder has a ``done`` mark is not fetched again, so an interrupted build resumes; the user's folders
    may have changed and are read each time. Their files that can't be read, or whose licence forbids training, are
    left out and reported to ``on_skip``. ``held_out`` sets the split of its speakers. Recordings longer than half a
    minute are cut into equal parts.

    Raises:
        ConfigError: a ``train`` source whose licence is not permissive, or two sources of one name.
        FileFormatError: a source is not available, or empty.
    """
    names = [source.name for source in sources]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"two sources are named {', '.join(doubled)}: give each a name of its own")
    for source in sources:
        if source.split == "train" and source.licence not in PERMISSIVE:
            raise ConfigError(
                f"source {source.name!r} has licence {source.licence!r} and split 'train': only permissive "
                f"audio may be learned from ({', '.join(sorted(PERMISSIVE))}); use split 'valid' or 'eval'"
            )
    out.mkdir(parents=True, exist_ok=True)
    clips: list[Clip] = []
    for source in sources:
        done = out / source.name / "done.jsonl"
        if source.kind == "folder":
            _forget(source, out, done)
        if not done.exists():
            with tempfile.TemporaryDirectory() as work:
                folder = FETCHERS[source.kind](source, Path(work))
                made = list(_convert(source, folder, out, sample_rate, min_seconds, held_out or HeldOut(), on_skip))
            write_manifest(done, made)
        for clip in read_manifest(done):
            clips.append(clip)
            if on_clip is not None:
                on_clip(clip)
    write_manifest(out / "manifest.jsonl", clips)
    write_text(out / "SOURCES.json", json.dumps([asdict(s) for s in sources], indent=1) + "\n")
    return clips


def _forget(source: Source, out: Path, done: Path) -> None:
    """Remove the files that an earlier build made from a folder, and nothing else."""
    if Path(source.location).resolve() in ((out / source.name).resolve(), out.resolve()):
        raise ConfigError(f"{source.location} is where its own clips would go: give another folder for the data set")
    if done.exists():
        for clip in read_manifest(done):
            (out / clip.file).unlink(missing_ok=True)
        done.unlink()


def _convert(
    source: Source,
    folder: Path,
    out: Path,
    sample_rate: int,
    min_seconds: float,
    held_out: HeldOut,
    on_skip: Callable[[str], None] | None,
) -> Iterator[Clip]:
    listing = read_listing(folder)
    files = _sound_files(source, folder, out)
    (out / source.name).mkdir(exist_ok=True)
    unread = 0
    for number, path in enumerate(files):
        row = listing.get(path.resolve(), Listed())
        said = _about(source, row, path, held_out)
        if isinstance(said, str):
            if on_skip is not None and said:
                on_skip(said)
            continue
        try:
            samples = read_audio(path, sample_rate)
        except FileFormatError as error:
            unread += 1
            if source.kind != "folder" or unread == len(files):
                raise
            if on_skip is not None:
                on_skip(str(error))
            continue
        if said.bandwidth_hz is None:
            said = replace(said, bandwidth_hz=bandwidth_hz(samples, sample_rate))
        parts = np.array_split(samples, max(1, math.ceil(len(samples) / (_LONGEST_S * sample_rate))))
        for part, piece in enumerate(parts):
            if len(piece) < min_seconds * sample_rate or float(np.abs(piece).max()) < 1e-3:
                continue
            target = f"{source.name}/{number:05d}{f'-{part:03d}' if len(parts) > 1 else ''}.flac"
            write_flac(out / target, piece, sample_rate)
            yield replace(said, file=target, seconds=round(len(piece) / sample_rate, 3))


def _sound_files(source: Source, folder: Path, out: Path) -> list[Path]:
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    files = [p for p in files if not any(part in source.skip for part in p.relative_to(folder).parts)]
    if out.resolve().is_relative_to(folder.resolve()):  # the data set itself is no recording
        files = [p for p in files if not p.resolve().is_relative_to(out.resolve())]
    if not files:
        raise FileFormatError(f"source {source.name!r}: no audio under {folder} ({', '.join(sorted(SUFFIXES))})")
    return files


def _about(source: Source, row: Listed, path: Path, held_out: HeldOut) -> Clip | str:
    """A file's line of the manifest, without name and length; or why it is left out, empty if it is held out."""
    name, licence = row.source or source.name, row.licence or source.licence
    speaker = source.speaker or row.speaker or path.parent.name
    split = held_out.decide(name, speaker, row.split or split_of_voice(row.speaker, source.split))
    if split == "exclude":
        return ""
    if split == "train" and licence not in PERMISSIVE:
        return f"{path}: its manifest says {licence!r}, and only permissive audio may be learned from"
    return Clip("", 0.0, name, licence, speaker, split, source.content, row.bandwidth_hz)


def split_of_voice(voice: str, default: Split) -> Split:
    """The split of a synthetic voice, written as ``name`` or as a blend ``name*0.40+name``."""
    names = {part.split("*")[0] for part in voice.split("+")} if voice else set()
    if names & RESERVED_VOICES:
        return "eval"
    return "valid" if names & VALIDATION_VOICES else default


def write_manifest(path: Path, clips: Sequence[Clip]) -> None:
    """Write one JSON object a line, atomically, so that an incomplete manifest is never read."""
    write_text(path, "".join(json.dumps(asdict(clip)) + "\n" for clip in clips))


def read_manifest(path: Path) -> list[Clip]:
    """The clips of a manifest. Raises :class:`FileFormatError` if it is missing or has other fields."""
    if not path.exists():
        raise FileFormatError(
            f"no manifest at {path}; build the data set first (`streaming-encodec train --build-data`)"
        )
    try:
        return [Clip(**json.loads(line)) for line in path.read_text().splitlines() if line.strip()]
    except (TypeError, ValueError) as error:
        raise FileFormatError(f"{path} is not a manifest of this recipe ({error}); build the data set again") from error


def _need_tool(tool: str, source: Source) -> None:
    if shutil.which(tool) is None:
        raise ConfigError(
            f"source {source.name!r} needs the program {tool!r}, which is not here; install it, or leave the "
            "source out and give folders of audio instead"
        )


def _call(command: list[str], cwd: Path, source: Source) -> None:
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise FileFormatError(
            f"source {source.name!r}: `{' '.join(command)}` failed ({result.stderr.strip()[-300:]}); "
            "check the network and the package lists, or leave the source out"
        )
