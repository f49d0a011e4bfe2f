"""What the commands share that turn one file into another."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

from streaming_encodec.audio.files.standard import is_standard
from streaming_encodec.cli.shared.console import complain, minutes, note, print_facts, print_json, progress
from streaming_encodec.cli.shared.interrupt import Interrupt
from streaming_encodec.cli.shared.loading import caveat

if TYPE_CHECKING:
    from streaming_encodec.corpus.results import SourceFile, TranscodedFile

SourceHelp = "Any sound file that libsndfile reads; - for standard input."

SourceArgument = Annotated[Path, typer.Argument(metavar="IN", help=SourceHelp)]

SoundArgument = Annotated[
    Path,
    typer.Argument(metavar="OUT", help="The sound file to write, such as out.wav or out.flac; - for a WAV on stdout."),
]


class FileWork:
    """Progress of a file on the terminal, and Ctrl-C that lets the block in hand be finished.

    Until the work on the file begins, while a model is loaded for example, Ctrl-C ends the command at once.
    """

    def __init__(self, label: str) -> None:
        self._label = label
        self._stack = ExitStack()
        self._show: Callable[[int, int | None], None] | None = None
        self._interrupt = Interrupt()

    def progress(self, samples: int, total_samples: int | None) -> None:
        """For the functions of `corpus.transcode`, as `stop`."""
        if self._show is None:
            self._stack.enter_context(self._interrupt)
            self._show = self._stack.enter_context(progress(self._label))
        self._show(samples, total_samples)

    def stop(self) -> bool:
        """Whether the user has had enough."""
        return self._interrupt.requested

    def end(self, target: Path, done: TranscodedFile) -> None:
        """Say so of an interrupted file, and end with exit code 1."""
        if self._interrupt.requested:
            complain(f"interrupted; {target} holds the first {minutes(done.seconds)}")
            raise typer.Exit(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()


def file_facts(source: Path, target: Path, done: TranscodedFile, weights: str) -> dict[str, Any]:
    """For `--json`, what every command says that makes one file of another."""
    return {
        "input": str(source),
        "output": str(target),
        "model": done.model,
        "weights": weights,
        "sample_rate": done.sample_rate,
        "channels": done.channels,
        "samples": done.samples,
        "seconds": done.seconds,
        "num_codebooks": done.num_codebooks,
        "bandwidth_kbps": done.bandwidth_kbps,
    }


def print_file(facts: Mapping[str, Any], rows: Mapping[str, str], as_json: bool) -> None:
    """Print the facts, or a table of what all such commands say and `rows`; to stderr where stdout has the file."""
    aside = is_standard(facts["output"])
    if as_json:
        print_json(facts, aside=aside)
        return
    title = f"{facts['input']} → {facts['output']}"
    said = {
        "model": facts["model"] + caveat(facts["weights"]),
        "sound": f"{minutes(facts['seconds'])} at {facts['sample_rate']} Hz, {facts['channels']} channel(s)",
        "bitrate": f"{facts['bandwidth_kbps']:g} kbps ({facts['num_codebooks']} codebooks)",
    }
    print_facts(title, {**said, **rows}, aside=aside)


def input_facts(path: str | os.PathLike[str], source: SourceFile) -> dict[str, Any]:
    """How much of the file was read of how much its header promises, for `--json`; its notes go to stderr."""
    for text in source.notes:
        note(f"{path}: {text}")
    return {
        "input_samples": source.samples,
        "input_samples_promised": source.samples_promised,
        "input_notes": source.notes,
    }


def told_of_input(facts: Mapping[str, Any]) -> dict[str, str]:
    """The row of a table that says so, where what was read is not simply what was promised."""
    read, promised = facts["input_samples"], facts["input_samples_promised"]
    if facts.get("interrupted") or (read == promised and not facts["input_notes"]):
        return {}
    if promised is None:
        return {"read": f"{read} samples; the header promises no number"}
    return {"read": f"{read} samples of {promised} that the header promises"}
