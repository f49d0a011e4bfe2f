"""`streaming-encodec evaluate`: measures a model beside Opus, without and with loss."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from streaming_encodec.audio.files.atomic import write_text
from streaming_encodec.audio.files.folder_lock import FolderLock
from streaming_encodec.audio.files.targets import check_folder
from streaming_encodec.audio.files.writer import AudioWriter
from streaming_encodec.cli.shared.console import err, note, out, print_json
from streaming_encodec.cli.shared.listening_pages import check_pages, write_gallery, write_pairs
from streaming_encodec.cli.shared.loading import ModelOption, load_model
from streaming_encodec.cli.shared.options import MOST_SEED, MOST_THREADS, JsonOption, ThreadsOption, use_threads
from streaming_encodec.errors import MissingExtraError
from streaming_encodec.model.checkpoints.named import DEFAULT_MODEL
from streaming_encodec.types import Pcm

if TYPE_CHECKING:
    from streaming_encodec.evaluation.clips import Clip
    from streaming_encodec.evaluation.metrics import MetricSet
    from streaming_encodec.evaluation.runner import Condition, Evaluation

QUICK_CLIPS = 6
QUICK_METRICS = ("pesq_wb", "stoi", "log_mel_db", "modulation")
LOSSES = (0.01, 0.05, 0.10, 0.20)
QUICK_LOSSES = (0.05, 0.20)
QUICK_KBPS = 6.0
MOST_PLACES = 16


def command(
    audio: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            help="Recordings of speakers outside the training data; a manifest.jsonl may give texts and speakers.",
        ),
    ],
    model: ModelOption = DEFAULT_MODEL,
    to: Annotated[Path, typer.Option("--out", "-o", help="Folder for results.json, results.md and the plots.")] = Path(
        "evaluation"
    ),
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Some of pesq_wb, stoi, visqol_speech, log_mel_db, wer, speaker, dnsmos, distill_mos, lsd, "
            "modulation.",
            show_default="all",
        ),
    ] = None,
    bandwidths: Annotated[
        str | None,
        typer.Option(metavar="KBPS,KBPS", help="Rates without loss.", show_default="all of the model"),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(metavar="%,%", help="Shares of packets lost, in percent.", show_default="1,5,10,20"),
    ] = None,
    loss_bandwidths: Annotated[
        str | None,
        typer.Option(metavar="KBPS,KBPS", help="Rates with loss.", show_default="all of the model"),
    ] = None,
    burst_ms: Annotated[float, typer.Option(min=1.0, max=60_000.0, help="Mean length of a burst of losses.")] = 60.0,
    opus: Annotated[bool, typer.Option(help="Compare with Opus at the same rates.")] = True,
    plots: Annotated[bool, typer.Option(help="Draw plots.")] = True,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="Six clips, the cheap metrics, loss at 6 kbps only: a quick look during training.",
        ),
    ] = False,
    clips: Annotated[int | None, typer.Option(min=1, help="Take only so many clips.", show_default="all")] = None,
    places: Annotated[
        int,
        typer.Option(
            "--places",
            min=1,
            max=MOST_PLACES,
            help="Code every clip this many times, delayed by parts of a frame: which words few bits lose is chance.",
        ),
    ] = 1,
    build_set: Annotated[
        bool,
        typer.Option("--build-set", help="First make FOLDER from Debian packages (apt-get): the listening set."),
    ] = False,
    gallery: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT",
            help="Instead of measuring, write sound files of every clip at every rate, with loss, and by Opus into "
            "this folder, and pages that link to them (OUT/index.html and OUT.md).",
        ),
    ] = None,
    listen: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.html",
            help="Instead of measuring, write a page for a blind listening test by pairs, and its key FILE.key.json. "
            "The model at --bandwidths (6 kbps) is compared with Opus at 6 and 9 kbps, or with --against.",
        ),
    ] = None,
    against: Annotated[
        str | None, typer.Option(metavar="MODEL", help="With --listen: another model at the same rates.")
    ] = None,
    save_audio: Annotated[bool, typer.Option("--save-audio", help="Also write the decoded clips, as FLAC.")] = False,
    whisper: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="A faster-whisper model for the word error rate.", show_default="packaged"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Of the losses.")] = 0,
    jobs: Annotated[
        int, typer.Option(min=1, max=MOST_THREADS, help="Processes that apply the metrics; at most the free cores.")
    ] = 1,
    threads: ThreadsOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Measure a model on a folder of speech, through the streaming path, beside Opus at equal rates.

    Without and with bursts of loss: PESQ-WB, STOI, ViSQOL, log-mel distance, word errors, speaker similarity, the
    opinion scores DNSMOS and Distill-MOS, log-spectral distance, and buzz at the frame rate (modulation).
    Tables, results.json, and plots; a metric whose package is missing is shown as such.
    """
    from streaming_encodec.evaluation.clips import load_clips, shifted
    from streaming_encodec.evaluation.judging import PoolJudge
    from streaming_encodec.evaluation.listening_set import build_listening_set
    from streaming_encodec.evaluation.marks import marks
    from streaming_encodec.evaluation.metrics import MetricOptions, make_metrics
    from streaming_encodec.evaluation.report import as_json as report_json
    from streaming_encodec.evaluation.report import (
        as_markdown,
        marks_table,
        rows_tables,
        signals_table,
    )
    from streaming_encodec.evaluation.runner import Plan, evaluate

    check_pages(gallery, listen, against)
    check_folder(to, [audio] if save_audio else [])  # originals and decoded clips must not mix
    use_threads(threads)
    loaded = load_model(model)
    if build_set:
        build_listening_set(audio, on_clip=lambda name: note(f"made {name}"))
    if gallery is not None:
        write_gallery(loaded, load_clips(audio, loaded.config.sampling_rate, clips), audio, gallery, seed, burst_ms)
        return
    if listen is not None:
        rates = _numbers(bandwidths, "--bandwidths") or (QUICK_KBPS,)
        write_pairs(loaded, load_clips(audio, loaded.config.sampling_rate, clips), listen, against, rates, seed)
        return
    known = loaded.config.target_bandwidths
    plan = Plan(
        bandwidths=_numbers(bandwidths, "--bandwidths") or known,
        losses=tuple(percent / 100 for percent in _numbers(loss, "--loss", most=99.0)) if loss is not None else LOSSES,
        loss_bandwidths=_numbers(loss_bandwidths, "--loss-bandwidths") or known,
        burst_ms=burst_ms,
        opus=opus,
        seed=seed,
    )
    names = metrics.split(",") if metrics else None
    if quick:
        # A metric that is named stays.
        if loss is None:
            plan = replace(plan, losses=QUICK_LOSSES)
        if loss_bandwidths is None:
            nearest = min(known, key=lambda kbps: abs(kbps - QUICK_KBPS))
            plan = replace(plan, loss_bandwidths=(nearest,))
        clips = clips or QUICK_CLIPS
    options = MetricOptions(whisper, loaded.config.sampling_rate / loaded.config.hop_length)
    metric_set = _without_slow(make_metrics(names, options), quick and names is None)
    chosen = shifted(load_clips(audio, loaded.config.sampling_rate, clips), places, loaded.config.hop_length)
    with ExitStack() as stack:
        stack.enter_context(FolderLock(to))
        judge = None
        if jobs > 1:
            judge = stack.enter_context(PoolJudge(chosen, metric_set, jobs))
        listener = stack.enter_context(_Progress(chosen, to if save_audio else None))
        result = evaluate(loaded.in_torch(), chosen, metric_set, plan, listener, judge)
        report = report_json(loaded.name, chosen, metric_set, plan, result)
        write_text(to / "results.json", json.dumps(report, indent=1, ensure_ascii=False) + "\n")
        write_text(to / "results.md", as_markdown(loaded.name, chosen, metric_set, result))
        if plots:
            _draw(to, loaded.name, chosen[0], metric_set, result, listener.showcase)
    if as_json:
        print_json(report)
        return
    console = out()
    for table in rows_tables(metric_set, result, loaded.name):
        console.print(table)
    for name, reason in metric_set.missing.items():
        note(f"{name} was not measured: {reason}")
    console.print(signals_table(result))
    console.print(marks_table(marks(metric_set, result)))
    console.print(f"results and plots: {to}", soft_wrap=True)


