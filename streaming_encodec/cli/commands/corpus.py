"""`streaming-encodec corpus`: many sound files to codes, in as many processes as the machine has cores."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streaming_encodec.audio.files.folder_lock import FolderLock
from streaming_encodec.cli.shared.console import complain, err, minutes, note, print_facts, print_json
from streaming_encodec.cli.shared.loading import LoadedModel, ModelOption, layout_of, load_model
from streaming_encodec.cli.shared.options import MOST_THREADS, BandwidthOption, JsonOption, bandwidth_of, use_threads
from streaming_encodec.errors import ConfigError, StreamingEncodecError
from streaming_encodec.model.checkpoints.named import DEFAULT_MODEL

if TYPE_CHECKING:
    from rich.progress import Progress

SOUND_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".aiff", ".aif", ".w64", ".caf")

# Three quarters of a second at 75 frames a second: more frames at once gain nothing.
FRAMES_PER_STEP = 75


@dataclass(frozen=True)
class Job:
    """A file to encode."""

    source: Path
    target: Path


@dataclass(frozen=True)
class Done:
    """What became of it."""

    job: Job
    seconds: float = 0.0
    size: int = 0
    error: str = ""


def command(
    source: Annotated[Path, typer.Argument(metavar="FOLDER", help="Searched for sound files, also below.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write; the same tree, .ecdc.")],
    model: ModelOption = DEFAULT_MODEL,
    bandwidth: BandwidthOption = None,
    engine: Annotated[str, typer.Option("--engine", "-e", help="How the network is run.")] = "auto",
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", min=0, max=MOST_THREADS, help="Processes, a thread each; 0 for one a core.")
    ] = 0,
    again: Annotated[bool, typer.Option("--again", help="Also files that have been encoded.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Encode all sound files of a folder to .ecdc, exactly as `encode` does one.

    For models that stream by samples. What is there already is left out, so that an interrupted run goes on
    where it was; an .ecdc that is empty or cut off is made again. A file that cannot be read is told at the end;
    the others are encoded all the same, and the exit code is 1.
    """
    from streaming_encodec.audio.files.ecdc import is_whole_ecdc
    from streaming_encodec.audio.files.targets import check_folder
    from streaming_encodec.stepping.engine import find_engine

    check_folder(target)
    skipped: list[Path] = []
    everything = list(find_jobs(source, target, skipped))
    # What is wrong for all is told once, and a model from the hub is downloaded once.
    loaded = load_model(model)
    layout = layout_of(loaded.config)
    kbps = bandwidth_of(loaded, bandwidth)
    arithmetic = find_engine(engine, loaded.model).arithmetic or "layers"
    results = []
    with FolderLock(target):
        todo = [job for job in everything if again or not is_whole_ecdc(job.target, layout)]
        processes = max(1, min(jobs or os.cpu_count() or 1, len(todo)))
        with _bar(len(todo)) as bar:
            task = bar.add_task("encoding", total=len(todo))
            for done in _run(todo, processes, model, kbps, engine):
                results.append(done)
                bar.advance(task)
    failed = [done for done in results if done.error]
    seconds = sum(done.seconds for done in results)
    if as_json:
        print_json(
            {
                "files": len(results) - len(failed),
                "already_there": len(everything) - len(todo),
                "skipped": [str(path) for path in skipped],
                "arithmetic": arithmetic,
                "seconds": seconds,
                "bytes": sum(done.size for done in results),
                "failed": {str(done.job.source): done.error for done in failed},
            }
        )
    else:
        print_facts(
            f"{source} → {target}",
            {
                "encoded": f"{len(results) - len(failed)} files, {minutes(seconds)} of sound",
                "were there": f"{len(everything) - len(todo)} files",
                "failed": f"{len(failed)} files",
            },
        )
    if skipped:
        note(f"{len(skipped)} files such as {skipped[0]} are macOS's notes on other files, and hold no sound: skipped")
    for done in failed:
        complain(f"{done.job.source}: {done.error}")
    if failed:
        raise typer.Exit(1)


