"""A folder of sound files to a folder of codes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from streaming_encodec.audio.files.folder_lock import FolderLock
from streaming_encodec.audio.files.targets import check_folder
from streaming_encodec.corpus.formats import EcdcFiles, Format
from streaming_encodec.corpus.jobs import Executor, WorkerSettings
from streaming_encodec.corpus.local import run_in_processes
from streaming_encodec.corpus.transcode import choose_bandwidth, engine_of, open_model
from streaming_encodec.errors import ConfigError

SOUND_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".aiff", ".aif", ".w64", ".caf")


@dataclass(slots=True)
class EncodedFolder:
    """What a run did."""

    arithmetic: str | None
    """What computed the codes; None for the layers themselves."""
    already_there: int
    skipped: list[Path]
    """AppleDouble files, which hold no sound."""
    files: int = 0
    seconds: float = 0.0
    size_bytes: int = 0
    failed: dict[Path, str] = field(default_factory=dict)
    """What was wrong, by source."""


def encode_folder(
    source: Path,
    target: Path,
    model: str,
    *,
    bandwidth: float | None = None,
    engine: str = "auto",
    again: bool = False,
    output: Format | None = None,
    execute: Executor = run_in_processes,
    progress: Callable[[int, int], None] | None = None,
) -> EncodedFolder:
    """Encode all sound files of a folder and of those below it. One run at a time may write into a folder.

    Args:
        source: the folder to search.
        target: the folder to write, made where it is missing.
        model: a name that `open_model` takes; models of every kind.
        bandwidth: kbps, one of the model's; None is the one nearest to 6.
        engine: what computes; of no effect on a model of segments.
        again: also encode files that are encoded already. Without it, an interrupted run is resumed.
        output: how the codes are written; None is `.ecdc` files.
        execute: where the work is done.
        progress: called with the files done and all that are to do: once at the beginning, then after each.

    Raises:
        ConfigError: no such folder, no sound in it, or two files that would be written to one place.
        BandwidthError, StreamError, CheckpointError: as in `encode_file`.
        FileFormatError, FolderError: the target cannot be written, or another run writes into it.
    """
    check_folder(target)
    files, skipped = find_sounds(source)
    output = output or EcdcFiles()
    jobs = list(output.plan(files, source, target))
    # Errors that concern every file are raised once, here, and a model from the hub is downloaded once.
    opened = open_model(model)
    kbps = choose_bandwidth(opened.config, bandwidth)
    computing = engine_of(opened, engine)
    with FolderLock(target):
        todo = [job for job in jobs if again or not output.is_whole(job.target, opened.config)]
        result = EncodedFolder(computing.arithmetic if computing else None, len(jobs) - len(todo), skipped)
        if progress is not None:
            progress(0, len(todo))
        for number, done in enumerate(execute(todo, WorkerSettings(model, kbps, engine, output)), start=1):
            if done.error:
                result.failed[done.job.source] = done.error
            else:
                result.files += 1
                result.seconds += done.seconds
                result.size_bytes += done.size_bytes
            if progress is not None:
                progress(number, len(todo))
    return result


def find_sounds(folder: Path) -> tuple[list[Path], list[Path]]:
    """The sound files of a folder and of those below it, sorted; and those left out: AppleDouble files (`._a.wav`).

    macOS puts these beside the others on disks of other systems; they hold no sound.

    Raises:
        ConfigError: no such folder, or no sound file in it.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder: give one that holds sound files")
    named = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SOUND_SUFFIXES and path.is_file())
    files: list[Path] = []
    skipped: list[Path] = []
    for path in named:
        (skipped if _is_apple_double(path) else files).append(path)
    if not files:
        raise ConfigError(f"{folder} holds no sound files ({', '.join(SOUND_SUFFIXES)})")
    return files, skipped


def _is_apple_double(path: Path) -> bool:
    if not path.name.startswith("._"):
        return False
    try:
        with path.open("rb") as file:
            return file.read(4) == b"\x00\x05\x16\x07"
    except OSError:
        return False  # reported when it is read
