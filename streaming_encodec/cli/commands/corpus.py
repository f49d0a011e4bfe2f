"""`streaming-encodec corpus`: many sound files to codes, in as many processes as the machine has cores."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from streaming_encodec.cli.shared.console import complain, minutes, note, print_facts, print_json, progress
from streaming_encodec.cli.shared.loading import ModelOption, note_preview
from streaming_encodec.cli.shared.options import MOST_THREADS, BandwidthOption, EngineOption, JsonOption
from streaming_encodec.model.checkpoints.named import DEFAULT_MODEL


def command(
    source: Annotated[Path, typer.Argument(metavar="FOLDER", help="Searched for sound files, also below.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write; the same tree, .ecdc.")],
    model: ModelOption = DEFAULT_MODEL,
    bandwidth: BandwidthOption = None,
    engine: EngineOption = "auto",
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", min=0, max=MOST_THREADS, help="Processes, a thread each; 0 for one a core.")
    ] = 0,
    again: Annotated[bool, typer.Option("--again", help="Also files that have been encoded.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Encode all sound files of a folder to .ecdc, exactly as `encode` does one.

    Files that are encoded already are skipped, so that the same command resumes an interrupted run; an .ecdc that is
    empty or cut off is encoded again. Files that cannot be read are listed at the end, with exit code 1; the others
    are encoded.
    """
    from streaming_encodec.corpus.folder import encode_folder
    from streaming_encodec.corpus.local import run_in_processes

    with progress("encoding") as show:
        done = encode_folder(
            source,
            target,
            model,
            bandwidth=bandwidth,
            engine=engine,
            again=again,
            execute=partial(run_in_processes, processes=jobs),
            progress=show,
        )
    note_preview(model)
    if as_json:
        print_json(
            {
                "files": done.files,
                "already_there": done.already_there,
                "skipped": [str(path) for path in done.skipped],
                "arithmetic": done.arithmetic or "layers",
                "seconds": done.seconds,
                "bytes": done.size_bytes,
                "failed": {str(path): error for path, error in done.failed.items()},
            }
        )
    else:
        print_facts(
            f"{source} → {target}",
            {
                "encoded": f"{done.files} files, {minutes(done.seconds)} of sound",
                "were there": f"{done.already_there} files",
                "failed": f"{len(done.failed)} files",
            },
        )
    if done.skipped:
        example = done.skipped[0]
        note(
            f"{len(done.skipped)} files such as {example} are macOS's notes on other files, and hold no sound: skipped"
        )
    for path, error in done.failed.items():
        complain(f"{path}: {error}")
    if done.failed:
        raise typer.Exit(1)