def find_jobs(source: Path, target: Path, skipped: list[Path] | None = None) -> Iterator[Job]:
    """The sound files below a folder, each with its place below another.

    `skipped` is filled with the AppleDouble files (`._a.wav`) that macOS puts beside others on foreign disks.

    Raises:
        ConfigError: no such folder, or no sound file in it, or two that would be written to one place.
    """
    if not source.is_dir():
        raise ConfigError(f"{source} is no folder: give one that holds sound files")
    named = sorted(path for path in source.rglob("*") if path.suffix.lower() in SOUND_SUFFIXES and path.is_file())
    notes = {path for path in named if _is_apple_double(path)}
    files = [path for path in named if path not in notes]
    if skipped is not None:
        skipped += sorted(notes)
    if not files:
        raise ConfigError(f"{source} holds no sound files ({', '.join(SOUND_SUFFIXES)})")
    taken: dict[Path, Path] = {}
    for path in files:
        place = (target / path.relative_to(source)).with_suffix(".ecdc")
        if place in taken:
            raise ConfigError(f"{taken[place]} and {path} would both be written to {place}: rename one")
        taken[place] = path
        yield Job(path, place)


def _is_apple_double(path: Path) -> bool:
    if not path.name.startswith("._"):
        return False
    try:
        with path.open("rb") as file:
            return file.read(4) == b"\x00\x05\x16\x07"
    except OSError:
        return False  # told when it is read


def _run(todo: list[Job], processes: int, model: str, kbps: float, engine: str) -> Iterator[Done]:
    if not todo:
        return
    # Spawned, not forked: torch's and ONNX Runtime's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, _Worker.start, (model, kbps, engine)) as pool:
        waiting = iter(todo)
        running = {pool.submit(_Worker.encode, job): job for job in islice(waiting, 2 * processes)}
        while running:
            finished: set[Future[Done]] = wait(running, return_when=FIRST_COMPLETED).done
            for future in finished:
                del running[future]
                yield future.result()
            for job in islice(waiting, 2 * processes - len(running)):
                running[pool.submit(_Worker.encode, job)] = job


class _Worker:
    """What a process keeps between two files."""

    current: _Worker

    def __init__(self, model: str, bandwidth: float, engine: str) -> None:
        from streaming_encodec.stepping.engine import find_engine

        use_threads(1)
        self.loaded: LoadedModel = load_model(model)
        self.kbps = bandwidth
        self.engine = find_engine(engine, self.loaded.model)

    @classmethod
    def start(cls, model: str, bandwidth: float, engine: str) -> None:
        cls.current = cls(model, bandwidth, engine)

    @classmethod
    def encode(cls, job: Job) -> Done:
        try:
            seconds, size = cls.current.encode_file(job)
        except (StreamingEncodecError, OSError) as error:
            return Done(job, error=" ".join(str(error).split()))
        return Done(job, seconds, size)

    def encode_file(self, job: Job) -> tuple[float, int]:
        from streaming_encodec.audio.files.ecdc import EcdcWriter
        from streaming_encodec.audio.files.sound import AudioReader
        from streaming_encodec.audio.files.targets import refuse_input
        from streaming_encodec.streaming import StreamingEncoder

        config = self.loaded.config
        refuse_input(job.target, [job.source])
        job.target.parent.mkdir(parents=True, exist_ok=True)
        encoder = StreamingEncoder(
            self.loaded.model, self.kbps, "exact", frames_per_step=FRAMES_PER_STEP, engine=self.engine
        )
        samples = 0
        with (
            AudioReader(job.source, config.sampling_rate, config.audio_channels) as reader,
            EcdcWriter(
                job.target, self.loaded.name, encoder.num_codebooks, layout_of(config), self.engine.arithmetic
            ) as writer,
        ):
            for block in reader:
                samples += block.shape[1]
                writer.push(encoder.push(block))
            if samples:
                writer.push(encoder.flush())
            size = writer.close(samples)
        return samples / config.sampling_rate, size


def _bar(files: int) -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = err()
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal or not files,
    )
