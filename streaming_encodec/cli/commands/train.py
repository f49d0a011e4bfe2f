"""`streaming-encodec train`: build a data set, train a model, resume a run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from streaming_encodec.audio.files.folder_lock import FolderLock
from streaming_encodec.cli.shared.console import err, minutes, note, out, print_facts
from streaming_encodec.cli.shared.interrupt import Interrupt
from streaming_encodec.cli.shared.options import MOST_SEED, MOST_THREADS

if TYPE_CHECKING:
    from streaming_encodec.training.config import TrainConfig
    from streaming_encodec.training.loop import TrainingRun

DEFAULT_OUT = "runs/voice-24khz"
CONFIG_NAME = "config.json"
MOST_STEPS = 1_000_000_000
MOST_SEGMENTS = 65_536
MOST_SEGMENT_SECONDS = 60.0

_SLOW = 1.5


def command(
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            help="Data set: 24 kHz FLAC with manifest.jsonl.",
            show_default="the run's or --config's, else data",
        ),
    ] = None,
    run_folder: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder of the run; an existing run is resumed.",
            show_default="--config's, else runs/voice-24khz",
        ),
    ] = None,
    build_data: Annotated[
        bool, typer.Option("--build-data", help="Fetch the recipe's packages into --data, then stop.")
    ] = False,
    folder: Annotated[
        list[Path] | None, typer.Option("--folder", help="With --build-data: also use this folder of audio.")
    ] = None,
    only_folders: Annotated[
        bool, typer.Option("--only-folders", help="With --build-data: no packages, only the folders.")
    ] = False,
    noise_folder: Annotated[
        list[Path] | None,
        typer.Option("--noise-folder", help="With --build-data: sounds of this folder are mixed into speech."),
    ] = None,
    held_out: Annotated[
        Path | None,
        typer.Option(
            "--held-out", help="With --build-data: a file of lines `source speaker split` (valid, eval or exclude)."
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="A run's config.json to start from; options override it.")
    ] = None,
    start_model: Annotated[
        Path | None, typer.Option("--start-model", help="Folder of a model to start from; without: random weights.")
    ] = None,
    time_budget: Annotated[
        float | None, typer.Option("--minutes", min=0.01, max=1e6, help="Fit the run to this many minutes of training.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, max=MOST_STEPS, help="Fit the run to this many steps.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", min=1, max=MOST_SEGMENTS, help="Segments a step.")
    ] = None,
    segment_seconds: Annotated[
        float | None,
        typer.Option("--segment-seconds", min=0.0, max=MOST_SEGMENT_SECONDS, help="Length of a segment."),
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option("--learning-rate", min=0.0, max=1.0, help="Peak; a cosine follows.")
    ] = None,
    adversarial_start: Annotated[
        int | None,
        typer.Option(
            "--adversarial-start", min=0, max=MOST_STEPS, help="Step at which the discriminator joins; without: never."
        ),
    ] = None,
    device: Annotated[str | None, typer.Option("--device", help="cpu or cuda.")] = None,
    precision: Annotated[str | None, typer.Option("--precision", help="float32 or bfloat16.")] = None,
    threads: Annotated[int | None, typer.Option("--threads", min=1, max=MOST_THREADS, help="CPU threads.")] = None,
    replicas: Annotated[
        int | None,
        typer.Option(
            "--replicas", min=1, max=MOST_THREADS, help="Cores that share each batch; steadier than --threads."
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", min=0, max=MOST_SEED, help="Of the initial weights and all random draws."),
    ] = None,
) -> None:
    """Train the voice model, or build its data set first.

    Ctrl-C saves a run. To resume it exactly where it stopped, give the same --out again.

    Example: `streaming-encodec train --build-data --data data`, then
    `streaming-encodec train --data data --out runs/mine --minutes 60`.
    """
    from streaming_encodec.audio.files.targets import check_folder

    settings = _base(config, run_folder)
    # A run's own file belongs to its folder, which may have been moved; a file of --config names the folder.
    run = run_folder or Path(settings.out if config is not None else DEFAULT_OUT)
    if build_data:
        _build(data or Path(settings.data), folder or [], noise_folder or [], held_out, only_folders)
        return
    for option, value in {
        "--folder": folder,
        "--noise-folder": noise_folder,
        "--held-out": held_out,
        "--only-folders": only_folders,
    }.items():
        if value:
            raise typer.BadParameter("belongs to --build-data", param_hint=option)
    if time_budget is not None and steps is not None:
        raise typer.BadParameter("a run fits one budget: give --minutes or --steps", param_hint="--steps")
    changes: dict[str, object] = {
        "data": None if data is None else str(data),
        "start_model": None if start_model is None else str(start_model),
        "minutes": time_budget,
        "steps": steps,
        "batch_size": batch_size,
        "segment_seconds": segment_seconds,
        "learning_rate": learning_rate,
        "device": device,
        "precision": precision,
        "threads": threads,
        "replicas": replicas,
        "seed": seed,
    }
    given = {name: value for name, value in changes.items() if value is not None}
    if steps is not None:
        given["minutes"] = None
    check_folder(run)
    with FolderLock(run):
        if config is None:
            settings = _base(None, run)  # read again under the lock
        _tell_defaults(settings, config, run)
        _train(_changed(settings, {**given, "out": str(run)}, adversarial_start))


def _base(file: Path | None, run: Path | None) -> TrainConfig:
    """The settings before the options: a file's, else those of the run to resume, else the defaults."""
    from streaming_encodec.training.config import TrainConfig

    held = (run or Path(DEFAULT_OUT)) / CONFIG_NAME
    if file is None and held.exists():
        file = held
    return TrainConfig() if file is None else TrainConfig.from_json(file)