def _numbers(text: str | None, option: str, most: float = 1000.0) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in (text or "").split(",") if part.strip())
    except ValueError as error:
        raise typer.BadParameter(f"give numbers with commas between, not {text!r}", param_hint=option) from error
    if not all(0 <= number <= most for number in numbers):
        raise typer.BadParameter(f"give numbers from 0 to {most:g}, not {text!r}", param_hint=option)
    return numbers


def _without_slow(metrics: MetricSet, quick: bool) -> MetricSet:
    """Leave out metrics that take seconds a clip; the table says so."""
    if not quick:
        return metrics
    kept = tuple(metric for metric in metrics.metrics if metric.family in QUICK_METRICS)
    left = {m.family: "left out by --quick; name it with --metrics" for m in metrics.metrics if m not in kept}
    return replace(metrics, metrics=kept, missing=metrics.missing | left)


class _Progress:
    """A progress bar; keeps the first clip's sounds for the spectrograms, and writes all of them with --save-audio."""

    def __init__(self, clips: list[Clip], save_to: Path | None) -> None:
        self.showcase: dict[str, Pcm] = {}
        self._clips = clips
        self._save_to = save_to
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:.0f} %"),
            TimeElapsedColumn(),
            console=err(),
            transient=True,
            disable=not err().is_terminal,
        )
        self._task = self._bar.add_task("encoding", total=None)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def begin(self, condition: Condition, done: int, total: int) -> None:
        clips = len(self._clips)
        self._bar.update(self._task, description=condition.label, total=total * clips, completed=done * clips)

    def scored(self, condition: Condition) -> None:
        self._bar.advance(self._task)

    def sound(self, condition: Condition, clip: Clip, samples: Pcm) -> None:
        if not condition.kbps:
            return  # the original
        if clip is self._clips[0]:
            self.showcase[condition.label] = samples
        if self._save_to is not None:
            name = condition.label.replace(", ", " ").replace(" ", "-").replace("%", "")
            inside = [part for part in Path(clip.name).parts if part not in ("..", Path(clip.name).anchor)]
            path = Path(self._save_to, "audio", name, *inside).with_suffix(".flac")
            path.parent.mkdir(parents=True, exist_ok=True)
            with AudioWriter(path, clip.sample_rate) as writer:
                writer.write(samples[None])


def _draw(to: Path, name: str, clip: Clip, metrics: MetricSet, result: Evaluation, sounds: dict[str, Pcm]) -> None:
    from streaming_encodec.evaluation.plots import loss_plot, rate_plot, spectrogram_plot

    # Every rate without loss, Opus beside the model's middle one, and the worst loss.
    clean = [label for label in sounds if "lost" not in label]
    ours = [label for label in clean if label.startswith("model")]
    theirs = [label for label in clean if label == f"opus {QUICK_KBPS:g} kbps"]
    shown = [metric for metric in metrics.metrics if metric.family != "modulation"]
    worst = [label for label in sounds if "lost" in label and label.startswith(f"model {QUICK_KBPS:g} ")][-1:]
    try:
        if shown:
            rate_plot(to / "rate.png", shown, result, name)
            loss_plot(to / "loss.png", shown, result, name)
        spectrogram_plot(to / "spectrograms.png", clip, {label: sounds[label] for label in ours + theirs + worst})
    except MissingExtraError as error:
        note(f"no plots: {error}")