def _tell_defaults(settings: TrainConfig, file: Path | None, run: Path) -> None:
    held = run / CONFIG_NAME
    if file in (None, held) and held.exists() and (unsaid := settings.unsaid(held)):
        defaults = ", ".join(f"{name} {value!r}" for name, value in unsaid.items())
        note(f"{held} is of an earlier version; missing fields get today's defaults: {defaults}")


def _changed(settings: TrainConfig, changes: dict[str, object], adversarial_start: int | None) -> TrainConfig:
    if adversarial_start is not None:
        changes = {**changes, "loss": dataclasses.replace(settings.loss, adversarial_start=adversarial_start)}
    return dataclasses.replace(settings, **changes)  # type: ignore[arg-type]


def _build(data: Path, folders: list[Path], noise: list[Path], held_out: Path | None, only_folders: bool) -> None:
    from streaming_encodec.audio.files.targets import check_folder
    from streaming_encodec.training.listing import HeldOut
    from streaming_encodec.training.recipe import SOURCES, Clip, build_dataset, folder_sources

    check_folder(data)
    own = folder_sources(folders, noise)
    speakers = HeldOut() if held_out is None else HeldOut.read(held_out)
    seconds: dict[str, float] = {}
    skipped: list[str] = []

    def count(clip: Clip) -> None:
        name = f"{clip.source}, {clip.split}"
        if name not in seconds:
            err().print(Text(f"{clip.source} ({clip.licence})", "dim"))
        seconds[name] = seconds.get(name, 0.0) + clip.seconds

    sources = own if only_folders else SOURCES + own
    if not sources:
        raise typer.BadParameter("needs at least one --folder", param_hint="--only-folders")
    with FolderLock(data):
        clips = build_dataset(data, sources, held_out=speakers, on_clip=count, on_skip=skipped.append)
    print_facts(f"{data}: {len(clips)} clips", {name: minutes(value) for name, value in seconds.items()})
    for reason in skipped:
        note(f"left out: {reason}")


def _train(config: TrainConfig) -> None:
    from streaming_encodec.audio.files.targets import refuse_input
    from streaming_encodec.training.loop import TrainingRun

    if not Path(config.out, "state.safetensors").exists():  # a resumed run does not read it
        refuse_input(Path(config.out, "model"), [config.start_model])
    _check_precision(config)
    run = TrainingRun(config)
    if run.step:
        note(f"resuming at step {run.step}, after {minutes(run.elapsed_s)} of training")
    parameters = sum(p.numel() for p in run.trainer.model.parameters())
    note(f"{parameters / 1e6:.2f} M parameters; validation on {run.validation_clips} clips")
    with Interrupt() as interrupt:
        _show(run, interrupt)
    if not run.trainer.quantised:
        note("no codebooks yet: this model cannot code; resume this run, or start another with --start-model")
    out().print(f"step {run.step}: model in {run.out / 'model'}", soft_wrap=True)


def _check_precision(config: TrainConfig) -> None:
    from streaming_encodec.training.gradients import beside_float32
    from streaming_encodec.training.step import low_precision, torch_device

    low = low_precision(config)
    if low is not None and (times := beside_float32(torch_device(config.device), low)) > _SLOW:
        note(f"{config.precision} takes {times:.0f} times as long as float32 here: leave --precision out")


def _show(run: TrainingRun, interrupt: Interrupt) -> None:
    bar = Progress(
        TextColumn("step {task.fields[step]}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[losses]}"),
        console=err(),
        disable=not err().is_terminal,
    )
    with bar:
        task = bar.add_task("train", total=1.0, step=run.step, losses="")
        for row in run.run(stop_requested=lambda: interrupt.requested):
            losses = f"waveform {row['waveform']:.3f}  mel {row['mel']:.3f}"
            bar.update(task, completed=run.progress(), step=run.step, losses=losses)
